/**
 * Waits until `check` returns something truthy, polling with a growing pause.
 *
 * @param boundMs gives up after this long, with the last error as the cause
 */
export async function eventually<T>(check: () => T | Promise<T>, boundMs = 10_000): Promise<T> {
  const deadline = performance.now() + boundMs;
  let pauseMs = 2;
  let cause: unknown;
  while (performance.now() < deadline) {
    try {
      const value = await check();
      if (value) return value;
    } catch (error) {
      cause = error;
    }
    await Bun.sleep(pauseMs);
    pauseMs = Math.min(pauseMs * 2, 100);
  }
  throw new Error(`not so within ${boundMs} ms: ${check.toString()}`, { cause });
}
