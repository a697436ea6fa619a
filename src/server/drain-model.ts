/** Takes a model out of use, so that it can be removed. */
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import type { Supervisor } from "../runtime/supervisor.ts";

/** An answer that is being given may take this long to finish; as when the runner is told to leave. */
export const DRAIN_MS = 60_000;

/**
 * Nobody gets the model any more, requests in flight finish, and its workers stop; what has not finished within a minute
 * is cut off.
 *
 * @returns what allows the model again when it is disposed
 * @throws cancelled
 */
export async function drainModel(
  supervisor: Pick<Supervisor, "drain">,
  modelId: string,
  { signal, clock = systemClock }: { readonly signal: AbortSignal; readonly clock?: Clock },
): Promise<Disposable> {
  const patience = new AbortController();
  using _timer = clock.setTimer(DRAIN_MS, () => patience.abort());
  try {
    return await supervisor.drain(modelId, { signal: AbortSignal.any([signal, patience.signal]) });
  } catch (error) {
    const isLate = error instanceof AppError && error.code === "cancelled" && !signal.aborted;
    if (!isLate || !patience.signal.aborted) throw error;
    log.warn(`server: answers cut off, their model is removed model=${modelId}`);
    return await supervisor.drain(modelId, { signal, force: true });
  }
}
