/** The reasons for which the scheduler refuses a ticket. Pure. */
import { AppError } from "../errors.ts";
import { type Demand, describeDemand, remaining, shortage } from "./demand.ts";
import { heldBy } from "./room.ts";
import type { SchedulerLimits, Ticket } from "./scheduler-state.ts";
import type { SchedulerWorker } from "./scheduler-worker.ts";

/** For `Retry-After`: in the order of one load, not of one request. */
const QUEUE_RETRY_SECONDS = 5;
/** Names in one sentence; `tug ps` has them all. */
const MAX_NAMES = 5;
/** Names come from files and registries, advice from whoever plans. */
const MAX_TEXT_CHARACTERS = 200;

export function shuttingDown({ modelName }: Ticket): AppError {
  return new AppError(
    "shutting_down",
    `cannot load \`${modelName}\`: the runner is shutting down`,
    {
      hint: "Try again: the next command starts a new runner.",
    },
  );
}

/** @param waiting by arrival, the refused one not among them */
export function queueFull(ticket: Ticket, waiting: readonly Ticket[], nowMs: number): AppError {
  const oldest = waiting[0];
  return new AppError(
    "queue_full",
    `cannot serve \`${ticket.modelName}\`: ${waiting.length} requests are waiting`,
    {
      hint: "Try again later.",
      details: {
        queue_limit: waiting.length,
        queue_length: waiting.length,
        waiting_for_model: waiting.filter(({ key }) => key === ticket.key).length,
        oldest_waiting_ms: oldest === undefined ? 0 : Math.round(nowMs - oldest.arrivedMs),
        retry_after_seconds: QUEUE_RETRY_SECONDS,
      },
    },
  );
}

export function crashLoop(last: AppError, retryAfterMs: number): AppError {
  const seconds = Math.ceil(retryAfterMs / 1000);
  const again = `It failed several times in a row and is tried again in ${seconds} s.`;
  return new AppError(last.code, last.message, {
    hint: last.hint === undefined ? again : `${again} ${last.hint}`,
    details: {
      ...last.details,
      retry_after_ms: retryAfterMs,
      retry_after_seconds: seconds,
    },
    cause: last,
  });
}

/** A demand that is no amount would fit everywhere. */
export function unknownDemand({ modelName }: Ticket): AppError {
  return new AppError("internal", `cannot load \`${modelName}\`: its memory estimate is no amount`);
}

/** More than the budget, whoever leaves. */
export function tooBig({ modelName, demand, advice }: Ticket, budget: Demand): AppError {
  const lacking = Object.keys(shortage(demand, budget));
  const need = describeDemand(only(demand, lacking));
  const room = describeDemand(only(budget, lacking));
  const reason = `it needs ${need} and the budget is ${room}${adviceClause(advice)}`;
  return new AppError("insufficient_memory", `cannot load \`${modelName}\`: ${reason}`, {
    hint: "Choose a smaller model or a smaller context, or raise the memory budget.",
    details: { needed_bytes: demand, budget_bytes: budget, ...adviceDetail(advice) },
  });
}

/** More than pinned workers leave; they never make room of themselves. */
export function allPinned(
  ticket: Ticket,
  pinned: readonly SchedulerWorker[],
  { maxWorkers, budget }: SchedulerLimits,
): AppError {
  const { modelName, demand, advice } = ticket;
  const held = heldBy(pinned);
  const free = budget === undefined ? undefined : remaining(budget, held);
  const lacking = free === undefined ? [] : Object.keys(shortage(demand, free));
  const who = names(pinned);
  const reason =
    free === undefined || lacking.length === 0
      ? `pinned models take ${maxWorkers === 1 ? "the only place" : `all ${maxWorkers} places`} (${who})`
      : `it needs ${describeDemand(only(demand, lacking))} and pinned models (${who}) leave ${describeDemand(only(free, lacking))}`;
  const message = `cannot load \`${modelName}\`: ${reason}${adviceClause(advice)}`;
  return new AppError("insufficient_memory", message, {
    hint: "Unload or unpin one of them: `tug unload MODEL`, `tug unpin MODEL`.",
    details: {
      needed_bytes: demand,
      budget_bytes: budget ?? null,
      pinned_bytes: held,
      pinned_models: pinned.map((worker) => worker.modelName),
      ...adviceDetail(advice),
    },
  });
}

// --- internal ---

function only(demand: Demand, devices: readonly string[]): Demand {
  return Object.fromEntries(devices.map((device) => [device, demand[device] ?? 0]));
}

function names(workers: readonly SchedulerWorker[]): string {
  const shown = workers.slice(0, MAX_NAMES).map(({ modelName }) => {
    return `\`${modelName.slice(0, MAX_TEXT_CHARACTERS)}\``;
  });
  const more = workers.length - shown.length;
  return more > 0 ? `${shown.join(", ")} and ${more} more` : shown.join(", ");
}

function adviceClause(advice: string | undefined): string {
  return advice === undefined ? "" : `; ${advice.slice(0, MAX_TEXT_CHARACTERS)}`;
}

function adviceDetail(advice: string | undefined): Readonly<Record<string, string>> {
  return advice === undefined ? {} : { advice };
}
