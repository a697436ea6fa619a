/**
 * The shell around the scheduler: owns workers, waiting callers and the one timer, performs the scheduler's effects
 * and feeds it events. It decides nothing itself.
 */
import { log } from "../log.ts";
import { BudgetSource } from "./budget-source.ts";
import { Alarm, type Clock, systemClock } from "./clock.ts";
import { type Demand, sumDemands } from "./demand.ts";
import { Departures } from "./departures.ts";
import { RuntimeEvents } from "./events.ts";
import { onLargerContext } from "./larger-context.ts";
import { createLease, type GrantedLease, inTurn, type Lease } from "./lease.ts";
import { reapLeftovers } from "./leftovers.ts";
import { MemoryRecord } from "./memory-record.ts";
import type { WorkerPlan } from "./planner.ts";
import { settlesWithin } from "./process.ts";
import { type Entry, Roster, SILENCE_MS } from "./roster.ts";
import type { StopReason } from "./scheduler-worker.ts";
import { Scheduler, type Ticket } from "./scheduler.ts";
import { watchSilence } from "./silence.ts";
import type { WorkerSnapshot } from "./snapshot.ts";
import type {
  AcquireRequest,
  SupervisorDeps,
  UnloadOutcome,
  UnloadRequest,
} from "./supervisor-deps.ts";
import { unlessAborted } from "./unless-aborted.ts";
import { type Waiter, Waiters, tellWaiter } from "./waiters.ts";
import { WarmTier } from "./warm-tier.ts";
import { cancelledError, unresponsiveError } from "./worker-errors.ts";
import { type Line, waitingForRoom } from "./waiting-for-room.ts";
import { planKey } from "./worker-key.ts";

export type * from "./supervisor-deps.ts";

/** For requests in flight when the runner is told to leave. */
const CLOSE_GRACE_MS = 10_000;
/** Memory is measured after requests, but not more often. */
const SAMPLE_MS = 1000;

export class Supervisor {
  readonly events: RuntimeEvents;
  readonly #deps: SupervisorDeps;
  readonly #clock: Clock;
  readonly #scheduler: Scheduler;
  readonly #roster: Roster;
  readonly #memory: MemoryRecord;
  readonly #budget: BudgetSource | undefined;
  readonly #waiters: Waiters;
  readonly #alarm: Alarm;
  readonly #idleListeners = new Set<(idle: boolean) => void>();
  readonly #departures: Departures;
  readonly #warmTier: WarmTier;
  #nextTicketId = 1;
  /** Callers inside `acquire`. */
  #arriving = 0;
  #wasBusy = false;
  #closing: Promise<void> | undefined;

  /** Starts nothing: no process, no timer, no file. */
  constructor(deps: SupervisorDeps) {
    const { readBudget, limits } = deps;
    this.#deps = deps;
    this.#clock = deps.clock ?? systemClock;
    this.events = deps.events ?? new RuntimeEvents();
    this.#memory = new MemoryRecord(deps);
    this.#waiters = new Waiters({ events: this.events, clock: this.#clock });
    this.#alarm = new Alarm(this.#clock, () => {
      this.#scheduler.onDeadline(this.#clock.now());
      this.#noteIdle();
    });
    this.#scheduler = new Scheduler(
      { ...limits, budget: undefined },
      {
        startWorker: (id, ticket, isRetry) => this.#startWorker(id, ticket, isRetry),
        stopWorker: (id, reason) => this.#stopWorker(id, reason),
        sleepWorker: (id) => this.#warmTier.sleep(id),
        wakeWorker: (id) => this.#warmTier.wake(id),
        grant: (ticketId, workerId) => this.#grant(ticketId, workerId),
        reject: (ticketId, error) => this.#waiters.refuse(ticketId, error),
        setDeadline: (atMs) => this.#alarm.set(atMs),
      },
    );
    this.#roster = new Roster({
      deps,
      clock: this.#clock,
      memory: this.#memory,
      events: this.events,
      on: {
        onReady: (entry, loadMs) => this.#onReady(entry, loadMs),
        onExited: (entry, error) => {
          this.#scheduler.onExited(entry.id, error, this.#clock.now());
          this.#noteIdle();
        },
        onProgress: (entry, event) => this.#waiters.tell(entry.key, event),
      },
    });
    const parts = { scheduler: this.#scheduler, roster: this.#roster, clock: this.#clock };
    this.#warmTier = new WarmTier({ ...parts, events: this.events, boundMs: limits.sleepMs });
    this.#departures = new Departures({ ...parts, waiters: this.#waiters });
    if (readBudget === undefined) return;
    this.#budget = new BudgetSource({
      read: readBudget,
      clock: this.#clock,
      onBudget: (budget) => this.#scheduler.onBudget(budget, this.#clock.now()),
    });
  }

  /** A worker exists or a caller waits. */
  get busy(): boolean {
    return this.#roster.size > 0 || this.#arriving > 0;
  }

  /** What the workers count for together. */
  get held(): Demand {
    return sumDemands(this.#scheduler.workers.map(({ demand }) => demand));
  }

  /**
   * Waits until a worker for the plan is ready: at once if it is loaded, else while it loads or while another one
   * makes room. The caller must release the lease.
   *
   * @throws cancelled, queue_full, worker_failed, insufficient_memory, backend_not_found, conflict (the model is being
   *   removed), shutting_down, and what installing the engine, its sandbox or opening the model throws
   */
  async acquire(request: AcquireRequest): Promise<Lease> {
    this.#assertWelcome(request);
    this.#arriving += 1;
    this.#noteIdle();
    try {
      const plan = onLargerContext(request.plan, this.#staying);
      const key = planKey(plan);
      const preparation = this.#prepare(key);
      if (preparation !== undefined) {
        // Its own reason says less than ours.
        await unlessAborted(preparation, request.signal).catch(() => undefined);
        this.#assertWelcome(request);
      }
      return await inTurn(await this.#enqueue({ ...request, plan }, key), request);
    } finally {
      this.#arriving -= 1;
      this.#noteIdle();
    }
  }

  list(): WorkerSnapshot[] {
    return this.#scheduler.workers.flatMap((worker) => this.#roster.snapshot(worker) ?? []);
  }

  /**
   * Idle workers have gone when it resolves. Busy ones are skipped, unless `wait` or `force` says what to do with them;
   * a worker that loads is busy if somebody waits for it.
   *
   * @throws cancelled when the signal aborts
   */
  async unload(request: UnloadRequest): Promise<UnloadOutcome> {
    return this.#departures.unload(request);
  }

  /** Pins or unpins the workers of a model that there are now. @returns how many it concerned */
  pin(modelId: string, pinned: boolean): number {
    const entries = this.#roster.all.filter(({ plan }) => plan.model.id === modelId);
    for (const { id } of entries) this.#scheduler.onPinned(id, pinned, this.#clock.now());
    return entries.length;
  }

  /**
   * For removing a model: from now on it is refused to everybody, those who wait included. Resolves when no worker uses
   * it any more, as a draft model either. Disposing the result allows it again.
   *
   * @param options.force ends what is being served, too
   * @throws cancelled when the signal aborts; the model is then allowed again
   */
  drain(
    modelId: string,
    options: { readonly signal: AbortSignal; readonly force?: boolean },
  ): Promise<Disposable> {
    return this.#departures.drain(modelId, options);
  }

  /** Ends engines that a runner before this one left behind; returns how many. Call it before the first `acquire`. */
  reapLeftovers(): Promise<number> {
    return reapLeftovers(this.#deps.pidStore, this.#deps.runDirectory);
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

  get #staying(): readonly Entry[] {
    return this.#roster.all.filter(({ id }) => this.#scheduler.isStaying(id));
  }

  #assertWelcome({ plan, signal }: AcquireRequest): void {
    if (signal.aborted) throw cancelledError(plan, signal);
    this.#departures.assertWelcome(plan);
    this.#roster.backend(plan.backend);
  }

  /**
   * What must be known before the scheduler decides; undefined if it is known: a request whose worker is ready waits
   * for nothing.
   */
  #prepare(key: string): Promise<unknown> | undefined {
    if (this.#deps.sleepDetector?.check() === true) this.#wake();
    const entry = this.#roster.withKey(key);
    if (entry === undefined) return this.#budget?.refresh();
    // The scheduler has not been told yet: it would lease what is dead.
    if (entry.worker.isLost) return entry.gone;
    if (entry.isAsleep) return this.#budget?.refresh();
    if (!entry.isReady) return undefined;
    return this.#roster.isReachable(entry) ? undefined : this.#roster.ensureReachable(entry);
  }

  /** Other programs and devices may have come and gone while the machine slept. */
  #wake(): void {
    log.info("runtime: the machine slept, devices and engines are looked at again");
    this.#budget?.expire();
    void this.#budget?.refresh();
    for (const entry of this.#roster.all) entry.isSuspect = entry.isReady;
  }

  #enqueue({ plan, signal, onProgress, reason = "request" }: AcquireRequest, key: string) {
    this.#departures.supersede(plan, key);
    const { promise, resolve, reject } = Promise.withResolvers<GrantedLease>();
    const ticketId = this.#nextTicketId++;
    const arrivedMs = this.#clock.now();
    const onAbort = (): void => {
      this.#waiters.refuse(ticketId, cancelledError(plan, signal));
      this.#scheduler.onCancelled(ticketId, this.#clock.now());
      this.#noteIdle();
    };
    const forget = (): void => signal.removeEventListener("abort", onAbort);
    signal.addEventListener("abort", onAbort, { once: true });
    const waiter = { ticketId, key, plan, reason, onProgress, arrivedMs, resolve, reject };
    this.#waiters.add(waiter);
    this.#scheduler.onRequest(this.#toTicket(waiter), arrivedMs);
    if (this.#waiters.get(ticketId) !== undefined) this.#tellWaiting(waiter);
    return promise.finally(forget);
  }

  #toTicket({ ticketId, key, plan, arrivedMs }: Waiter): Ticket {
    return {
      id: ticketId,
      key,
      modelName: plan.model.name,
      demand: plan.demand,
      advice: plan.advice,
      asleep: plan.asleep,
      keepAliveMs: this.#keepAliveFor(plan, key),
      // Unpinning is `pin`'s: a plan that was made before must not undo it. What a request wants for itself is not pinned.
      pinned: plan.pinned && plan.isUsual !== false ? true : undefined,
      arrivedMs,
    };
  }

  /** A request that names no keep-alive leaves the one that another request has named. */
  #keepAliveFor(plan: WorkerPlan, key: string): number | undefined {
    const entry = this.#roster.withKey(key);
    const isNamed = plan.explained.some(
      ({ name, source }) => name === "keep_alive" && (source === "request" || source === "flag"),
    );
    if (entry === undefined || isNamed) return plan.keepAliveMs;
    // Stored or configured anew since the worker was started, it applies at once.
    return plan.keepAliveMs === entry.plan.keepAliveMs ? undefined : plan.keepAliveMs;
  }

  /** What a caller that has to wait sees first. */
  #tellWaiting(waiter: Waiter): void {
    const entry = this.#roster.withKey(waiter.key);
    const event = entry === undefined ? waitingForRoom(this.#lineOf(waiter)) : entry.progress;
    if (event !== undefined) tellWaiter(waiter, event);
    if (entry !== undefined) this.#followLoad(entry);
  }

  #lineOf({ ticketId, plan }: Waiter): Line {
    const loaded = this.#roster.all.map((one) => one.plan.model.name);
    const queue = () => this.#scheduler.waiting;
    return { ticketId, modelName: plan.model.name, queue, loaded };
  }

  #followLoad(entry: Entry): void {
    this.#roster.followLoad(entry, () => this.#waiters.hasListener(entry.key));
  }

  #startWorker(id: number, ticket: Ticket, isRetry: boolean): void {
    const waiter = this.#waiters.get(ticket.id);
    if (waiter === undefined) return;
    const { key, plan, reason } = waiter;
    this.#roster.start({ id, key, plan, reason: isRetry ? "retry" : reason });
    const entry = this.#roster.get(id);
    if (entry !== undefined) this.#followLoad(entry);
  }

  #onReady(entry: Entry, loadMs: number): void {
    this.#sample(entry);
    this.#scheduler.onReady(entry.id, this.#clock.now(), loadMs);
    this.#noteIdle();
    void this.#memory.measureDevices(entry).then((isNew) => {
      if (isNew && !entry.worker.isLost) this.#sample(entry);
    });
  }

  #sample(entry: Entry): void {
    const demand = entry.hasSlept ? undefined : this.#memory.sample(entry);
    if (demand !== undefined) this.#scheduler.onMeasured(entry.id, demand, this.#clock.now());
  }

  #stopWorker(id: number, reason: StopReason): void {
    const entry = this.#roster.get(id);
    if (entry === undefined) return;
    const { plan } = entry;
    log.info(`runtime: worker told to stop model=${plan.model.name} worker=${id} reason=${reason}`);
    this.events.emit({ kind: "stopping", atMs: this.#clock.now(), worker: entry.facts, reason });
    // For the ledger alone: the scheduler is in the middle of an event, and its room is freed with its exit.
    if (entry.isReady && !entry.hasSlept) this.#memory.sample(entry);
    entry.worker.stop();
  }

  #grant(ticketId: number, workerId: number): void {
    const entry = this.#roster.get(workerId);
    if (entry === undefined) return;
    entry.wasUsed = true;
    this.#waiters.grant(ticketId, entry.facts, ({ plan }) => this.#lease(entry, plan));
  }

  /** @param plan of the request, which may name its own defaults */
  #lease(entry: Entry, plan: WorkerPlan): GrantedLease {
    const grantedMs = this.#clock.now();
    return createLease(
      {
        turns: entry.turns,
        address: entry.address,
        plan,
        modelName: entry.plan.model.name,
        workerId: entry.id,
        report: entry.report,
        isAlive: () => !entry.worker.hasEnded,
        failure: () => this.#roster.failure(entry),
        watch: () => this.#watch(entry),
        giveUp: (reason) => entry.worker.kill(reason),
      },
      () => this.#release(entry, grantedMs),
    );
  }

  #watch(entry: Entry) {
    return watchSilence({
      clock: this.#clock,
      silenceMs: this.#deps.limits.silenceMs ?? SILENCE_MS,
      isResponsive: () => this.#roster.isResponsive(entry),
      onUnresponsive: () => entry.worker.kill(unresponsiveError(entry.names)),
    });
  }

  #release(entry: Entry, grantedMs: number): void {
    const atMs = this.#clock.now();
    const heldMs = atMs - grantedMs;
    this.events.emit({ kind: "released", atMs, worker: entry.facts, heldMs });
    if (!entry.worker.hasEnded && atMs - entry.sampledMs >= SAMPLE_MS) {
      entry.sampledMs = atMs;
      this.#sample(entry);
    }
    this.#scheduler.onReleased(entry.id, atMs);
    this.#noteIdle();
  }

  async #close(graceMs: number): Promise<void> {
    this.#scheduler.onShutdown(this.#clock.now());
    this.#noteIdle();
    const gone = Promise.all(this.#roster.all.map((entry) => entry.gone));
    if (await settlesWithin(gone, graceMs)) return;
    this.#scheduler.onForcedShutdown(this.#clock.now());
    await gone;
  }

  #noteIdle(): void {
    const { busy } = this;
    if (busy === this.#wasBusy) return;
    this.#wasBusy = busy;
    for (const listener of this.#idleListeners) listener(!busy);
  }
}
