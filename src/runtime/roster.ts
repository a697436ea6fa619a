/** The workers there are: starts them, follows their lives, tells of them. Decides nothing. */
import { existsSync } from "node:fs";
import { join } from "node:path";

import type { SettingMismatch } from "../api/settings.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Backend, EngineReport } from "./backend.ts";
import type { Clock } from "./clock.ts";
import { type EngineAddress, takeFreePort } from "./engine-address.ts";
import { probeEngine } from "./engine-ask.ts";
import type { LoadReason, RuntimeEvents, WorkerFacts } from "./events.ts";
import type { MeasuredWorker, MemoryRecord } from "./memory-record.ts";
import { DEFAULT_PARALLEL } from "./plan-worker.ts";
import type { WorkerPlan } from "./planner.ts";
import { spawnEngine } from "./process.ts";
import type { SchedulerWorker } from "./scheduler-worker.ts";
import { loadedBytes, toSnapshot, type WorkerSnapshot } from "./snapshot.ts";
import type { SupervisorDeps, SupervisorLimits } from "./supervisor-deps.ts";
import { socketGoneError, unresponsiveError } from "./worker-errors.ts";
import { Turns } from "./turns.ts";
import { type ProgressEvent, type Readied, type WarningEvent, Worker } from "./worker.ts";

/** Reading a model from a slow disk may be silent for minutes: so many times what one that serves may be. */
const STALL_FACTOR = 5;
/** Without a byte for this long an engine that owes an answer is asked after its health. */
export const SILENCE_MS = 60_000;
const STOP_GRACE_MS = 10_000;
/** A dead graphics driver takes seconds to say so; an engine that is only busy answers within milliseconds. */
const HEALTH_MS = 10_000;
/** A caller waits for it, and a wrong "no" costs no more than loading again. */
const WAKE_HEALTH_MS = 2000;
/** How often somebody who waits for a load sees it move. */
const PROGRESS_MS = 500;

export class Entry implements MeasuredWorker {
  readonly id: number;
  readonly key: string;
  readonly plan: WorkerPlan;
  readonly backend: Backend;
  /** Where its engine listens. */
  readonly address: EngineAddress;
  readonly logFile: string;
  /** Its log file is `worker-<slot>.log`: numbers are used again, so the files stay few. */
  readonly slot: number;
  readonly worker: Worker;
  /** Of its engine's slots. */
  readonly turns: Turns;
  /** Resolves when it has gone and the scheduler knows. */
  gone: Promise<void> = Promise.resolve();
  isReady = false;
  wasUsed = false;
  /** It was told to sleep, and has not been woken since. */
  isAsleep = false;
  /** Its peak counts weights twice, where they were and where they slept: it says nothing of the next worker. */
  hasSlept = false;
  /** The machine slept since it was last heard of. */
  isSuspect = false;
  progress: ProgressEvent | WarningEvent | undefined;
  report: EngineReport | undefined;
  mismatches: readonly SettingMismatch[] = [];
  /** When its memory was measured after a request, on the runtime's clock. */
  sampledMs = -Infinity;
  progressTimer: Disposable | undefined;
  /** The question after its health that is under way. */
  check: Promise<void> | undefined;

  constructor(
    facts: Pick<
      Entry,
      "id" | "key" | "plan" | "backend" | "address" | "slot" | "logFile" | "worker"
    >,
  ) {
    this.id = facts.id;
    this.key = facts.key;
    this.plan = facts.plan;
    this.backend = facts.backend;
    this.address = facts.address;
    this.slot = facts.slot;
    this.logFile = facts.logFile;
    this.worker = facts.worker;
    this.turns = new Turns(facts.plan.settings.parallel ?? DEFAULT_PARALLEL);
  }

  get pid(): number | null {
    return this.worker.pid;
  }

  get measuredPid(): number | null {
    return this.worker.measuredPid;
  }

  get names() {
    return { modelName: this.plan.model.name, backend: this.backend, logFile: this.logFile };
  }

  get facts(): WorkerFacts {
    const { backend, model, mode } = this.plan;
    return { workerId: this.id, backend, modelName: model.name, modelId: model.id, mode };
  }
}

export interface RosterEvents {
  onReady(entry: Entry, loadMs: number): void;
  onExited(entry: Entry, error: AppError): void;
  /** For whoever waits for that worker. */
  onProgress(entry: Entry, event: ProgressEvent | WarningEvent): void;
}

export interface StartOptions {
  readonly id: number;
  readonly key: string;
  readonly plan: WorkerPlan;
  readonly reason: LoadReason;
}

export interface RosterOptions {
  readonly deps: SupervisorDeps;
  readonly clock: Clock;
  readonly memory: MemoryRecord;
  readonly events: RuntimeEvents;
  readonly on: RosterEvents;
}

export class Roster {
  readonly #options: RosterOptions;
  readonly #limits: SupervisorLimits;
  readonly #entries = new Map<number, Entry>();
  /** Engines of which was told that they share the network. */
  readonly #sharing = new Set<string>();

  constructor(options: RosterOptions) {
    this.#options = options;
    this.#limits = options.deps.limits;
  }

  get size(): number {
    return this.#entries.size;
  }

  get all(): readonly Entry[] {
    return [...this.#entries.values()];
  }

  get(id: number): Entry | undefined {
    return this.#entries.get(id);
  }

  /** The newest: one that leaves may still be there beside it. */
  withKey(key: string): Entry | undefined {
    let found: Entry | undefined;
    for (const entry of this.#entries.values()) if (entry.key === key) found = entry;
    return found;
  }

  /** @throws backend_not_found */
  backend(name: string): Backend {
    const backend = this.#options.deps.backends.find((one) => one.name === name);
    if (backend !== undefined) return backend;
    const hint = "Update Tug, or unset the backend.";
    throw new AppError(
      "backend_not_found",
      `cannot use backend \`${name}\`: there is none of that name`,
      { hint },
    );
  }

  start({ id, key, plan, reason }: StartOptions): void {
    const { deps, events, clock } = this.#options;
    const backend = this.backend(plan.backend);
    // The number is never used twice: a caller whose engine died must not reach another one at the same path. Short
    // names, because the whole path has about a hundred bytes.
    const socket = join(deps.runDirectory, `w${id}`, "e.sock");
    const port = backend.listensOn === "port" ? this.#takePort(backend) : undefined;
    const address = port ?? socket;
    const slot = this.#freeSlot();
    const logFile = join(deps.logDirectory, `worker-${slot}.log`);
    const { installer, pidStore, cores, sandbox, spawn = spawnEngine } = deps;
    const { silenceMs = SILENCE_MS } = this.#limits;
    const { stallMs = STALL_FACTOR * silenceMs, stopGraceMs: graceMs = STOP_GRACE_MS } =
      this.#limits;
    const worker = new Worker(
      { backend, plan, socket, port, logFile },
      { installer, pidStore, spawn, cores, sandbox, stallMs, graceMs },
    );
    const entry = new Entry({ id, key, plan, backend, address, slot, logFile, worker });
    this.#entries.set(id, entry);
    events.emit({ kind: "loading", atMs: clock.now(), worker: entry.facts, reason });
    entry.gone = this.#run(entry);
  }

  /** What its process holds now; undefined where nobody measures. */
  residentBytes(entry: Entry): number | undefined {
    return this.#options.memory.residentBytes(entry.measuredPid);
  }

  /** What the world may see of a worker; undefined if it has gone. */
  snapshot(worker: SchedulerWorker): WorkerSnapshot | undefined {
    const entry = this.#entries.get(worker.id);
    if (entry === undefined) return undefined;
    const { plan, pid, wasUsed, mismatches, report, progress, address } = entry;
    const { sandbox } = entry.worker;
    const residentBytes = this.residentBytes(entry);
    const at = { pid, address, sandbox, residentBytes };
    return toSnapshot(worker, { plan, wasUsed, mismatches, report, progress, ...at });
  }

  /** Follows a load for somebody who waits for it, until `isWanted` says that nobody does any more. */
  followLoad(entry: Entry, isWanted: () => boolean): void {
    if (entry.isReady || entry.progressTimer !== undefined || !isWanted()) return;
    entry.progressTimer = this.#options.clock.setTimer(PROGRESS_MS, () => {
      entry.progressTimer = undefined;
      if (entry.isReady || entry.worker.hasEnded) return;
      this.#tellLoaded(entry);
      this.followLoad(entry, isWanted);
    });
  }

  /** As far as is known without asking it: its socket is there, and the machine has not slept since. */
  isReachable({ address, isSuspect }: Entry): boolean {
    return !isSuspect && isThere(address);
  }

  /** Asks a worker that may not be reachable. One that is not is ended, and has gone when it resolves. */
  ensureReachable(entry: Entry): Promise<void> {
    return (entry.check ??= this.#check(entry));
  }

  /** Whether it answers a question after its health in time, whatever it answers. */
  async isResponsive(
    entry: Entry,
    timeoutMs = this.#limits.healthMs ?? HEALTH_MS,
  ): Promise<boolean> {
    const status = await probeEngine(entry.address, entry.backend.readinessPath, { timeoutMs });
    return status !== undefined;
  }

  /** Why a broken connection broke; an engine that lives without its socket is of use to nobody. */
  async failure(entry: Entry): Promise<AppError | undefined> {
    const failure = await entry.worker.failure();
    if (failure !== undefined || isThere(entry.address)) return failure;
    entry.worker.kill(socketGoneError(entry));
    return entry.worker.failure();
  }

  // --- internal ---

  async #run(entry: Entry): Promise<void> {
    // The scheduler is in the middle of an event: nothing of ours may reach a listener before it is done.
    await Promise.resolve();
    const { events, clock, on } = this.#options;
    const error = await entry.worker.run({
      onReady: (readied) => this.#onReady(entry, readied),
      onProgress: (event) => this.#tell(entry, event),
    });
    entry.progressTimer?.[Symbol.dispose]();
    const name = nameOf(entry);
    const wasStopped = error.code === "shutting_down";
    if (wasStopped) log.info(`runtime: worker stopped ${name}`);
    else log.warn(`runtime: worker failed ${name} reason=${error.message}`);
    this.#entries.delete(entry.id);
    entry.turns.end();
    const reason = wasStopped ? {} : { code: error.code, message: error.message };
    events.emit({ kind: "exited", atMs: clock.now(), worker: entry.facts, ...reason });
    on.onExited(entry, error);
  }

  #onReady(entry: Entry, { loadMs, report, mismatches }: Readied): void {
    const { events, clock, on } = this.#options;
    entry.isReady = true;
    entry.report = report;
    entry.mismatches = mismatches;
    entry.progressTimer?.[Symbol.dispose]();
    const name = nameOf(entry);
    log.info(`runtime: worker ready ${name} pid=${entry.pid} ms=${Math.round(loadMs)}`);
    for (const { name: setting, wanted, actual } of mismatches) {
      const values = `wanted=${JSON.stringify(wanted)} actual=${JSON.stringify(actual)}`;
      log.error(`runtime: setting not applied ${name} setting=${setting} ${values}`);
    }
    events.emit({ kind: "ready", atMs: clock.now(), worker: entry.facts, loadMs });
    on.onReady(entry, loadMs);
  }

  #tell(entry: Entry, event: ProgressEvent | WarningEvent): void {
    const { events, clock, on } = this.#options;
    entry.progress = event;
    if (event.type === "progress") {
      const { phase, done_bytes: doneBytes, total_bytes: totalBytes } = event;
      const facts = { worker: entry.facts, phase, doneBytes, totalBytes };
      events.emit({ kind: "progress", atMs: clock.now(), ...facts });
    }
    on.onProgress(entry, event);
  }

  #tellLoaded(entry: Entry): void {
    const { progress } = entry;
    if (progress?.type !== "progress" || progress.phase !== "loading") return;
    const done_bytes = loadedBytes(this.residentBytes(entry), entry.plan.model.weightBytes);
    if (done_bytes !== null && done_bytes !== progress.done_bytes) {
      this.#tell(entry, { ...progress, done_bytes });
    }
  }

  async #check(entry: Entry): Promise<void> {
    const { wakeHealthMs = WAKE_HEALTH_MS } = this.#limits;
    try {
      if (!isThere(entry.address)) entry.worker.kill(socketGoneError(entry));
      else if (await this.isResponsive(entry, wakeHealthMs)) entry.isSuspect = false;
      else entry.worker.kill(unresponsiveError(entry.names));
      if (!this.isReachable(entry)) await entry.gone;
    } finally {
      entry.check = undefined;
    }
  }

  /** Told once for each engine: who configured it may not know what a port means. */
  #takePort({ name, confinedBy }: Backend): number {
    if (!this.#sharing.has(name) && confinedBy === undefined) {
      log.info(
        `runtime: engine listens on a port and shares this machine's network backend=${name}`,
      );
    }
    this.#sharing.add(name);
    return takeFreePort();
  }

  #freeSlot(): number {
    const taken = new Set(this.#entries.values().map(({ slot }) => slot));
    let slot = 1;
    while (taken.has(slot)) slot += 1;
    return slot;
  }
}

function nameOf({ id, plan }: Entry): string {
  return `model=${plan.model.name} backend=${plan.backend} worker=${id}`;
}

/** Windows does not show sockets as files to everybody, and ports are none: there only asking tells. */
function isThere(address: EngineAddress): boolean {
  return process.platform === "win32" || typeof address === "number" || existsSync(address);
}
