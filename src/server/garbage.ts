/**
 * Collecting what requests leave behind. Most of it hangs outside the collector's heap, on objects that look small to it,
 * and the collector's own timer is off, for it would wake an idle runner.
 */

/** What so many requests leave is megabytes. */
const MANY_REQUESTS = 128;
/** Fewer are left to the collector: a pause would cost a single user more than it gives. */
const FEW_REQUESTS = 32;
/** No request has come for so long: the burst is over. */
const QUIET_MS = 500;

export class Garbage {
  #requests = 0;
  #lastMs = 0;
  #timer: NodeJS.Timeout | undefined;

  /** A request has come. */
  countRequest(): void {
    this.#requests += 1;
    this.#lastMs = performance.now();
    if (this.#requests % MANY_REQUESTS === 0) Bun.gc(false);
    if (this.#requests >= FEW_REQUESTS) this.#timer ??= setTimeout(this.#collect, QUIET_MS).unref();
  }

  /** Something large has been let go of, or soon is: an idle process would keep it for as long as it is idle. */
  collectSoon(): void {
    this.#lastMs = performance.now();
    this.#timer ??= setTimeout(this.#collect, QUIET_MS).unref();
  }

  // --- internal ---

  readonly #collect = (): void => {
    const leftMs = this.#lastMs + QUIET_MS - performance.now();
    this.#timer = leftMs > 0 ? setTimeout(this.#collect, leftMs).unref() : undefined;
    if (this.#timer !== undefined) return;
    this.#requests = 0;
    // Some 20 ms, once.
    Bun.gc(true);
  };
}

/** The process's own. */
export const garbage = new Garbage();
