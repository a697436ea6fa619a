/** Which failures pass, and how long to wait before the next attempt. */
import { AppError, type ErrorCode } from "../errors.ts";
import { pause } from "../pause.ts";

/** In all: with the waits between them they outlast a restart of the other side. */
const ATTEMPTS = 5;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** A server that asks for more is not waited for: whoever called can say so and go on later. */
export const LONGEST_RETRY_AFTER_MS = 120_000;

export interface RetryOptions {
  readonly signal: AbortSignal;
  /** In all; 5 unless given. It may depend on what went wrong. */
  readonly attempts?: number | ((error: unknown) => number);
  /** Told before each wait. */
  readonly onRetry?: (error: unknown, waitMs: number) => void;
  /** `isTransient` unless given. */
  readonly isRetryable?: (error: unknown) => boolean;
  /** Waits; for tests. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/**
 * Runs `work` until it succeeds, fails for good, or has been tried often enough. Waits exponentially with jitter
 * (0.5 s, doubled, at most 15 s), and at least as long as the server's `Retry-After` asks, if that is at most 2 minutes.
 *
 * @throws what the last attempt threw, or the signal's reason
 */
export async function withRetry<T>(
  work: (attempt: number) => Promise<T>,
  options: RetryOptions,
): Promise<T> {
  const { signal, attempts = ATTEMPTS, isRetryable = isTransient, wait = pause } = options;
  for (let attempt = 1; ; attempt += 1) {
    signal.throwIfAborted();
    try {
      return await work(attempt);
    } catch (error) {
      signal.throwIfAborted();
      const limit = typeof attempts === "number" ? attempts : attempts(error);
      const waitMs = retryWaitMs(error, attempt);
      if (attempt >= limit || waitMs === undefined || !isRetryable(error)) throw error;
      options.onRetry?.(error, waitMs);
      await wait(waitMs, signal);
    }
  }
}

/** Whether trying again may help: registry_unavailable, too_many_requests and timed_out, unless `details.permanent`. */
export function isTransient(error: unknown): boolean {
  return (
    error instanceof AppError &&
    TRANSIENT_CODES.has(error.code) &&
    error.details?.["permanent"] !== true
  );
}

/**
 * How long to wait after the given attempt (from 1) failed.
 *
 * @returns undefined if the server asks for more patience than we have
 */
export function retryWaitMs(error: unknown, attempt: number): number | undefined {
  const asked = error instanceof AppError ? error.details?.["retry_after_ms"] : undefined;
  const minimum = typeof asked === "number" ? asked : 0;
  if (minimum > LONGEST_RETRY_AFTER_MS) return undefined;
  const ceiling = Math.min(FIRST_WAIT_MS * 2 ** (attempt - 1), LONGEST_WAIT_MS);
  // Between half and the whole, so that clients that failed together do not return together.
  return Math.max(minimum, ceiling * (0.5 + Math.random() / 2));
}

/**
 * The value of `Retry-After` in milliseconds: seconds, or a date.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
 */
export function parseRetryAfter(value: string | null, now = Date.now()): number | undefined {
  if (value === null) return undefined;
  const text = value.trim();
  if (/^\d{1,9}(?:\.\d+)?$/.test(text)) return Math.ceil(Number(text) * 1000);
  const date = /^[A-Za-z]/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

// --- internal ---

const TRANSIENT_CODES: ReadonlySet<ErrorCode> = new Set([
  "registry_unavailable",
  "too_many_requests",
  "timed_out",
]);
