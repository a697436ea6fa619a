/** A worker as the scheduler knows it: ids, sizes and times. Values, questions about them, and the steps between states. */
import { type Demand, maxDemand, minDemand, NOTHING } from "./demand.ts";
import type { Candidate } from "./eviction.ts";
import type { Ticket } from "./scheduler-state.ts";

export type StopReason = "evicted" | "idle" | "unloaded" | "shutdown";

interface Identity {
  readonly id: number;
  readonly key: string;
  readonly modelName: string;
  /** What it holds: assumed while it loads, measured later where somebody measures. */
  readonly demand: Demand;
  /** -1 keeps it for ever. */
  readonly keepAliveMs: number;
  /** Leaves only when it is told to. */
  readonly pinned: boolean;
  /** What it holds while it sleeps; undefined: it cannot. */
  readonly asleep?: Demand | undefined;
}

interface Life {
  readonly loadMs: number;
  readonly readyMs: number;
  readonly lastUsedMs: number;
  readonly leases: number;
}

/** Each state carries what is legal in it. */
export type SchedulerWorker =
  | (Identity & {
      readonly kind: "starting";
      readonly startedMs: number;
      /** It was told to leave, but requests wait for it: it serves those first. */
      readonly leaving: boolean;
      /** The attempt before this one ran out of memory. */
      readonly isRetry: boolean;
      /** Its process is there, and wakes. */
      readonly isWaking?: boolean | undefined;
    })
  | (Identity & Life & { readonly kind: "ready" })
  /** Finishes what it has, takes no more. */
  | (Identity & Life & { readonly kind: "draining"; readonly reason: StopReason })
  /** Gave its GPUs back and waits in main memory: woken when it is asked for, ended when that is short. */
  | (Identity & Life & { readonly kind: "asleep" })
  /** Told to stop, or to sleep; holds its room until it has exited, or sleeps. */
  | (Identity & {
      readonly kind: "stopping";
      /** Its life so far, if it is to sleep. */
      readonly dozing?: Life | undefined;
      /** Absent if it never was ready. */
      readonly readyMs?: number;
      readonly lastUsedMs?: number;
    });

export type StartingWorker = SchedulerWorker & { readonly kind: "starting" };
export type ReadyWorker = SchedulerWorker & { readonly kind: "ready" };
export type AsleepWorker = SchedulerWorker & { readonly kind: "asleep" };

export interface StartFacts {
  readonly id: number;
  readonly demand: Demand;
  /** For a ticket that names none. */
  readonly keepAliveMs: number;
  readonly isRetry: boolean;
  readonly nowMs: number;
}

export function startingWorker(ticket: Ticket, facts: StartFacts): StartingWorker {
  const { key, modelName, keepAliveMs = facts.keepAliveMs, pinned = false, asleep } = ticket;
  const { id, demand, isRetry, nowMs } = facts;
  const identity = { id, key, modelName, demand, keepAliveMs, pinned, asleep };
  return { ...identity, kind: "starting", startedMs: nowMs, leaving: false, isRetry };
}

/** @param loadMs undefined: the time since it was started */
export function toReady(worker: StartingWorker, nowMs: number, loadMs?: number): ReadyWorker {
  const tookMs = loadMs ?? nowMs - worker.startedMs;
  const life = { loadMs: tookMs, readyMs: nowMs, lastUsedMs: nowMs, leases: 0 };
  return { ...identityOf(worker), ...life, kind: "ready" };
}

/** With one more lease, held by the ticket. */
export function withLease(worker: ReadyWorker, ticket: Ticket, nowMs: number): ReadyWorker {
  const { keepAliveMs = worker.keepAliveMs, pinned = worker.pinned } = ticket;
  return { ...worker, leases: worker.leases + 1, lastUsedMs: nowMs, keepAliveMs, pinned };
}

/**
 * Holding what was measured. Less than was assumed is believed only once it has loaded, and never less than its
 * `raise`, which was assumed because it ran out of memory. Devices that are not named keep what was assumed.
 */
export function withMeasured<W extends SchedulerWorker>(
  worker: W,
  measured: Demand,
  raise: Demand = NOTHING,
): W {
  const isLoaded = worker.kind === "ready" || worker.kind === "draining";
  const least = isLoaded ? minDemand(raise, worker.demand) : worker.demand;
  return { ...worker, demand: maxDemand({ ...worker.demand, ...measured }, least) };
}

/** With what it held before, until it sleeps, and already with what it will hold then. */
export function toDozing(worker: ReadyWorker): SchedulerWorker {
  const { loadMs, readyMs, lastUsedMs, leases } = worker;
  const dozing = { loadMs, readyMs, lastUsedMs, leases };
  const demand = dozingDemand(worker);
  return { ...identityOf(worker), readyMs, lastUsedMs, demand, dozing, kind: "stopping" };
}

/** While it falls asleep, weights lie where they lay and where they will. */
export function dozingDemand({ demand, asleep = NOTHING }: SchedulerWorker): Demand {
  return maxDemand(demand, asleep);
}

/** @returns undefined for a worker that was not told to sleep */
export function toAsleep(worker: SchedulerWorker): AsleepWorker | undefined {
  if (worker.kind !== "stopping" || worker.dozing === undefined) return undefined;
  const { asleep: demand = worker.demand } = worker;
  return { ...identityOf(worker), ...worker.dozing, demand, kind: "asleep" };
}

/**
 * Asked for again. The main memory that it slept in it keeps, for the next time.
 *
 * @param need what it held before it slept
 * @see https://github.com/vllm-project/vllm/issues/16663
 */
export function toWaking(worker: AsleepWorker, need: Demand, nowMs: number): StartingWorker {
  const waking = { startedMs: nowMs, leaving: false, isRetry: false, isWaking: true };
  const demand = maxDemand(need, worker.demand);
  return { ...identityOf(worker), ...waking, demand, kind: "starting" };
}

export function toStopping(worker: SchedulerWorker): SchedulerWorker {
  const life = "leases" in worker ? { readyMs: worker.readyMs, lastUsedMs: worker.lastUsedMs } : {};
  return { ...identityOf(worker), ...life, kind: "stopping" };
}

export function isAsleep(worker: SchedulerWorker): worker is AsleepWorker {
  return worker.kind === "asleep";
}

/** It sleeps, and waking it is what the ticket needs: what it holds is part of that. */
export function isOwn(worker: SchedulerWorker, { key }: Pick<Ticket, "key">): boolean {
  return worker.kind === "asleep" && worker.key === key;
}

/** It was told to sleep and does not yet. */
export function isDozing(worker: SchedulerWorker): boolean {
  return worker.kind === "stopping" && worker.dozing !== undefined;
}

/** It has not been told to end. */
export function isHere(worker: SchedulerWorker): boolean {
  return (worker.kind !== "stopping" && worker.kind !== "draining") || isDozing(worker);
}

export function leaseCount(worker: SchedulerWorker): number {
  return "leases" in worker ? worker.leases : 0;
}

/** Pinned workers, and those with keep-alive -1, leave only when they are told to. */
export function isPinned(worker: SchedulerWorker): boolean {
  if (worker.keepAliveMs >= 0 && !worker.pinned) return false;
  if (worker.kind === "starting") return !worker.leaving;
  return worker.kind === "ready" || worker.kind === "asleep";
}

/** Whether it may be asked to leave for the sake of others. */
export function isEvictable(worker: SchedulerWorker): boolean {
  return isIdle(worker) && !isPinned(worker);
}

/** When an idle worker has outlived its keep-alive; undefined while it serves or is pinned. */
export function unloadAtMs(worker: SchedulerWorker): number | undefined {
  if (!isIdle(worker) || isPinned(worker)) return undefined;
  return worker.lastUsedMs + worker.keepAliveMs;
}

/** How long it has served; 0 if it never was ready. */
export function upMs(worker: SchedulerWorker, nowMs: number): number {
  return "readyMs" in worker && worker.readyMs !== undefined ? nowMs - worker.readyMs : 0;
}

export function toCandidate(worker: SchedulerWorker, nowMs: number): Candidate {
  const { id, demand } = worker;
  // Whoever sleeps has been sent away once: it goes before those who are awake.
  const awakeMs = "loadMs" in worker ? worker.loadMs : Infinity;
  const loadMs = worker.kind === "asleep" ? 0 : awakeMs;
  const lastUsedMs = isIdle(worker) ? worker.lastUsedMs : nowMs;
  return { id, demand, loadMs, lastUsedMs };
}

// --- internal ---

/** Nobody uses it, and it could be used. */
function isIdle(worker: SchedulerWorker): worker is ReadyWorker | AsleepWorker {
  return (worker.kind === "ready" || worker.kind === "asleep") && worker.leases === 0;
}

function identityOf(worker: SchedulerWorker): Identity {
  const { id, key, modelName, demand, keepAliveMs, pinned, asleep } = worker;
  return { id, key, modelName, demand, keepAliveMs, pinned, asleep };
}
