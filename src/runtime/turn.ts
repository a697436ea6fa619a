/** Fairness: who is next for room, and which workers are closed to newcomers so that it comes to that. Pure. */
import { chooseEvictions } from "./eviction.ts";
import { missingRoom, needOf } from "./room.ts";
import type { SchedulerState, Ticket, Turn } from "./scheduler-state.ts";
import {
  isAsleep,
  isDozing,
  isHere,
  isOwn,
  isPinned,
  type ReadyWorker,
  type SchedulerWorker,
  toCandidate,
} from "./scheduler-worker.ts";

/** How long requests for models that are loaded may overtake one that waits for room. */
export const AGE_CAP_MS = 15_000;

/** Only the oldest ticket whose key has no worker that is awake may take room, so that small ones cannot starve a big one. */
export function firstForRoom(
  queue: readonly Ticket[],
  workers: readonly SchedulerWorker[],
): Ticket | undefined {
  return queue.find(({ key }) => workers.every((worker) => worker.key !== key || isAsleep(worker)));
}

/**
 * Once the first in line for room has been overtaken too long, as many workers as must leave for it are closed: idle
 * ones rather than busy ones, so that a choice once made holds until it has come to pass.
 */
export function turnOf(state: Omit<SchedulerState, "turn">, nowMs: number): Turn | undefined {
  const { first: ticket, limits } = state;
  if (ticket === undefined) return undefined;
  const closedMs = ticket.arrivedMs + (limits.ageCapMs ?? AGE_CAP_MS);
  if (nowMs < closedMs) return undefined;
  // What is on its way out makes room anyway.
  const held = state.workers.filter(
    (worker) => isHere(worker) && !isDozing(worker) && !isOwn(worker, ticket),
  );
  const missing = missingRoom(needOf(ticket, state), held, limits);
  const able = held.filter((worker) => !isPinned(worker));
  const chosen = chooseEvictions(
    missing,
    able.map((worker) => toCandidate(worker, nowMs)),
    nowMs,
  );
  return { closedMs, workerIds: new Set(chosen) };
}

/**
 * Whether the worker takes this ticket only after the turn of another. Those who came before it was closed, or while
 * it was loading, are served: a load serves all who waited for it, so that swaps stay few however long a load takes.
 */
export function isClosedTo(turn: Turn | undefined, worker: ReadyWorker, ticket: Ticket): boolean {
  if (turn === undefined || !turn.workerIds.has(worker.id)) return false;
  return ticket.arrivedMs >= turn.closedMs && ticket.arrivedMs > worker.readyMs;
}
