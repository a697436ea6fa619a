/** Waiting that ends when nobody wants the result any more. */
import { log } from "../log.ts";

/**
 * Stops waiting when the signal aborts, even if the one that works does not listen to it; throws the signal's reason.
 *
 * @param giveBack what to do with a result that comes too late
 */
export async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal,
  giveBack: (late: T) => unknown = () => undefined,
): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => {
    work.then(giveBack).catch((thrown: unknown) => {
      log.debug(`runtime: late result lost reason=${String(thrown)}`);
    });
    reject(signal.reason);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    if (signal.aborted) onAbort();
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
