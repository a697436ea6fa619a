/** How long to wait so that bytes come at most so fast. Pure: the caller has the clock. */

/** What may come at once after a pause. Milliseconds of the rate. */
const BURST_MS = 100;

export class TokenBucket {
  readonly #bytesPerMs: number;
  #available: number;
  #asOf: number;

  /** @param now milliseconds, of any clock */
  constructor(bytesPerSecond: number, now: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#available = this.#bytesPerMs * BURST_MS;
    this.#asOf = now;
  }

  /** Takes bytes that have come already. @returns milliseconds until the next ones may come */
  take(bytes: number, now: number): number {
    const earned = Math.max(0, now - this.#asOf) * this.#bytesPerMs;
    this.#asOf = Math.max(now, this.#asOf);
    this.#available = Math.min(this.#available + earned, this.#bytesPerMs * BURST_MS) - bytes;
    return Math.max(0, -this.#available / this.#bytesPerMs);
  }
}
