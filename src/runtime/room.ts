/** What is held and what is missing. Pure. */
import {
  type Demand,
  maxDemand,
  minDemand,
  NOTHING,
  remaining,
  shortage,
  sumDemands,
} from "./demand.ts";
import type { Room } from "./eviction.ts";
import type { SchedulerLimits, SchedulerState, Ticket } from "./scheduler-state.ts";
import { isPinned, type SchedulerWorker } from "./scheduler-worker.ts";

export function heldBy(workers: readonly SchedulerWorker[]): Demand {
  return sumDemands(workers.map(({ demand }) => demand));
}

/** Those that have not been told to stop. */
export function staying(workers: readonly SchedulerWorker[]): readonly SchedulerWorker[] {
  return workers.filter(({ kind }) => kind !== "stopping");
}

/** What one more worker lacks beside the given ones. */
export function missingRoom(
  need: Demand,
  workers: readonly SchedulerWorker[],
  { maxWorkers, budget }: SchedulerLimits,
): Room {
  const isUnlimited = budget === undefined;
  return {
    workers: Math.max(0, workers.length + 1 - maxWorkers),
    bytes: isUnlimited ? NOTHING : shortage(need, remaining(budget, heldBy(workers))),
  };
}

/** What the given workers hold beyond the budget. Measuring, or a smaller budget, can bring that about. */
export function overdraft(workers: readonly SchedulerWorker[], budget: Demand | undefined): Demand {
  return budget === undefined ? NOTHING : shortage(heldBy(workers), budget);
}

/**
 * What a worker for the ticket is expected to hold. A demand that has been raised after the engine ran out of memory
 * is a guess: it makes a load wait for more room, but never beyond the room that can be made.
 */
export function needOf(
  ticket: Ticket,
  state: Pick<SchedulerState, "limits" | "raises" | "workers">,
): Demand {
  const raise = state.raises.get(ticket.key);
  if (raise === undefined) return ticket.demand;
  const { budget } = state.limits;
  if (budget === undefined) return maxDemand(ticket.demand, raise);
  const room = remaining(budget, heldBy(state.workers.filter(isPinned)));
  return maxDemand(ticket.demand, minDemand(raise, room));
}
