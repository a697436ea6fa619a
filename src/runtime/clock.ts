/** Time, as a dependency. */

/** Milliseconds since 1970 that never go back, and timers. */
export interface Clock {
  now(): number;
  setTimer(delayMs: number, callback: () => void): Disposable;
}

export const systemClock: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
};

/** setTimeout overflows beyond. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** One timer at most, for one moment. It may ring too early for a moment that is very far away. */
export class Alarm {
  readonly #clock: Clock;
  readonly #onRing: () => void;
  #timer: Disposable | undefined;

  constructor(clock: Clock, onRing: () => void) {
    this.#clock = clock;
    this.#onRing = onRing;
  }

  /** Replaces the moment that was set before; undefined for never. */
  set(atMs: number | undefined): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    if (atMs === undefined) return;
    const delayMs = Math.min(Math.max(0, Math.ceil(atMs - this.#clock.now())), MAX_TIMER_MS);
    this.#timer = this.#clock.setTimer(delayMs, this.#onRing);
  }
}
