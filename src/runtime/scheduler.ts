/**
 * Which request gets which worker, and when workers start and stop. Pure and synchronous: events in (`on…`), effects
 * out. No clock, no timers, no I/O, no logging: every event brings the time, slow work comes back as a new event.
 *
 * README.md beside this file has the states and the invariants.
 */
import { type AppError, assert } from "../errors.ts";
import { CrashLog } from "./backoff.ts";
import { chooseEvictions, type Room } from "./eviction.ts";
import { allPinned, crashLoop, queueFull, shuttingDown, tooBig } from "./refusals.ts";
import {
  isIdle,
  isPinned,
  leaseCount,
  type SchedulerWorker,
  type StopReason,
  toCandidate,
  unloadAtMs,
} from "./scheduler-worker.ts";

/** A request that waits for a worker. It ends exactly once: granted, rejected or cancelled. */
export interface Ticket {
  readonly id: number;
  /** Identity of the worker it needs: tickets with one key share one worker. */
  readonly key: string;
  /** For messages. */
  readonly modelName: string;
  /** What the worker is expected to hold. */
  readonly bytes: number;
  /** Replaces the worker's keep-alive; -1 pins it; undefined leaves it as it is. */
  readonly keepAliveMs: number | undefined;
  readonly arrivedMs: number;
}

export interface SchedulerLimits {
  /** Processes at once, those that are on their way out included. */
  readonly maxWorkers: number;
  /** Bytes that all workers may hold; `Infinity` counts workers only. */
  readonly maxBytes: number;
  /** Tickets that may wait; the next one is refused. */
  readonly queueLimit: number;
  /** Keep-alive of a worker that nobody asked another for; -1 pins. */
  readonly keepAliveMs: number;
}

/** What the scheduler asks for. All return at once and none may call the scheduler back from inside. */
export interface Effects {
  startWorker(workerId: number, ticket: Ticket): void;
  /** Answered by `onExited`. */
  stopWorker(workerId: number, reason: StopReason): void;
  /** The ticket now holds a lease; `onReleased` gives it back. */
  grant(ticketId: number, workerId: number): void;
  reject(ticketId: number, error: AppError): void;
  /** When `onDeadline` is wanted: replaces the one asked for before; undefined for never. */
  setDeadline(atMs: number | undefined): void;
}

/** How long requests for models that are loaded may overtake one that waits for room. */
export const OVERTAKING_MS = 15_000;
/** A worker that served this long is no part of a crash loop. */
const HEALTHY_MS = 60_000;
type Decision =
  | { readonly kind: "serve"; readonly worker: SchedulerWorker & { kind: "ready" } }
  | { readonly kind: "start" }
  | { readonly kind: "evict"; readonly workerIds: readonly number[] }
  | { readonly kind: "wait"; readonly reason: "loading" | "leaving" | "yielding" | "room" }
  | { readonly kind: "reject"; readonly error: AppError };

export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #effects: Effects;
  readonly #crashes = new CrashLog();
  readonly #workers = new Map<number, SchedulerWorker>();
  /** By arrival. */
  #queue: Ticket[] = [];
  /** Workers that take no one who came after this ticket, because it has been overtaken for too long. */
  #yield: { readonly ticket: Ticket; readonly workerIds: ReadonlySet<number> } | undefined;
  #deadlineMs: number | undefined;
  #nextWorkerId = 1;
  #closed = false;

  constructor(limits: SchedulerLimits, effects: Effects) {
    assert(limits.maxWorkers >= 1, "there is room for one worker");
    this.#limits = limits;
    this.#effects = effects;
  }

  /** A snapshot; decisions are made in events only. */
  get workers(): readonly SchedulerWorker[] {
    return [...this.#workers.values()];
  }

  get waiting(): readonly Ticket[] {
    return this.#queue;
  }

  onRequest(ticket: Ticket, nowMs: number): void {
    if (this.#closed) return this.#effects.reject(ticket.id, shuttingDown(ticket));
    this.#queue.push(ticket);
    this.#updateYield(nowMs);
    if (
      this.#queue.length > this.#limits.queueLimit &&
      this.#decide(ticket, nowMs).kind !== "serve"
    ) {
      this.#queue.pop();
      return this.#effects.reject(ticket.id, queueFull(ticket, this.#limits.queueLimit));
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
    const { id, key, bytes, keepAliveMs } = worker;
    const life = {
      loadMs: loadMs ?? nowMs - worker.startedMs,
      readyMs: nowMs,
      lastUsedMs: nowMs,
      leases: 0,
    };
    this.#workers.set(id, { id, key, bytes, keepAliveMs, ...life, kind: "ready" });
    this.#settle(nowMs);
    // Whoever waited for it has it now; those who come later get the next one.
    const settled = this.#workers.get(workerId);
    if (worker.leaving && settled?.kind === "ready") this.#leave(settled, "unloaded");
    this.#settle(nowMs);
  }

  /**
   * The process is gone, or never came to be.
   *
   * @param error why; it reaches those who waited for the load. Ignored for a worker that was told to stop.
   */
  onExited(workerId: number, error: AppError, nowMs: number): void {
    const worker = this.#workers.get(workerId);
    if (worker === undefined) return;
    this.#workers.delete(workerId);
    const upMs = "readyMs" in worker && worker.readyMs !== undefined ? nowMs - worker.readyMs : 0;
    if (upMs >= HEALTHY_MS) this.#crashes.clear(worker.key);
    if (worker.kind !== "stopping" && error.code === "worker_failed") {
      this.#crashes.record(worker.key, error, nowMs);
    }
    if (worker.kind === "starting")
      this.#rejectAll(
        ({ key }) => key === worker.key,
        () => error,
      );
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

  /**
   * Idle workers stop at once; one that serves, or that is awaited, finishes what it has and takes no more.
   *
   * @returns the workers told to leave, without those that were leaving already
   */
  onUnload(matches: (workerId: number) => boolean, nowMs: number): readonly number[] {
    const matching = this.workers.filter(
      (worker) => (worker.kind === "ready" || worker.kind === "starting") && matches(worker.id),
    );
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

  /** Brings everything up to date after a change: the queue, overdue workers, the timer. */
  #settle(nowMs: number): void {
    this.#updateYield(nowMs);
    for (const ticket of this.#queue.slice())
      this.#apply(ticket, this.#decide(ticket, nowMs), nowMs);
    for (const worker of this.#workers.values()) {
      if ((unloadAtMs(worker) ?? Infinity) <= nowMs) this.#stop(worker, "idle");
    }
    const deadline = this.workers.reduce(
      (first, w) => Math.min(first, unloadAtMs(w) ?? Infinity),
      Infinity,
    );
    this.#arm(deadline === Infinity ? undefined : deadline);
  }

  /**
   * 1. A worker has the ticket's key:
   *    a. it loads: wait for it.
   *    b. it is on its way out: wait until it has gone.
   *    c. it owes its place to an older ticket: wait.
   *    d. serve.
   * 2. No worker has it:
   *    a. its last attempts crashed: reject until the pause is over.
   *    b. there will never be room: reject.
   *    c. an older ticket waits for room: wait behind it.
   *    d. there is room: start.
   *    e. idle workers can make room: evict what is needed.
   *    f. wait for a request to end.
   */
  #decide(ticket: Ticket, nowMs: number): Decision {
    const worker = this.workers.find(({ key }) => key === ticket.key);
    if (worker !== undefined) return this.#decideFor(worker, ticket);
    const crash = this.#crashes.holding(ticket.key, nowMs);
    if (crash !== undefined) return reject(crashLoop(crash.error, crash.retryAtMs - nowMs));
    const never = this.#neverFits(ticket);
    if (never !== undefined) return reject(never);
    if (this.#firstForRoom()?.id !== ticket.id) return { kind: "wait", reason: "room" };
    if (isEnough(this.#missing(ticket, this.workers))) return { kind: "start" };
    // What stops already is as good as gone: nobody else has to leave for the room it gives back.
    const staying = this.workers.filter(({ kind }) => kind !== "stopping");
    const missing = this.#missing(ticket, staying);
    const idle = staying.filter((other) => isIdle(other) && !isPinned(other));
    const evicted = chooseEvictions(
      missing,
      idle.map((w) => toCandidate(w, nowMs)),
      nowMs,
    );
    if (evicted === undefined || evicted.length === 0) return { kind: "wait", reason: "room" };
    return { kind: "evict", workerIds: evicted };
  }

  #decideFor(worker: SchedulerWorker, ticket: Ticket): Decision {
    if (worker.kind === "starting") return { kind: "wait", reason: "loading" };
    if (worker.kind !== "ready") return { kind: "wait", reason: "leaving" };
    const owes =
      this.#yield?.workerIds.has(worker.id) && this.#isBefore(this.#yield.ticket, ticket);
    if (owes) return { kind: "wait", reason: "yielding" };
    return { kind: "serve", worker };
  }

  #apply(ticket: Ticket, decision: Decision, nowMs: number): void {
    switch (decision.kind) {
      case "wait":
        return;
      case "evict":
        for (const id of decision.workerIds) this.#stop(this.#get(id), "evicted");
        return;
      case "start":
        this.#start(ticket, nowMs);
        return this.#updateYield(nowMs);
      case "serve":
        return this.#serve(ticket, decision.worker, nowMs);
      case "reject":
        this.#rejectAll(
          ({ id }) => id === ticket.id,
          () => decision.error,
        );
        return this.#updateYield(nowMs);
    }
    decision satisfies never;
  }

  #serve(ticket: Ticket, worker: SchedulerWorker & { kind: "ready" }, nowMs: number): void {
    this.#queue = this.#queue.filter((other) => other !== ticket);
    const keepAliveMs = ticket.keepAliveMs ?? worker.keepAliveMs;
    const leases = worker.leases + 1;
    this.#workers.set(worker.id, { ...worker, leases, lastUsedMs: nowMs, keepAliveMs });
    this.#effects.grant(ticket.id, worker.id);
  }

  #start(ticket: Ticket, nowMs: number): void {
    const { key, bytes } = ticket;
    const id = this.#nextWorkerId++;
    const keepAliveMs = ticket.keepAliveMs ?? this.#limits.keepAliveMs;
    const identity = { id, key, bytes, keepAliveMs };
    this.#workers.set(id, { ...identity, kind: "starting", startedMs: nowMs, leaving: false });
    this.#effects.startWorker(id, ticket);
  }

  #leave(worker: SchedulerWorker, reason: StopReason): void {
    const isAwaited = this.#queue.some(({ key }) => key === worker.key);
    if (worker.kind === "starting" && isAwaited) {
      this.#workers.set(worker.id, { ...worker, leaving: true });
    } else if (leaseCount(worker) === 0) {
      this.#stop(worker, reason);
    } else if (worker.kind === "ready") {
      this.#workers.set(worker.id, { ...worker, kind: "draining", reason });
    }
  }

  #stop(worker: SchedulerWorker, reason: StopReason): void {
    if (worker.kind === "stopping") return;
    const { id, key, bytes, keepAliveMs } = worker;
    const life =
      "leases" in worker ? { readyMs: worker.readyMs, lastUsedMs: worker.lastUsedMs } : {};
    this.#workers.set(id, { id, key, bytes, keepAliveMs, ...life, kind: "stopping" });
    this.#effects.stopWorker(id, reason);
  }

  #rejectAll(matches: (ticket: Ticket) => boolean, toError: (ticket: Ticket) => AppError): void {
    const rejected = this.#queue.filter(matches);
    this.#queue = this.#queue.filter((ticket) => !matches(ticket));
    for (const ticket of rejected) this.#effects.reject(ticket.id, toError(ticket));
  }

  /** Once the first in line for room has been overtaken too long, workers that could make room stop taking others. */
  #updateYield(nowMs: number): void {
    const first = this.#firstForRoom();
    if (first === undefined || nowMs - first.arrivedMs < OVERTAKING_MS) {
      this.#yield = undefined;
      return;
    }
    if (this.#yield?.ticket.id === first.id && this.#canStillYield(this.#yield.workerIds)) return;
    const staying = this.workers.filter(({ kind }) => kind !== "stopping");
    const able = staying.filter((worker) => !isPinned(worker));
    const missing = this.#missing(first, staying);
    const candidates = able.map((worker) => toCandidate(worker, nowMs));
    const workerIds = new Set(chooseEvictions(missing, candidates, nowMs));
    this.#yield = { ticket: first, workerIds };
  }

  #canStillYield(workerIds: ReadonlySet<number>): boolean {
    return [...workerIds].every((id) => {
      const worker = this.#workers.get(id);
      return worker !== undefined && !isPinned(worker);
    });
  }

  /** Only the oldest ticket whose key has no worker may take room, so that small ones cannot starve a big one. */
  #firstForRoom(): Ticket | undefined {
    const keys = new Set(this.workers.map(({ key }) => key));
    return this.#queue.find(({ key }) => !keys.has(key));
  }

  #isBefore(one: Ticket, other: Ticket): boolean {
    return this.#queue.indexOf(one) < this.#queue.indexOf(other);
  }

  /** What a ticket lacks beside the given workers. */
  #missing(ticket: Ticket, workers: readonly SchedulerWorker[]): Room {
    const used = workers.reduce((sum, { bytes }) => sum + bytes, 0);
    return {
      workers: Math.max(0, workers.length + 1 - this.#limits.maxWorkers),
      bytes: Math.max(0, used + ticket.bytes - this.#limits.maxBytes),
    };
  }

  #neverFits(ticket: Ticket): AppError | undefined {
    if (!isEnough(this.#missing(ticket, []))) return tooBig(ticket, this.#limits.maxBytes);
    const pinned = this.workers.filter(isPinned);
    return isEnough(this.#missing(ticket, pinned)) ? undefined : allPinned(ticket, pinned.length);
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

function isEnough(missing: Room): boolean {
  return missing.workers === 0 && missing.bytes === 0;
}

function reject(error: AppError): Decision {
  return { kind: "reject", error };
}
