/**
 * What a key may ask at once and in a minute: a count of requests in flight, and a bucket of tokens that is refilled when
 * it is looked at, without timers. In memory, so a runner that starts anew begins with full buckets.
 */
import { AppError } from "../../errors.ts";
import type { KnownKey } from "../../state/api-keys.ts";

const MINUTE_MS = 60_000;
/** How long a full set of requests takes to have room depends on answers; SDKs wait at least this. Seconds. */
const CONCURRENCY_RETRY_SECONDS = 2;
/** Keys whose use is remembered; beyond, those that are at rest are forgotten. Above the number of keys there may be. */
const MAX_REMEMBERED = 2000;

type Limited = Pick<KnownKey, "hash" | "name" | "maxConcurrent" | "ratePerMinute">;

interface Use {
  inFlight: number;
  tokens: number;
  refilledAtMs: number;
}

export class KeyLimits {
  /** By the hash of the key: a later one of the same name begins anew. */
  readonly #uses = new Map<string, Use>();
  readonly #now: () => number;

  /** @param now milliseconds that never go back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /**
   * Counts a request, until what is returned is disposed of (any number of times); undefined: nothing has to be. A
   * request that is refused counts for nothing.
   *
   * @throws too_many_requests, with `details.retry_after_seconds`
   */
  enter(key: Limited): Disposable | undefined {
    const { maxConcurrent, ratePerMinute } = key;
    if (maxConcurrent === null && ratePerMinute === null) return undefined;
    const use = this.#useOf(key);
    if (maxConcurrent !== null && use.inFlight >= maxConcurrent) {
      const seconds = CONCURRENCY_RETRY_SECONDS;
      throw tooMany(
        key,
        `it has ${use.inFlight} requests in flight, and may have ${maxConcurrent}`,
        seconds,
      );
    }
    if (ratePerMinute !== null) takeToken(use, key, ratePerMinute);
    if (maxConcurrent === null) return undefined;
    use.inFlight += 1;
    let isOver = false;
    return {
      [Symbol.dispose]() {
        if (isOver) return;
        isOver = true;
        use.inFlight -= 1;
      },
    };
  }

  #useOf({ hash, ratePerMinute }: Limited): Use {
    const now = this.#now();
    const full = ratePerMinute ?? 0;
    const found = this.#uses.get(hash);
    if (found === undefined) {
      if (this.#uses.size >= MAX_REMEMBERED) this.#forget(now);
      const use = { inFlight: 0, tokens: full, refilledAtMs: now };
      this.#uses.set(hash, use);
      return use;
    }
    found.tokens = Math.min(full, found.tokens + ((now - found.refilledAtMs) * full) / MINUTE_MS);
    found.refilledAtMs = now;
    return found;
  }

  /** After a minute without a request every bucket is full again: nothing is lost with it. */
  #forget(now: number): void {
    for (const [hash, { inFlight, refilledAtMs }] of this.#uses) {
      if (inFlight === 0 && now - refilledAtMs >= MINUTE_MS) this.#uses.delete(hash);
    }
  }
}

// --- internal ---

function takeToken(use: Use, key: Limited, ratePerMinute: number): void {
  if (use.tokens < 1) {
    const waitMs = ((1 - use.tokens) * MINUTE_MS) / ratePerMinute;
    throw tooMany(key, `it may send ${ratePerMinute} requests a minute`, Math.ceil(waitMs / 1000));
  }
  use.tokens -= 1;
}

function tooMany({ name }: Limited, reason: string, seconds: number): AppError {
  return new AppError("too_many_requests", `cannot answer the API key \`${name}\` now: ${reason}`, {
    hint: `Try again in ${seconds} s.`,
    details: { retry_after_seconds: seconds },
  });
}
