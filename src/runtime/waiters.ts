/** Callers that wait for a worker. */
import type { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Clock } from "./clock.ts";
import type { LoadReason, RuntimeEvents, WorkerFacts } from "./events.ts";
import type { GrantedLease } from "./lease.ts";
import type { WorkerPlan } from "./planner.ts";
import type { ProgressEvent, ProgressListener, WarningEvent } from "./worker.ts";

export interface Waiter {
  readonly ticketId: number;
  readonly key: string;
  readonly plan: WorkerPlan;
  readonly reason: LoadReason;
  readonly onProgress: ProgressListener | undefined;
  /** On the runtime's clock. */
  readonly arrivedMs: number;
  resolve(lease: GrantedLease): void;
  reject(error: AppError): void;
}

export class Waiters {
  readonly #waiters = new Map<number, Waiter>();
  readonly #events: RuntimeEvents;
  readonly #clock: Clock;

  constructor({ events, clock }: { readonly events: RuntimeEvents; readonly clock: Clock }) {
    this.#events = events;
    this.#clock = clock;
  }

  add(waiter: Waiter): void {
    const { ticketId, plan, arrivedMs: atMs } = waiter;
    this.#waiters.set(ticketId, waiter);
    this.#events.emit({ kind: "queued", atMs, ticketId, modelName: plan.model.name });
  }

  get(ticketId: number): Waiter | undefined {
    return this.#waiters.get(ticketId);
  }

  /** Ends one with a worker, if it still waits. */
  grant(ticketId: number, worker: WorkerFacts, toLease: (waiter: Waiter) => GrantedLease): void {
    const waiter = this.#take(ticketId);
    if (waiter === undefined) return;
    const atMs = this.#clock.now();
    const waitedMs = atMs - waiter.arrivedMs;
    this.#events.emit({ kind: "granted", atMs, ticketId, worker, waitedMs });
    waiter.resolve(toLease(waiter));
  }

  /** Ends one without a worker, if it still waits. */
  refuse(ticketId: number, error: AppError): void {
    const waiter = this.#take(ticketId);
    if (waiter === undefined) return;
    const atMs = this.#clock.now();
    const waitedMs = atMs - waiter.arrivedMs;
    const modelName = waiter.plan.model.name;
    this.#events.emit({ kind: "refused", atMs, ticketId, modelName, waitedMs, code: error.code });
    waiter.reject(error);
  }

  ofModel(modelId: string): readonly Waiter[] {
    return this.#waiters
      .values()
      .filter(({ plan }) => plan.model.id === modelId || plan.draft?.id === modelId)
      .toArray();
  }

  hasKey(key: string): boolean {
    return this.#waiters.values().some((waiter) => waiter.key === key);
  }

  /** Whether any of those who wait for this worker wants to hear of its progress. */
  hasListener(key: string): boolean {
    return this.#waiters.values().some((one) => one.key === key && one.onProgress !== undefined);
  }

  tell(key: string, event: ProgressEvent | WarningEvent): void {
    for (const waiter of this.#waiters.values()) if (waiter.key === key) tellWaiter(waiter, event);
  }

  // --- internal ---

  /** Each ends once: whoever takes it, ends it. */
  #take(ticketId: number): Waiter | undefined {
    const waiter = this.#waiters.get(ticketId);
    this.#waiters.delete(ticketId);
    return waiter;
  }
}

/** A load belongs to nobody: a caller that fails to listen must not break it. */
export function tellWaiter(
  { onProgress }: Pick<Waiter, "onProgress">,
  event: ProgressEvent | WarningEvent,
): void {
  try {
    onProgress?.(event);
  } catch (thrown) {
    log.debug(`runtime: progress not taken reason=${String(thrown)}`);
  }
}
