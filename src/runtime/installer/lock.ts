/**
 * One installer at a time across processes, through SQLite's exclusive lock: the kernel drops it when its holder dies,
 * so it is never stale, and it works alike on every platform.
 */
import { Database } from "bun:sqlite";

import { AppError } from "../../errors.ts";

/** The holder may be downloading hundreds of megabytes over a slow line. */
const WAIT_BOUND_MS = 3_600_000;
const POLL_MS = 100;

export interface LockOptions {
  readonly signal: AbortSignal;
  /** Called once, if somebody else holds the lock. */
  readonly onWait: () => void;
}

/**
 * @param path a file used for nothing else: closing any other handle on it would drop the lock on POSIX systems
 * @throws conflict when the bound passes
 */
export async function acquireLock(path: string, options: LockOptions): Promise<Disposable> {
  const deadline = performance.now() + WAIT_BOUND_MS;
  let failures = 0;
  for (;;) {
    options.signal.throwIfAborted();
    const held = tryLock(path);
    if (held !== undefined) return held;
    if (performance.now() > deadline) {
      throw new AppError(
        "conflict",
        "cannot install an engine: another process has been installing one for an hour",
        {
          hint: "Wait until it is done, or end it.",
        },
      );
    }
    failures += 1;
    // Two that try at the same instant can refuse each other, which is not waiting for anybody.
    if (failures === 2) options.onWait();
    await pause(POLL_MS * (0.5 + Math.random()), options.signal);
  }
}

/** Resolves after `ms`, or at once when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    clearTimeout(timer);
    signal.removeEventListener("abort", done);
    resolve();
  };
  const timer = setTimeout(done, ms);
  signal.addEventListener("abort", done, { once: true });
  if (signal.aborted) done();
  return promise;
}

// --- internal ---

function tryLock(path: string): Disposable | undefined {
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
