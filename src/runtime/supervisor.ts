/**
 * The shell around the scheduler: owns workers, waiting callers and the one timer, performs the scheduler's effects
 * and feeds it events. What it decides itself is only which engine serves a request.
 */
import { join } from "node:path";

import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { chooseBackend } from "./backend-choice.ts";
import type { Backend, Mode, RunnableModel, WorkerSettings } from "./backend.ts";
import { type Clock, systemClock } from "./clock.ts";
import { createLease, type Lease } from "./lease.ts";
import { killLeftovers } from "./leftovers.ts";
import { estimateBytes } from "./memory.ts";
import { settlesWithin, type Spawn, spawnEngine } from "./process.ts";
import type { StopReason } from "./scheduler-worker.ts";
import { Scheduler, type Ticket } from "./scheduler.ts";
import { toSnapshot, type WorkerSnapshot } from "./snapshot.ts";
import { workerKey } from "./worker-key.ts";
import {
  type EngineInstaller,
  type PidStore,
  type ProgressEvent,
  type ProgressListener,
  type WarningEvent,
  Worker,
} from "./worker.ts";

export interface AcquireRequest {
  readonly model: RunnableModel;
  /** An engine by name; else one is chosen by the model's format. */
  readonly backend?: string | undefined;
  readonly mode: Mode;
  readonly settings: WorkerSettings;
  /** After the last request: -1 for ever, 0 at once. Undefined leaves what the worker has. */
  readonly keepAliveMs?: number | undefined;
  /** Gives up waiting. The load goes on: it belongs to nobody. */
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
}

export interface UnloadFilter {
  readonly all?: boolean | undefined;
  readonly backend?: string | undefined;
  /** Model ids. */
  readonly models?: readonly string[] | undefined;
}

export interface SupervisorLimits {
  readonly maxWorkers: number;
  /** Requests that may wait. */
  readonly queueLimit: number;
  /** Default keep-alive; -1 pins. */
  readonly keepAliveMs: number;
  /** For all workers together; undefined does not count bytes. */
  readonly memoryBytes?: number | undefined;
  /** Loading without a sign of progress; default 5 minutes. */
  readonly stallMs?: number | undefined;
  /** From SIGTERM to SIGKILL; default 10 s. */
  readonly stopGraceMs?: number | undefined;
}

export interface SupervisorDeps {
  readonly backends: readonly Backend[];
  readonly installer: EngineInstaller;
  /** For sockets; private (0700). */
  readonly runDirectory: string;
  readonly logDirectory: string;
  readonly pidStore: PidStore;
  readonly limits: SupervisorLimits;
  /** Logical processors that a worker may use. */
  readonly cores: number;
  readonly clock?: Clock | undefined;
  readonly spawn?: Spawn | undefined;
}

/** Reading a model from a slow disk may be silent for minutes. */
const STALL_MS = 5 * 60_000;
const STOP_GRACE_MS = 10_000;
/** For requests in flight when the runner is told to leave. */
const CLOSE_GRACE_MS = 10_000;
/** setTimeout overflows beyond; the scheduler asks again when it is woken early. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface Entry {
  readonly worker: Worker;
  readonly key: string;
  readonly backend: string;
  readonly model: RunnableModel;
  readonly mode: Mode;
  readonly socket: string;
  /** Its log file is `worker-<slot>.log`: numbers are used again, so the files stay few. */
  readonly slot: number;
  /** Resolves when it has gone and the scheduler knows. */
  gone: Promise<void>;
  wasUsed: boolean;
  progress: ProgressEvent | WarningEvent | undefined;
}

interface Waiter {
  readonly request: AcquireRequest;
  readonly backend: Backend;
  readonly key: string;
  resolve(lease: Lease): void;
  reject(error: AppError): void;
}

export class Supervisor {
  readonly #deps: SupervisorDeps;
  readonly #clock: Clock;
  readonly #scheduler: Scheduler;
  readonly #entries = new Map<number, Entry>();
  readonly #waiters = new Map<number, Waiter>();
  readonly #idleListeners = new Set<(idle: boolean) => void>();
  #timer: Disposable | undefined;
  #nextTicketId = 1;
  /** Callers inside `acquire`. */
  #arriving = 0;
  #wasBusy = false;
  #closing: Promise<void> | undefined;

  /** Starts nothing: no process, no timer, no file. */
  constructor(deps: SupervisorDeps) {
    this.#deps = deps;
    this.#clock = deps.clock ?? systemClock;
    const { maxWorkers, queueLimit, keepAliveMs, memoryBytes } = deps.limits;
    const limits = { maxWorkers, queueLimit, keepAliveMs, maxBytes: memoryBytes ?? Infinity };
    this.#scheduler = new Scheduler(limits, {
      startWorker: (id, ticket) => this.#startWorker(id, ticket),
      stopWorker: (id, reason) => this.#stopWorker(id, reason),
      grant: (ticketId, workerId) => this.#grant(ticketId, workerId),
      reject: (ticketId, error) => this.#takeWaiter(ticketId)?.reject(error),
      setDeadline: (atMs) => this.#setDeadline(atMs),
    });
  }

  /** A worker exists or a caller waits. */
  get busy(): boolean {
    return this.#entries.size > 0 || this.#arriving > 0;
  }

  /**
   * Waits until a worker for the request is ready: at once if it is loaded, else while it loads or while another one
   * makes room. The caller must release the lease.
   *
   * @throws cancelled, queue_full, worker_failed, insufficient_memory, backend_not_found, unsupported_model,
   *   shutting_down, and what installing the engine or opening the model throws
   */
  async acquire(request: AcquireRequest): Promise<Lease> {
    throwIfGone(request);
    this.#arriving += 1;
    this.#noteIdle();
    try {
      const backend = await chooseBackend(request, this.#deps.backends, async (name) => {
        return (await this.#deps.installer.active(name)) !== undefined;
      });
      throwIfGone(request);
      return await this.#enqueue(request, backend);
    } finally {
      this.#arriving -= 1;
      this.#noteIdle();
    }
  }

  list(): WorkerSnapshot[] {
    return this.#scheduler.workers.flatMap((worker) => {
      const entry = this.#entries.get(worker.id);
      return entry === undefined ? [] : [toSnapshot(worker, { ...entry, pid: entry.worker.pid })];
    });
  }

  /**
   * Idle workers have gone when it resolves; those that serve finish what they have first, and are not waited for.
   *
   * @returns how many were told to leave
   */
  async unload(filter: UnloadFilter): Promise<number> {
    const ids = this.#scheduler.onUnload((id) => {
      const entry = this.#entries.get(id);
      return entry !== undefined && matches(filter, entry);
    }, this.#clock.now());
    this.#noteIdle();
    const stopping = this.#scheduler.workers.filter(({ kind }) => kind === "stopping");
    const waited = stopping.filter(({ id }) => ids.includes(id));
    await Promise.all(waited.map(({ id }) => this.#entries.get(id)?.gone ?? Promise.resolve()));
    return ids.length;
  }

  /** Kills engines that a runner before this one left behind; returns how many. Call it before the first `acquire`. */
  reapLeftovers(): Promise<number> {
    return Promise.resolve(killLeftovers(this.#deps.pidStore));
  }

  /** Refuses new and waiting requests, lets those in flight finish within the grace, and stops all; 0 ends a longer grace. */
  close({ graceMs = CLOSE_GRACE_MS }: { readonly graceMs?: number } = {}): Promise<void> {
    if (graceMs === 0) this.#scheduler.onForcedShutdown(this.#clock.now());
    return (this.#closing ??= this.#close(graceMs));
  }

  /** Calls back whenever `busy` changes; returns the way to stop that. */
  onIdleChange(listener: (idle: boolean) => void): () => void {
    this.#idleListeners.add(listener);
    return () => void this.#idleListeners.delete(listener);
  }

  // --- internal ---

  #enqueue(request: AcquireRequest, backend: Backend): Promise<Lease> {
    const { promise, resolve, reject } = Promise.withResolvers<Lease>();
    const id = this.#nextTicketId++;
    const { model, mode, settings } = request;
    const key = workerKey({ backend: backend.name, modelId: model.id, mode, settings });
    const onAbort = (): void => {
      this.#takeWaiter(id)?.reject(cancelled(request));
      this.#scheduler.onCancelled(id, this.#clock.now());
      this.#noteIdle();
    };
    const forget = (): void => request.signal.removeEventListener("abort", onAbort);
    request.signal.addEventListener("abort", onAbort, { once: true });
    this.#waiters.set(id, { request, backend, key, resolve, reject });
    this.#scheduler.onRequest(
      {
        id,
        key,
        modelName: request.model.name,
        bytes: estimateBytes(request.model),
        keepAliveMs: request.keepAliveMs,
        arrivedMs: this.#clock.now(),
      },
      this.#clock.now(),
    );
    if (this.#waiters.has(id)) this.#tellWaiting(request, key);
    return promise.finally(forget);
  }

  /** What a caller that has to wait sees first. */
  #tellWaiting(request: AcquireRequest, key: string): void {
    const entry = this.#entries.values().find((one) => one.key === key);
    const event = entry === undefined ? waitingForRoom(request) : entry.progress;
    if (event !== undefined) tell(request, event);
  }

  #takeWaiter(ticketId: number): Waiter | undefined {
    const waiter = this.#waiters.get(ticketId);
    this.#waiters.delete(ticketId);
    return waiter;
  }

  #startWorker(id: number, ticket: Ticket): void {
    const waiter = this.#waiters.get(ticket.id);
    if (waiter === undefined) return;
    const { request, backend, key } = waiter;
    const { model, mode, settings } = request;
    // The number is never used twice: a caller whose engine died must not reach another one at the same path.
    const socket = join(this.#deps.runDirectory, `worker-${id}.sock`);
    const slot = this.#freeSlot();
    const logFile = join(this.#deps.logDirectory, `worker-${slot}.log`);
    const { installer, pidStore, cores, limits, spawn = spawnEngine } = this.#deps;
    const { stallMs = STALL_MS, stopGraceMs: graceMs = STOP_GRACE_MS } = limits;
    const worker = new Worker(
      { backend, model, mode, settings, socket, logFile },
      { installer, pidStore, spawn, cores, stallMs, graceMs },
    );
    const facts = { worker, key, backend: backend.name, model, mode, socket, slot };
    const entry: Entry = { ...facts, gone: Promise.resolve(), wasUsed: false, progress: undefined };
    this.#entries.set(id, entry);
    entry.gone = this.#run(id, entry);
  }

  async #run(id: number, entry: Entry): Promise<void> {
    // The scheduler is in the middle of an event: nothing of ours may reach a listener before it is done.
    await Promise.resolve();
    const name = `model=${entry.model.name} backend=${entry.backend} worker=${id}`;
    const error = await entry.worker.run({
      onReady: (loadMs) => {
        const ms = Math.round(loadMs);
        log.info(`runtime: worker ready ${name} pid=${entry.worker.pid} ms=${ms}`);
        this.#scheduler.onReady(id, this.#clock.now(), loadMs);
        this.#noteIdle();
      },
      onProgress: (event) => this.#tell(entry, event),
    });
    if (error.code !== "shutting_down")
      log.warn(`runtime: worker failed ${name} reason=${error.message}`);
    else log.info(`runtime: worker stopped ${name}`);
    this.#entries.delete(id);
    this.#scheduler.onExited(id, error, this.#clock.now());
    this.#noteIdle();
  }

  #tell(entry: Entry, event: ProgressEvent | WarningEvent): void {
    entry.progress = event;
    for (const { key, request } of this.#waiters.values()) {
      if (key === entry.key) tell(request, event);
    }
  }

  #stopWorker(id: number, reason: StopReason): void {
    const entry = this.#entries.get(id);
    log.info(
      `runtime: worker told to stop model=${entry?.model.name} worker=${id} reason=${reason}`,
    );
    entry?.worker.stop();
  }

  #grant(ticketId: number, workerId: number): void {
    const waiter = this.#takeWaiter(ticketId);
    const entry = this.#entries.get(workerId);
    if (waiter === undefined || entry === undefined) return;
    entry.wasUsed = true;
    const lease = createLease(
      {
        socket: entry.socket,
        backend: entry.backend,
        modelId: entry.model.id,
        modelName: entry.model.name,
        workerId,
        failure: () => entry.worker.failure(),
      },
      () => {
        this.#scheduler.onReleased(workerId, this.#clock.now());
        this.#noteIdle();
      },
    );
    waiter.resolve(lease);
  }

  #setDeadline(atMs: number | undefined): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    if (atMs === undefined) return;
    const delayMs = Math.min(Math.max(0, Math.ceil(atMs - this.#clock.now())), MAX_TIMER_MS);
    this.#timer = this.#clock.setTimer(delayMs, () => {
      this.#scheduler.onDeadline(this.#clock.now());
      this.#noteIdle();
    });
  }

  async #close(graceMs: number): Promise<void> {
    this.#scheduler.onShutdown(this.#clock.now());
    this.#noteIdle();
    const gone = Promise.all([...this.#entries.values()].map((entry) => entry.gone));
    if (await settlesWithin(gone, graceMs)) return;
    this.#scheduler.onForcedShutdown(this.#clock.now());
    await gone;
  }

  #freeSlot(): number {
    const taken = new Set(this.#entries.values().map(({ slot }) => slot));
    let slot = 1;
    while (taken.has(slot)) slot += 1;
    return slot;
  }

  #noteIdle(): void {
    const { busy } = this;
    if (busy === this.#wasBusy) return;
    this.#wasBusy = busy;
    for (const listener of this.#idleListeners) listener(!busy);
  }
}

function matches({ all, backend, models }: UnloadFilter, entry: Entry): boolean {
  if (all === true) return true;
  if (backend === undefined && models === undefined) return false;
  if (backend !== undefined && backend !== entry.backend) return false;
  return models === undefined || models.includes(entry.model.id);
}

/** A load belongs to nobody: a caller that fails to listen must not break it. */
function tell({ onProgress }: AcquireRequest, event: ProgressEvent | WarningEvent): void {
  try {
    onProgress?.(event);
  } catch (thrown) {
    log.debug(`runtime: progress not taken reason=${String(thrown)}`);
  }
}

function throwIfGone(request: AcquireRequest): void {
  if (request.signal.aborted) throw cancelled(request);
}

function cancelled({ model, signal }: AcquireRequest): AppError {
  return new AppError("cancelled", `cannot run \`${model.name}\`: the request was cancelled`, {
    cause: signal.reason,
  });
}

function waitingForRoom({ model }: AcquireRequest): ProgressEvent {
  return {
    type: "progress",
    id: model.name,
    phase: "waiting",
    done_bytes: null,
    total_bytes: null,
  };
}
