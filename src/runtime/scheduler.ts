/**
 * Which request gets which worker, and when workers start and stop. Pure and synchronous: events in (`on…`), effects
 * out. No clock, no timers, no I/O, no logging: every event brings the time, slow work comes back as a new event.
 *
 * This class keeps the state and carries decisions out; `decide.ts` makes them. README.md beside this file has the
 * states and the invariants.
 */
import { type AppError, assert } from "../errors.ts";
import { CrashLog } from "./backoff.ts";
import { decide, type Decision } from "./decide.ts";
import { type Demand, isDemand, isNothing, sharesDevice } from "./demand.ts";
import { chooseTrimming, isEnough } from "./eviction.ts";
import { RaisedDemands } from "./raised-demands.ts";
import { queueFull, shuttingDown, unknownDemand } from "./refusals.ts";
import { missingRoom, needOf, overdraft, staying } from "./room.ts";
import type { Effects } from "./scheduler-effects.ts";
import type { SchedulerLimits, SchedulerState, Ticket } from "./scheduler-state.ts";
import {
  type AsleepWorker,
  isDozing,
  isEvictable,
  isHere,
  leaseCount,
  type ReadyWorker,
  type SchedulerWorker,
  startingWorker,
  type StopReason,
  toAsleep,
  toCandidate,
  toDozing,
  toReady,
  toStopping,
  toWaking,
  unloadAtMs,
  upMs,
  withLease,
  withMeasured,
} from "./scheduler-worker.ts";
import { firstForRoom, turnOf } from "./turn.ts";

export type { Effects } from "./scheduler-effects.ts";
export type { SchedulerLimits, Ticket } from "./scheduler-state.ts";
export { AGE_CAP_MS } from "./turn.ts";

/** A worker that served this long is no part of a crash loop. */
const HEALTHY_MS = 60_000;
/** Failures of the engine; not those to install it or to open the model, which cost no engine start. */
const CRASHES: ReadonlySet<string> = new Set(["worker_failed", "insufficient_memory"]);

export class Scheduler {
  #limits: SchedulerLimits;
  readonly #effects: Effects;
  readonly #crashes = new CrashLog();
  readonly #raises = new RaisedDemands();
  readonly #workers = new Map<number, SchedulerWorker>();
  /** By arrival. */
  #queue: readonly Ticket[] = [];
  /** Keys whose tickets wait for a second attempt. */
  readonly #retries = new Set<string>();
  #deadlineMs: number | undefined;
  #nextWorkerId = 1;
  #closed = false;

  constructor(limits: SchedulerLimits, effects: Effects) {
    assert(limits.maxWorkers >= 1, "there is room for one worker");
    assert(limits.budget === undefined || isDemand(limits.budget), "a budget is an amount");
    this.#limits = limits;
    this.#effects = effects;
  }

  /** A snapshot; decisions are made in events only. */
  get workers(): readonly SchedulerWorker[] {
    return [...this.#workers.values()];
  }

  /** It has not been told to leave. */
  isStaying(workerId: number): boolean {
    const worker = this.#workers.get(workerId);
    if (worker?.kind === "starting") return !worker.leaving;
    return worker?.kind === "ready" || worker?.kind === "asleep";
  }

  get waiting(): readonly Ticket[] {
    return this.#queue;
  }

  onRequest(ticket: Ticket, nowMs: number): void {
    if (this.#closed) return this.#effects.reject(ticket.id, shuttingDown(ticket));
    if (!isDemand(ticket.demand)) return this.#effects.reject(ticket.id, unknownDemand(ticket));
    const before = this.#queue;
    this.#queue = [...before, ticket];
    if (before.length >= this.#limits.queueLimit && this.#wouldWait(ticket, nowMs)) {
      this.#queue = before;
      return this.#effects.reject(ticket.id, queueFull(ticket, before, nowMs));
    }
    this.#settle(nowMs);
  }

  /** The caller of a waiting ticket has gone. What is being loaded for it goes on. */
  onCancelled(ticketId: number, nowMs: number): void {
    this.#queue = this.#queue.filter(({ id }) => id !== ticketId);
    this.#settle(nowMs);
  }

  /** @param loadMs what loading it again would take; default: the time since it was started, installing included */
  onReady(workerId: number, nowMs: number, loadMs?: number): void {
    const worker = this.#workers.get(workerId);
    if (worker?.kind !== "starting") return;
    this.#workers.set(workerId, toReady(worker, nowMs, loadMs));
    this.#settle(nowMs);
    // Whoever waited for it has it now; those who come later get the next one.
    const settled = this.#workers.get(workerId);
    if (worker.leaving && settled?.kind === "ready") this.#leave(settled, "unloaded");
    this.#settle(nowMs);
  }

  /** It has given back what it does not hold while it sleeps. */
  onAsleep(workerId: number, nowMs: number): void {
    const worker = this.#workers.get(workerId);
    const asleep = worker && toAsleep(worker);
    if (asleep === undefined) return;
    this.#workers.set(workerId, asleep);
    this.#settle(nowMs);
  }

  /**
   * The process is gone, or never came to be.
   *
   * @param error why; it reaches those who waited for the load, unless the engine ran out of memory and a second
   *   attempt has a chance. Ignored for a worker that was told to stop.
   */
  onExited(workerId: number, error: AppError, nowMs: number): void {
    const worker = this.#workers.get(workerId);
    if (worker === undefined) return;
    this.#workers.delete(workerId);
    if (upMs(worker, nowMs) >= HEALTHY_MS) {
      this.#crashes.clear(worker.key);
      this.#raises.clear(worker.key);
    }
    // Who does not wake is loaded anew for those who wait.
    const isReplaced = worker.kind === "starting" && worker.isWaking === true && !worker.leaving;
    const wasTold = worker.kind === "stopping" || isReplaced;
    if (!wasTold && !this.#triesAgain(worker, error, nowMs)) {
      if (CRASHES.has(error.code)) this.#crashes.record(worker.key, error, nowMs);
      if (worker.kind === "starting")
        this.#rejectAll(
          ({ key }) => key === worker.key,
          () => error,
        );
    }
    this.#settle(nowMs);
  }

  /** A lease was given back. Leases of a worker that died meanwhile are void. */
  onReleased(workerId: number, nowMs: number): void {
    const worker = this.#workers.get(workerId);
    if (worker?.kind !== "ready" && worker?.kind !== "draining") return;
    assert(worker.leases > 0, "a lease is given back once");
    const released = { ...worker, leases: worker.leases - 1, lastUsedMs: nowMs };
    this.#workers.set(workerId, released);
    if (released.kind === "draining" && released.leases === 0)
      this.#stop(released, released.reason);
    this.#settle(nowMs);
  }

  onDeadline(nowMs: number): void {
    this.#deadlineMs = undefined;
    this.#settle(nowMs);
  }

  /** What the workers may hold from now on. Idle ones leave if it is less than they do; none that serves is stopped. */
  onBudget(budget: Demand | undefined, nowMs: number): void {
    assert(budget === undefined || isDemand(budget), "a budget is an amount");
    this.#limits = { ...this.#limits, budget };
    this.#settle(nowMs);
  }

  /**
   * What a worker holds, instead of what was assumed. While it loads, and where it ran out of memory before, less than
   * assumed is not believed yet. Devices that are not named keep what was assumed.
   */
  onMeasured(workerId: number, demand: Demand, nowMs: number): void {
    const worker = this.#workers.get(workerId);
    if (worker === undefined || worker.kind === "asleep" || !isDemand(demand)) return;
    const raise = this.#raises.byKey.get(worker.key);
    this.#workers.set(workerId, withMeasured(worker, demand, raise));
    this.#settle(nowMs);
  }

  /** A pinned worker is neither evicted nor unloaded when its keep-alive is over. */
  onPinned(workerId: number, pinned: boolean, nowMs: number): void {
    const worker = this.#workers.get(workerId);
    if (worker === undefined) return;
    this.#workers.set(workerId, { ...worker, pinned });
    this.#settle(nowMs);
  }

  /**
   * Idle workers stop at once; one that serves, or that is awaited, finishes what it has and takes no more.
   *
   * @returns the workers told to leave, without those that were leaving already
   */
  onUnload(matches: (workerId: number) => boolean, nowMs: number): readonly number[] {
    const matching = this.workers.filter((worker) => isHere(worker) && matches(worker.id));
    for (const worker of matching) this.#leave(worker, "unloaded");
    this.#settle(nowMs);
    return matching.map(({ id }) => id);
  }

  /** Refuses what waits and what comes; lets requests in flight finish. */
  onShutdown(nowMs: number): void {
    this.#closed = true;
    this.#rejectAll(() => true, shuttingDown);
    for (const worker of this.workers) this.#leave(worker, "shutdown");
    this.#settle(nowMs);
  }

  /** Ends requests in flight too. */
  onForcedShutdown(nowMs: number): void {
    this.onShutdown(nowMs);
    for (const worker of this.workers) this.#stop(worker, "shutdown");
  }

  // --- internal ---

  /** Brings everything up to date after a change: the queue, what is held too much, overdue workers, the timer. */
  #settle(nowMs: number): void {
    // Those who can be served are, before their worker counts as idle.
    this.#decideAll(nowMs, ({ kind }) => kind === "serve");
    this.#trim(nowMs);
    this.#decideAll(nowMs, () => true);
    for (const worker of this.#workers.values()) {
      if ((unloadAtMs(worker) ?? Infinity) <= nowMs) this.#stop(worker, "idle");
    }
    for (const key of this.#retries) {
      if (!this.#isAwaited(key)) this.#retries.delete(key);
    }
    const deadlines = this.workers.map((worker) => unloadAtMs(worker) ?? Infinity);
    const deadlineMs = Math.min(Infinity, ...deadlines);
    this.#arm(deadlineMs === Infinity ? undefined : deadlineMs);
  }

  #decideAll(nowMs: number, isDue: (decision: Decision) => boolean): void {
    let state = this.#look(nowMs);
    for (const ticket of this.#queue) {
      const decision = decide(state, ticket, nowMs);
      if (decision.kind === "wait" || !isDue(decision)) continue;
      this.#apply(ticket, decision, nowMs);
      state = this.#look(nowMs);
    }
  }

  /** The state to decide on. */
  #look(nowMs: number): SchedulerState {
    const { workers } = this;
    const state = {
      limits: this.#limits,
      workers,
      queue: this.#queue,
      first: firstForRoom(this.#queue, workers),
      raises: this.#raises.byKey,
      retries: this.#retries,
      crashes: this.#crashes,
    };
    return { ...state, turn: turnOf(state, nowMs) };
  }

  #apply(ticket: Ticket, decision: Decision, nowMs: number): void {
    switch (decision.kind) {
      case "wait":
        return;
      case "evict":
        for (const id of decision.workerIds) this.#evict(this.#get(id), decision.sleepIds);
        return;
      case "start":
        return decision.sleeper === undefined
          ? this.#start(ticket, nowMs)
          : this.#wake(decision.sleeper, ticket, nowMs);
      case "serve":
        return this.#serve(ticket, decision.worker, nowMs);
      case "reject":
        return this.#rejectAll(
          ({ id }) => id === ticket.id,
          () => decision.error,
        );
    }
    decision satisfies never;
  }

  #serve(ticket: Ticket, worker: ReadyWorker, nowMs: number): void {
    this.#queue = this.#queue.filter((other) => other !== ticket);
    this.#workers.set(worker.id, withLease(worker, ticket, nowMs));
    this.#effects.grant(ticket.id, worker.id);
  }

  #start(ticket: Ticket, nowMs: number): void {
    const id = this.#nextWorkerId++;
    const isRetry = this.#retries.delete(ticket.key);
    const { keepAliveMs } = this.#limits;
    const demand = needOf(ticket, this.#look(nowMs));
    const worker = startingWorker(ticket, { id, demand, keepAliveMs, isRetry, nowMs });
    this.#workers.set(id, worker);
    this.#effects.startWorker(id, ticket, isRetry);
  }

  #wake(worker: AsleepWorker, ticket: Ticket, nowMs: number): void {
    const demand = needOf(ticket, this.#look(nowMs));
    this.#workers.set(worker.id, toWaking(worker, demand, nowMs));
    this.#effects.wakeWorker(worker.id);
  }

  #evict(worker: SchedulerWorker, sleepIds: ReadonlySet<number>): void {
    if (worker.kind !== "ready" || !sleepIds.has(worker.id)) return this.#stop(worker, "evicted");
    this.#workers.set(worker.id, toDozing(worker));
    this.#effects.sleepWorker(worker.id);
  }

  /** Whatever measuring or a smaller budget took, idle workers give back. */
  #trim(nowMs: number): void {
    const all = staying(this.workers);
    const bytes = overdraft(all, this.#limits.budget);
    if (isNothing(bytes)) return;
    const idle = all.filter(isEvictable).map((worker) => toCandidate(worker, nowMs));
    for (const id of chooseTrimming({ workers: 0, bytes }, idle, nowMs))
      this.#stop(this.#get(id), "evicted");
  }

  /**
   * An engine that ran out of memory is believed to need more. If it was loading, it is tried once more with all that
   * idle workers can give; not if nothing changes by that.
   */
  #triesAgain(worker: SchedulerWorker, error: AppError, nowMs: number): boolean {
    if (error.code !== "insufficient_memory") return false;
    this.#raises.raise(worker.key, worker.demand);
    const ticket = this.#queue.find(({ key }) => key === worker.key);
    if (worker.kind !== "starting" || worker.isRetry || ticket === undefined) return false;
    const isNear = ({ demand }: SchedulerWorker): boolean =>
      isNothing(worker.demand) || sharesDevice(demand, worker.demand);
    const near = this.workers.filter(isNear);
    for (const other of near.filter(isEvictable)) this.#stop(other, "evicted");
    const isMoreComing = near.some(({ id }) => this.#get(id).kind === "stopping");
    const need = needOf(ticket, this.#look(nowMs));
    const fits = isEnough(missingRoom(need, this.workers, this.#limits));
    if (!isMoreComing && fits) return false;
    this.#retries.add(worker.key);
    return true;
  }

  /** Whether the ticket, which is in the queue, could neither be served nor refused at once. */
  #wouldWait(ticket: Ticket, nowMs: number): boolean {
    const { kind } = decide(this.#look(nowMs), ticket, nowMs);
    return kind !== "serve" && kind !== "reject";
  }

  #leave(worker: SchedulerWorker, reason: StopReason): void {
    if (worker.kind === "starting" && this.#isAwaited(worker.key)) {
      this.#workers.set(worker.id, { ...worker, leaving: true });
    } else if (leaseCount(worker) === 0) {
      this.#stop(worker, reason);
    } else if (worker.kind === "ready") {
      this.#workers.set(worker.id, { ...worker, kind: "draining", reason });
    }
  }

  #stop(worker: SchedulerWorker, reason: StopReason): void {
    // Who is told to sleep may still be told to stop.
    if (worker.kind === "stopping" && !isDozing(worker)) return;
    this.#workers.set(worker.id, toStopping(worker));
    this.#effects.stopWorker(worker.id, reason);
  }

  #rejectAll(matches: (ticket: Ticket) => boolean, toError: (ticket: Ticket) => AppError): void {
    const rejected = this.#queue.filter(matches);
    this.#queue = this.#queue.filter((ticket) => !matches(ticket));
    for (const ticket of rejected) this.#effects.reject(ticket.id, toError(ticket));
  }

  #isAwaited(key: string): boolean {
    return this.#queue.some((ticket) => ticket.key === key);
  }

  #arm(deadlineMs: number | undefined): void {
    if (deadlineMs === this.#deadlineMs) return;
    this.#deadlineMs = deadlineMs;
    this.#effects.setDeadline(deadlineMs);
  }

  #get(id: number): SchedulerWorker {
    const worker = this.#workers.get(id);
    assert(worker !== undefined, "a chosen worker exists");
    return worker;
  }
}
