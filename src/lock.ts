/**
 * A lock between processes that dies with its holder, even on SIGKILL: SQLite's exclusive lock on an empty database.
 *
 * On Unix it is a POSIX record lock, which a process loses when it closes *any* descriptor of the file: a lock file must
 * never be opened by other means in a process that may hold it. Nor may it be removed while somebody may wait for it.
 */
import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { AppError, errnoOf } from "./errors.ts";
import { pause } from "./pause.ts";

/** Index writes and sweeps take milliseconds; a holder that takes longer than this hangs. */
const LOCK_WAIT_MS = 30_000;
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 25;

/**
 * Takes the lock if it is free. Disposing of it again does nothing.
 *
 * @param options.create false: a missing file counts as locked by nobody and is not created; the answer is then a lock
 *        on nothing
 * @returns undefined if another process, or another lock of this one, holds it
 */
export function tryLock(path: string, options: { create?: boolean } = {}): Disposable | undefined {
  const database = openDatabase(path, options.create ?? true);
  if (database === undefined) return NO_LOCK;
  try {
    database.run("PRAGMA busy_timeout = 0");
    database.run("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (errnoOf(error)?.startsWith("SQLITE_BUSY")) return undefined;
    // Its last holder removed it after it was opened here.
    if (options.create === false && !existsSync(path)) return NO_LOCK;
    throw unusable(path, error);
  }
  let isHeld = true;
  return {
    [Symbol.dispose]() {
      if (isHeld) release(database);
      isHeld = false;
    },
  };
}

export interface AcquireLockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds; 30,000 unless given. */
  readonly waitMs?: number;
  /** Called once, if somebody else holds the lock. */
  readonly onWait?: () => void;
}

/** @throws conflict if it is not to be had in time, forbidden if the file cannot be written */
export async function acquireLock(
  path: string,
  options: AcquireLockOptions = {},
): Promise<Disposable> {
  const deadline = performance.now() + (options.waitMs ?? LOCK_WAIT_MS);
  let pauseMs = FIRST_PAUSE_MS;
  for (let failures = 1; ; failures += 1) {
    options.signal?.throwIfAborted();
    const lock = tryLock(path);
    if (lock !== undefined) return lock;
    if (performance.now() >= deadline) {
      throw new AppError(
        "conflict",
        `cannot lock \`${path}\`: another process has held it for too long`,
        {
          hint: "See whether another `tug` command hangs, end it and try again.",
        },
      );
    }
    // Two that try at the same instant can refuse each other, which is not waiting for anybody.
    if (failures === 3) options.onWait?.();
    await pause(pauseMs * (0.5 + Math.random()), options.signal);
    pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
  }
}

// --- internal ---

/** On nothing. */
const NO_LOCK: Disposable = { [Symbol.dispose]: () => undefined };

function openDatabase(path: string, create: boolean): Database | undefined {
  try {
    return new Database(path, { readwrite: true, create });
  } catch (error) {
    if (!create && errnoOf(error) === "SQLITE_CANTOPEN") return undefined;
    throw unusable(path, error);
  }
}

function release(database: Database): void {
  // Closing alone would keep the lock for as long as a statement is not yet collected.
  if (database.inTransaction) database.run("ROLLBACK");
  database.close();
}

function unusable(path: string, cause: unknown): AppError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new AppError("forbidden", `cannot lock \`${path}\`: ${reason}`, {
    hint: "Make sure that you may write to this directory and that its disk is not full.",
    cause,
  });
}
