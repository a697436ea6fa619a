import { expect } from "bun:test";

import { AppError, assert } from "../../src/errors.ts";
import type { Demand } from "../../src/runtime/demand.ts";
import {
  isDozing,
  type SchedulerWorker,
  type StopReason,
} from "../../src/runtime/scheduler-worker.ts";
import {
  type Effects,
  Scheduler,
  type SchedulerLimits,
  type Ticket,
} from "../../src/runtime/scheduler.ts";

const CRASH = new AppError("worker_failed", "cannot load the model: it broke");
const OUT_OF_MEMORY = new AppError("insufficient_memory", "cannot load the model: out of memory");
export const KINDS = ["starting", "ready", "draining", "asleep", "stopping"] as const;

export interface WorldRequest {
  readonly demand: Demand;
  readonly keepAliveMs?: number | undefined;
  readonly pinned?: boolean | undefined;
  readonly asleep?: Demand | undefined;
}

/** Plays the supervisor around a scheduler, and checks the invariants after every event. */
export class World {
  readonly scheduler: Scheduler;
  readonly endings = new Map<number, string[]>();
  /** All effects in order, as text. */
  readonly effects: string[] = [];
  /** A row a lease held. */
  leases: { readonly workerId: number; readonly sinceMs: number }[] = [];
  nowMs = 0;
  deadlineMs: number | undefined;
  #limits: SchedulerLimits;
  /** By device, when the last event was over. */
  #heldBefore: Demand = {};
  /** Keys whose last load ran out of memory and may be tried again. */
  readonly #outOfMemory = new Set<string>();

  constructor(limits: Omit<SchedulerLimits, "keepAliveMs">) {
    this.#limits = { keepAliveMs: 10_000, ...limits };
    this.scheduler = new Scheduler(this.#limits, this.#createEffects());
  }

  request(key: string, { demand, keepAliveMs, pinned, asleep }: WorldRequest): number {
    const id = this.endings.size + 1;
    this.endings.set(id, []);
    const ticket = { id, key, modelName: key, demand, keepAliveMs, pinned, asleep };
    this.scheduler.onRequest({ ...ticket, arrivedMs: this.nowMs }, this.nowMs);
    this.#check();
    return id;
  }

  cancel(ticketId: number): void {
    this.#end(ticketId, "cancelled");
    this.scheduler.onCancelled(ticketId, this.nowMs);
    this.#check();
  }

  ready(workerId: number): void {
    this.scheduler.onReady(workerId, this.nowMs);
    this.#check();
  }

  /** Workers that were told to sleep and not to end since. */
  get dozing(): readonly SchedulerWorker[] {
    return this.scheduler.workers.filter(isDozing);
  }

  fallAsleep(workerId: number): void {
    this.scheduler.onAsleep(workerId, this.nowMs);
    this.#check();
  }

  exit(workerId: number, how: "crash" | "out of memory" = "crash"): void {
    const worker = this.scheduler.workers.find(({ id }) => id === workerId);
    this.leases = this.leases.filter((lease) => lease.workerId !== workerId);
    // A second attempt that fails is the last.
    if (how === "out of memory" && worker?.kind === "starting" && !worker.isRetry)
      this.#outOfMemory.add(worker.key);
    this.scheduler.onExited(workerId, how === "crash" ? CRASH : OUT_OF_MEMORY, this.nowMs);
    this.#check();
  }

  release(index: number): void {
    const [lease] = this.leases.splice(index, 1);
    if (lease !== undefined) this.scheduler.onReleased(lease.workerId, this.nowMs);
    this.#check();
  }

  pin(workerId: number, pinned: boolean): void {
    this.scheduler.onPinned(workerId, pinned, this.nowMs);
    this.#check();
  }

  measure(workerId: number, demand: Demand): void {
    this.scheduler.onMeasured(workerId, demand, this.nowMs);
    this.#check({ isOverdraftLegal: true });
  }

  setBudget(budget: Demand | undefined): void {
    this.#limits = { ...this.#limits, budget };
    this.scheduler.onBudget(budget, this.nowMs);
    this.#check({ isOverdraftLegal: true });
  }

  unload(key: string): void {
    const ids = new Set(
      this.workers(...KINDS)
        .filter((worker) => worker.key === key)
        .map(({ id }) => id),
    );
    this.scheduler.onUnload((id) => ids.has(id), this.nowMs);
    this.#check();
  }

  advance(ms: number): void {
    this.nowMs += ms;
    if (this.deadlineMs === undefined || this.deadlineMs > this.nowMs) return;
    this.deadlineMs = undefined;
    this.scheduler.onDeadline(this.nowMs);
    this.#check();
  }

  workers(...kinds: readonly (typeof KINDS)[number][]): readonly SchedulerWorker[] {
    return this.scheduler.workers.filter(({ kind }) => kinds.includes(kind));
  }

  /** Everything that is under way comes to its end. */
  finishAll(): void {
    for (const { id } of this.workers("starting")) this.ready(id);
    for (const { id } of this.dozing) this.fallAsleep(id);
    while (this.leases.length > 0) this.release(0);
    for (const { id } of this.workers("stopping")) this.exit(id);
  }

  /** Ids of tickets that have not ended. */
  get open(): readonly number[] {
    return [...this.endings].filter(([, endings]) => endings.length === 0).map(([id]) => id);
  }

  #createEffects(): Effects {
    return {
      startWorker: (id, ticket, isRetry) => {
        this.effects.push(`start ${id} for ${ticket.id} retry=${isRetry}`);
        this.#assertMayStart(id, ticket);
        if (isRetry) expect(this.#outOfMemory.delete(ticket.key)).toBe(true);
        this.#outOfMemory.delete(ticket.key);
      },
      stopWorker: (id, reason) => {
        this.effects.push(`stop ${id} ${reason}`);
        this.#assertMayStop(id, reason);
      },
      sleepWorker: (id) => {
        this.effects.push(`sleep ${id}`);
        this.#assertMayStop(id, "evicted");
        expect(this.#get(id).asleep).toBeDefined();
      },
      wakeWorker: (id) => {
        this.effects.push(`wake ${id}`);
        expect(this.#get(id).kind).toBe("starting");
      },
      grant: (ticketId, workerId) => {
        this.effects.push(`grant ${ticketId} ${workerId}`);
        expect(this.#get(workerId).kind).toBe("ready");
        this.#end(ticketId, "granted");
        this.leases.push({ workerId, sinceMs: this.nowMs });
      },
      reject: (ticketId, error) => {
        this.effects.push(`reject ${ticketId} ${error.message}`);
        this.#end(ticketId, "rejected");
      },
      setDeadline: (atMs) => {
        this.effects.push(`deadline ${atMs}`);
        this.deadlineMs = atMs;
      },
    };
  }

  #get(workerId: number): SchedulerWorker {
    const worker = this.scheduler.workers.find(({ id }) => id === workerId);
    assert(worker !== undefined, "no effect names an unknown worker");
    return worker;
  }

  #end(ticketId: number, how: string): void {
    const endings = this.endings.get(ticketId);
    assert(endings !== undefined, "only known tickets end");
    endings.push(how);
    expect(endings).toHaveLength(1);
  }

  #assertMayStart(workerId: number, ticket: Ticket): void {
    const { demand } = this.#get(workerId);
    for (const [device, bytes] of Object.entries(ticket.demand)) {
      expect(demand[device] ?? 0).toBeGreaterThanOrEqual(bytes);
    }
    const { budget } = this.#limits;
    const held = this.#held();
    for (const [device, bytes] of Object.entries(budget === undefined ? {} : demand)) {
      if (bytes > 0) expect(held[device]).toBeLessThanOrEqual(budget?.[device] ?? 0);
    }
    const awake = this.scheduler.workers.filter(({ kind }) => kind !== "asleep");
    const keys = new Set(awake.map(({ key }) => key));
    const { waiting } = this.scheduler;
    const older = waiting.slice(
      0,
      waiting.findIndex(({ id }) => id === ticket.id),
    );
    expect(older.filter(({ key }) => !keys.has(key))).toEqual([]);
  }

  #assertMayStop(workerId: number, reason: StopReason): void {
    const worker = this.#get(workerId);
    expect(this.leases.filter((lease) => lease.workerId === workerId)).toEqual([]);
    if (reason === "unloaded" || reason === "shutdown") return;
    expect([worker.pinned, worker.keepAliveMs < 0]).toEqual([false, false]);
  }

  #held(): Demand {
    const held: Record<string, number> = {};
    for (const { demand } of this.scheduler.workers) {
      for (const [device, bytes] of Object.entries(demand))
        held[device] = (held[device] ?? 0) + bytes;
    }
    return held;
  }

  #check({ isOverdraftLegal = false } = {}): void {
    const { workers, waiting } = this.scheduler;
    expect(workers.length).toBeLessThanOrEqual(this.#limits.maxWorkers);
    expect(waiting.length).toBeLessThanOrEqual(this.#limits.queueLimit);
    expect(new Set(workers.map(({ key }) => key)).size).toBe(workers.length);
    for (const worker of workers) {
      const held = this.leases.filter(({ workerId }) => workerId === worker.id).length;
      expect("leases" in worker ? worker.leases : 0).toBe(held);
    }
    expect(waiting.map(({ id }) => id)).toEqual([...this.open]);
    this.#checkMemory(isOverdraftLegal);
    this.#checkDeadline();
  }

  #checkMemory(isOverdraftLegal: boolean): void {
    const { budget } = this.#limits;
    const held = this.#held();
    if (budget !== undefined && !isOverdraftLegal) {
      for (const [device, bytes] of Object.entries(held)) {
        const most = Math.max(budget[device] ?? 0, this.#heldBefore[device] ?? 0);
        expect(bytes).toBeLessThanOrEqual(most);
      }
    }
    this.#heldBefore = held;
    if (budget !== undefined) this.#checkNobodyIdlesOnBorrowedBytes(budget);
  }

  #checkNobodyIdlesOnBorrowedBytes(budget: Demand): void {
    const staying = this.workers("starting", "ready", "draining", "asleep");
    const bytesOn = (device: string): number =>
      staying.reduce((sum, { demand }) => sum + (demand[device] ?? 0), 0);
    const idle = staying.filter(
      (worker) =>
        (worker.kind === "ready" || worker.kind === "asleep") &&
        worker.leases === 0 &&
        !worker.pinned &&
        worker.keepAliveMs >= 0,
    );
    for (const { demand } of idle) {
      for (const [device, bytes] of Object.entries(demand)) {
        if (bytes > 0) expect(bytesOn(device)).toBeLessThanOrEqual(budget[device] ?? 0);
      }
    }
  }

  #checkDeadline(): void {
    const due = this.scheduler.workers.flatMap((worker) =>
      (worker.kind === "ready" || worker.kind === "asleep") &&
      worker.leases === 0 &&
      worker.keepAliveMs >= 0 &&
      !worker.pinned
        ? [worker.lastUsedMs + worker.keepAliveMs]
        : [],
    );
    expect(this.deadlineMs).toBe(due.length === 0 ? undefined : Math.min(...due));
  }
}
