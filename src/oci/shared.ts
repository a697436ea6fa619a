/** Waiting for work that others wait for too. */

/** The result of the work, unless the signal aborts first: then the work goes on for the others. */
export async function orAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  // Whoever waits hears of a failure; if everybody has left, nobody need.
  work.catch(() => undefined);
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
