/** Several at once, but not all. */

/**
 * Runs `work` for each item, at most `limit` at a time, in the order of the items.
 *
 * The first failure aborts the signal the others got; it is thrown when all have ended, so that nothing goes on behind
 * the caller's back.
 */
export async function forEachConcurrently<T>(
  items: readonly T[],
  options: { readonly limit: number; readonly signal: AbortSignal },
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const queue = items.values();
  let failure: { readonly error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    for (const item of queue) {
      if (signal.aborted) return;
      try {
        await work(item, signal);
      } catch (error) {
        failure ??= { error };
        failed.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.limit, items.length) }, lane));
  options.signal.throwIfAborted();
  if (failure !== undefined) throw failure.error;
}
