/** Remembers what crashed, so that a crash loop slows down. Pure: no clock, no timers. */
import type { AppError } from "../errors.ts";

export interface Crash {
  readonly count: number;
  readonly lastMs: number;
  /** No new attempt before this time. */
  readonly retryAtMs: number;
  readonly error: AppError;
}

/** One immediate retry is free: a person may just have mended the cause. */
const FREE_RETRIES = 1;
const FIRST_PAUSE_MS = 1000;
/** Long enough to spare the machine, short enough that a mended model comes back by itself. */
const MAX_PAUSE_MS = 60_000;
/** Crashes farther apart than this are no loop. */
const FORGET_MS = 10 * 60_000;
/** Bound on memory: identities with a recent crash; the oldest is forgotten first. */
const MAX_REMEMBERED = 256;

export class CrashLog {
  readonly #crashes = new Map<string, Crash>();

  record(key: string, error: AppError, nowMs: number): void {
    const previous = this.#crashes.get(key);
    const recent = previous !== undefined && nowMs - previous.lastMs < FORGET_MS;
    const count = recent ? previous.count + 1 : 1;
    this.#crashes.delete(key);
    this.#crashes.set(key, { count, lastMs: nowMs, retryAtMs: nowMs + pauseMs(count), error });
    const oldest = this.#crashes.keys().next();
    if (this.#crashes.size > MAX_REMEMBERED && !oldest.done) this.#crashes.delete(oldest.value);
  }

  /** The crash that holds this key back now, if one does. */
  holding(key: string, nowMs: number): Crash | undefined {
    const crash = this.#crashes.get(key);
    return crash !== undefined && nowMs < crash.retryAtMs ? crash : undefined;
  }

  /** Forgets a key that has shown to work. */
  clear(key: string): void {
    this.#crashes.delete(key);
  }
}

// --- internal ---

function pauseMs(count: number): number {
  if (count <= FREE_RETRIES) return 0;
  return Math.min(FIRST_PAUSE_MS * 2 ** (count - FREE_RETRIES - 1), MAX_PAUSE_MS);
}
