/** What is to be done about one ticket. Pure: this function is the specification of the scheduler. */
import type { AppError } from "../errors.ts";
import { type Demand, isNothing } from "./demand.ts";
import { chooseEvictions, isEnough } from "./eviction.ts";
import { allPinned, crashLoop, tooBig } from "./refusals.ts";
import { missingRoom, needOf, overdraft, staying } from "./room.ts";
import type { SchedulerState, Ticket } from "./scheduler-state.ts";
import {
  type AsleepWorker,
  dozingDemand,
  isAsleep,
  isEvictable,
  isOwn,
  isPinned,
  type ReadyWorker,
  type SchedulerWorker,
  toCandidate,
} from "./scheduler-worker.ts";
import { isClosedTo } from "./turn.ts";

export type Decision =
  | { readonly kind: "serve"; readonly worker: ReadyWorker }
  | { readonly kind: "start"; readonly sleeper?: AsleepWorker | undefined }
  | {
      readonly kind: "evict";
      readonly workerIds: readonly number[];
      /** Those of them that need not end: there is main memory for them. */
      readonly sleepIds: ReadonlySet<number>;
    }
  | { readonly kind: "wait"; readonly reason: "loading" | "leaving" | "turn" | "room" }
  | { readonly kind: "reject"; readonly error: AppError };

/**
 * 1. A worker has the ticket's key:
 *    a. it loads: wait for it.
 *    b. it is on its way out: wait until it has gone.
 *    c. it was closed for an older ticket before this one came: wait.
 *    d. serve.
 * 2. No worker has it, or one that sleeps:
 *    a. its last attempts crashed: reject until the pause is over.
 *    b. there will never be room: reject.
 *    c. an older ticket waits for room: wait behind it.
 *    d. a load that ran out of memory is tried again, this one or another: wait until it has the machine for itself.
 *    e. there is room: start, or wake it.
 *    f. idle workers can make room: evict what is needed; to sleep where they can, and what they hold then has room.
 *    g. wait for a request to end.
 */
export function decide(state: SchedulerState, ticket: Ticket, nowMs: number): Decision {
  const worker = state.workers.find(({ key }) => key === ticket.key);
  if (worker !== undefined && !isAsleep(worker)) return decideFor(worker, state, ticket);
  const crash = state.crashes.holding(ticket.key, nowMs);
  if (crash !== undefined) return reject(crashLoop(crash.error, crash.retryAtMs - nowMs));
  const never = neverFits(state, ticket);
  if (never !== undefined) return reject(never);
  if (state.first?.id !== ticket.id || mustRetryAlone(state, ticket)) return wait("room");
  return makeRoom(state, ticket, nowMs);
}

// --- internal ---

function decideFor(worker: SchedulerWorker, state: SchedulerState, ticket: Ticket): Decision {
  if (worker.kind === "starting") return wait("loading");
  if (worker.kind !== "ready") return wait("leaving");
  return isClosedTo(state.turn, worker, ticket) ? wait("turn") : { kind: "serve", worker };
}

/** By the ticket's own demand: a raised one adapts to the room that can be made. */
function neverFits({ limits, workers }: SchedulerState, ticket: Ticket): AppError | undefined {
  const { budget } = limits;
  const alone = missingRoom(ticket.demand, [], limits);
  if (budget !== undefined && !isEnough(alone)) return tooBig(ticket, budget);
  const pinned = workers.filter((worker) => isPinned(worker) && !isOwn(worker, ticket));
  if (isEnough(missingRoom(ticket.demand, pinned, limits))) return undefined;
  return allPinned(ticket, pinned, limits);
}

/** What was evicted for a second attempt must have gone, and nothing else may load beside it. */
function mustRetryAlone({ workers, retries }: SchedulerState, ticket: Ticket): boolean {
  if (workers.some((worker) => worker.kind === "starting" && worker.isRetry)) return true;
  return retries.has(ticket.key) && workers.some(({ kind }) => kind === "stopping");
}

function makeRoom(state: SchedulerState, ticket: Ticket, nowMs: number): Decision {
  const { limits } = state;
  const need = needOf(ticket, state);
  const sleeper = state.workers.filter(isAsleep).find((worker) => isOwn(worker, ticket));
  // What it holds is part of what it will hold.
  const workers = state.workers.filter((worker) => worker !== sleeper);
  if (isEnough(missingRoom(need, workers, limits))) return { kind: "start", sleeper };
  // What stops already is as good as gone: nobody else has to leave for the room it gives back.
  const missing = missingRoom(need, staying(workers), limits);
  const idle = workers.filter(isEvictable).map((worker) => toCandidate(worker, nowMs));
  const workerIds = chooseEvictions(missing, idle, nowMs);
  if (workerIds === undefined || workerIds.length === 0) return wait("room");
  return { kind: "evict", workerIds, sleepIds: sleepersOf(state, workerIds, { need, sleeper }) };
}

/**
 * One after the other, as long as what they hold then, beside all others, leaves the room that is needed, and there is
 * room for it now, while others are yet to leave.
 */
function sleepersOf(
  { workers, limits }: SchedulerState,
  leavingIds: readonly number[],
  { need, sleeper }: { readonly need: Demand; readonly sleeper: AsleepWorker | undefined },
): ReadonlySet<number> {
  const ids = new Set<number>();
  let now = workers;
  let then = staying(workers).filter((one) => one !== sleeper && !leavingIds.includes(one.id));
  for (const worker of workers) {
    if (!leavingIds.includes(worker.id)) continue;
    if (worker.kind !== "ready" || worker.asleep === undefined) continue;
    const dozing = { ...worker, demand: dozingDemand(worker) };
    const nowToo = now.map((one) => (one === worker ? dozing : one));
    const thenToo = [...then, { ...worker, demand: worker.asleep }];
    if (!isNothing(overdraft(nowToo, limits.budget))) continue;
    if (!isEnough(missingRoom(need, thenToo, limits))) continue;
    [now, then] = [nowToo, thenToo];
    ids.add(worker.id);
  }
  return ids;
}

function wait(reason: (Decision & { kind: "wait" })["reason"]): Decision {
  return { kind: "wait", reason };
}

function reject(error: AppError): Decision {
  return { kind: "reject", error };
}
