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
