/**
 * Exclusive locks between processes, through SQLite's: the kernel drops them when their holder dies, so they are never
 * stale, and they work alike on every platform.
 */
import { Database } from "bun:sqlite";

/**
 * Takes the lock if nobody has it; dispose it to let go.
 *
 * @param path a file used for nothing else: on POSIX systems closing any other handle on it would drop the lock
 * @returns undefined if somebody else holds it
 */
export function tryLock(path: string): Disposable | undefined {
  const database = new Database(path, { create: true });
  try {
    database.run("PRAGMA busy_timeout = 0");
    database.run("PRAGMA locking_mode = EXCLUSIVE");
    database.run("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (String((error as { code?: unknown }).code).startsWith("SQLITE_BUSY")) return undefined;
    throw error;
  }
  return { [Symbol.dispose]: () => database.close() };
}
