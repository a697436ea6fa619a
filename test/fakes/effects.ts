import type { AppError } from "../../src/errors.ts";
import type { Demand } from "../../src/runtime/demand.ts";
import type { StopReason } from "../../src/runtime/scheduler-worker.ts";
import {
  type Effects,
  Scheduler,
  type SchedulerLimits,
  type Ticket,
} from "../../src/runtime/scheduler.ts";

/** Records what the scheduler asks for. */
export class FakeEffects implements Effects {
  readonly started: {
    readonly workerId: number;
    readonly key: string;
    readonly ticketId: number;
    readonly isRetry: boolean;
  }[] = [];
  readonly stopped: { readonly workerId: number; readonly reason: StopReason }[] = [];
  readonly slept: number[] = [];
  readonly woken: number[] = [];
  readonly granted: { readonly ticketId: number; readonly workerId: number }[] = [];
  readonly rejected: { readonly ticketId: number; readonly error: AppError }[] = [];
  deadlineMs: number | undefined;

  startWorker(workerId: number, ticket: Ticket, isRetry: boolean): void {
    this.started.push({ workerId, key: ticket.key, ticketId: ticket.id, isRetry });
  }

  stopWorker(workerId: number, reason: StopReason): void {
    this.stopped.push({ workerId, reason });
  }

  sleepWorker(workerId: number): void {
    this.slept.push(workerId);
  }

  wakeWorker(workerId: number): void {
    this.woken.push(workerId);
  }

  grant(ticketId: number, workerId: number): void {
    this.granted.push({ ticketId, workerId });
  }

  reject(ticketId: number, error: AppError): void {
    this.rejected.push({ ticketId, error });
  }

  setDeadline(atMs: number | undefined): void {
    this.deadlineMs = atMs;
  }
}

export interface RequestOptions {
  readonly keepAliveMs?: number;
  /** A number means bytes of memory. */
  readonly demand?: Demand | number;
  readonly pinned?: boolean;
  readonly advice?: string;
  readonly asleep?: Demand;
}

/** A scheduler, what it did, and a clock to hand it. */
export class Bench {
  readonly effects = new FakeEffects();
  readonly scheduler: Scheduler;
  nowMs = 0;
  #nextTicket = 1;

  constructor(limits: Partial<SchedulerLimits> = {}) {
    const all = {
      maxWorkers: 1,
      budget: undefined,
      queueLimit: 512,
      keepAliveMs: 300_000,
      ...limits,
    };
    this.scheduler = new Scheduler(all, this.effects);
  }

  /** @returns the ticket's id */
  request(key: string, options: RequestOptions = {}): number {
    const id = this.#nextTicket++;
    const { keepAliveMs, demand: given = 1, ...rest } = options;
    const demand = typeof given === "number" ? { ram: given } : given;
    const facts = { id, key, modelName: key, demand, keepAliveMs, arrivedMs: this.nowMs };
    this.scheduler.onRequest({ ...facts, ...rest }, this.nowMs);
    return id;
  }

  /** Asks for a worker and lets it become ready. Returns the worker's id; one lease is held. */
  load(key: string, options: RequestOptions = {}): number {
    this.request(key, options);
    const workerId = this.lastStarted();
    this.scheduler.onReady(workerId, this.nowMs);
    return workerId;
  }

  /** As `load`, with the lease given back. */
  loadIdle(key: string, options: RequestOptions = {}): number {
    const workerId = this.load(key, options);
    this.scheduler.onReleased(workerId, this.nowMs);
    return workerId;
  }

  /** The timer fires: it is spent. */
  wake(nowMs: number): void {
    this.effects.deadlineMs = undefined;
    this.scheduler.onDeadline(nowMs);
  }

  lastStarted(): number {
    const last = this.effects.started.at(-1);
    if (last === undefined) throw new Error("nothing was started");
    return last.workerId;
  }

  /** Keys in the order in which they were started. */
  get startedKeys(): readonly string[] {
    return this.effects.started.map(({ key }) => key);
  }

  wasGranted(ticketId: number): boolean {
    return this.effects.granted.some((grant) => grant.ticketId === ticketId);
  }

  rejection(ticketId: number): AppError | undefined {
    return this.effects.rejected.find((rejection) => rejection.ticketId === ticketId)?.error;
  }
}
