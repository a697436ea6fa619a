/** One engine process serving one model, from nothing to gone. Knows no queue and no other worker. */
import { mkdir, rm } from "node:fs/promises";
import { dirname } from "node:path";

import type { SettingMismatch } from "../api/settings.ts";
import { AppError, toAppError } from "../errors.ts";
import { log } from "../log.ts";
import type { WorkerRecord } from "../state/worker-records.ts";
import type {
  Backend,
  Bundle,
  EngineReport,
  ExitFacts,
  Installation,
  RunnableModel,
  StartedRun,
} from "./backend.ts";
import { compiledDirectory } from "./compiled-cache.ts";
import type { EngineAddress } from "./engine-address.ts";
import { askEngine } from "./engine-ask.ts";
import { assertFilesExist } from "./engine-files.ts";
import { findEngineProcess } from "./engine-process.ts";
import { toArgsInput } from "./engine-input.ts";
import { engineView } from "./engine-view.ts";
import { LogFile } from "./log-file.ts";
import { findMismatches, type Wanted } from "./mismatches.ts";
import type { WorkerPlan } from "./planner.ts";
import { readStartTime } from "./process-identity.ts";
import { type EngineProcess, settlesWithin, type Spawn, type SpawnOptions } from "./process.ts";
import { waitUntilReady } from "./readiness.ts";
import { assertAnswering } from "./remote-devices.ts";
import { CONTAINER, type Sandbox, type SandboxName, type SandboxView } from "./sandbox/sandbox.ts";
import { unlessAborted } from "./unless-aborted.ts";
import { exitError, stalledError, stoppedError, unwrapExit } from "./worker-errors.ts";

/** The shape of the API's progress events, which the runtime may not import. */
export interface ProgressEvent {
  readonly type: "progress";
  readonly id: string;
  readonly phase: string;
  readonly done_bytes: number | null;
  readonly total_bytes: number | null;
  /** While it waits for room: its place in line, from 1. */
  readonly position?: number | undefined;
  /** While it waits for room: what is in memory, by name. */
  readonly waiting_for?: string | undefined;
}

export interface WarningEvent {
  readonly type: "warning";
  readonly message: string;
}

export type ProgressListener = (event: ProgressEvent | WarningEvent) => void;

/** What the runtime needs of the installer. */
export interface EngineInstaller {
  ensure(
    backend: string,
    options: {
      readonly signal: AbortSignal;
      readonly onProgress: ProgressListener;
      readonly onWarning?: (message: string) => void;
    },
  ): Promise<Installation>;
  active(backend: string): Promise<Installation | undefined>;
}

/** Processes of this runner, on disk, so that the next runner can end what is left of them. */
export interface PidStore {
  add(record: WorkerRecord): void;
  remove(pid: number): void;
  list(): readonly WorkerRecord[];
}

export interface WorkerRequest {
  readonly backend: Backend;
  readonly plan: WorkerPlan;
  /** Its directory is the worker's own: made private, and removed with all that is in it. */
  readonly socket: string;
  /** Of 127.0.0.1, where its engine listens instead. */
  readonly port?: number | undefined;
  readonly logFile: string;
}

export interface WorkerDeps {
  readonly installer: Pick<EngineInstaller, "ensure">;
  readonly pidStore: PidStore;
  readonly spawn: Spawn;
  readonly cores: number;
  /** Asked for when an engine is about to start: finding out what works here takes time. */
  readonly sandbox?: (() => Promise<Sandbox>) | undefined;
  /** Loading without any sign of progress for this long is given up. */
  readonly stallMs: number;
  /** From SIGTERM to SIGKILL. */
  readonly graceMs: number;
}

/** A worker that has just become able to serve. */
export interface Readied {
  /** From the spawn of the process. */
  readonly loadMs: number;
  /** Undefined if the engine tells nothing. */
  readonly report: EngineReport | undefined;
  readonly mismatches: readonly SettingMismatch[];
}

export interface WorkerEvents {
  onReady(readied: Readied): void;
  onProgress: ProgressListener;
}

/** A broken connection reaches its caller before the exit of the process does. */
const FAILURE_WAIT_MS = 1000;
/** Of `sun_path`, its final zero left out. @see unix(7); sys/un.h of macOS */
const MAX_SOCKET_BYTES = process.platform === "darwin" ? 103 : 107;

export class Worker {
  readonly #request: WorkerRequest;
  readonly #deps: WorkerDeps;
  readonly #stop = new AbortController();
  readonly #end = Promise.withResolvers<AppError>();
  #engine: EngineProcess | undefined;
  #sandboxName: SandboxName | undefined;
  #foundPid: number | null = null;
  #lastOutputMs = 0;
  #isReady = false;
  #hasEnded = false;
  /** Why it was killed, if it was. */
  #verdict: AppError | undefined;

  constructor(request: WorkerRequest, deps: WorkerDeps) {
    this.#request = request;
    this.#deps = deps;
  }

  get pid(): number | null {
    return this.#engine?.pid ?? null;
  }

  /** Of the process whose memory counts; null before there is one, or where nobody can tell. */
  get measuredPid(): number | null {
    return this.#request.backend.findProcess === undefined ? this.pid : this.#foundPid;
  }

  /** What confines its process; undefined before there is one. */
  get sandbox(): SandboxName | undefined {
    return this.#sandboxName;
  }

  /** It cannot serve any more: its process has ended, or was killed. */
  get isLost(): boolean {
    return this.#hasEnded || this.#verdict !== undefined;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** It was told to end. */
  get isLeaving(): boolean {
    return this.#stop.signal.aborted;
  }

  /**
   * The whole life: installs the engine if need be, starts it, reports readiness, waits for its end, and gives back
   * all it held. Call it once. Never rejects.
   *
   * @returns why it ended; `shutting_down` if `stop` was called, insufficient_memory if memory ran out
   */
  async run(events: WorkerEvents): Promise<AppError> {
    try {
      await using held = new AsyncDisposableStack();
      const facts = await this.#live(held, events);
      this.#conclude(() => exitError(this.#names(), this.#unwrapped(facts), this.#isReady));
    } catch (thrown) {
      this.#conclude(() => toAppError(thrown));
    }
    return this.#end.promise;
  }

  /** Asks it to end, in whatever state it is; `run` resolves when it has. Idempotent. */
  stop(): void {
    this.#stop.abort();
    void this.#engine?.terminate();
  }

  /** Ends it at once, for that reason. */
  kill(reason: AppError): void {
    if (this.#hasEnded) return;
    this.#verdict ??= reason;
    this.#stop.abort();
    this.#engine?.kill();
  }

  /** Why it died, or undefined if it has not died within a second. */
  async failure(): Promise<AppError | undefined> {
    const hasEnded = await settlesWithin(this.#end.promise, FAILURE_WAIT_MS);
    return hasEnded ? this.#end.promise : undefined;
  }

  // --- internal ---

  get #address(): EngineAddress {
    return this.#request.port ?? this.#request.socket;
  }

  #conclude(explain: () => AppError): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const { name } = this.#request.plan.model;
    const wasStopped = this.#stop.signal.aborted;
    this.#end.resolve(this.#verdict ?? (wasStopped ? stoppedError(name) : explain()));
  }

  #names() {
    const { backend, plan, logFile } = this.#request;
    return { modelName: plan.model.name, backend, logFile };
  }

  #unwrapped(facts: ExitFacts): ExitFacts {
    const { remotes } = this.#request.plan.settings;
    const told = remotes === undefined ? facts : { ...facts, remotes };
    return this.#sandboxName === "bubblewrap" ? unwrapExit(told) : told;
  }

  async #live(held: AsyncDisposableStack, events: WorkerEvents): Promise<ExitFacts> {
    const { backend, plan, socket, port } = this.#request;
    const { model } = plan;
    const { signal } = this.#stop;
    const { onProgress } = events;
    const onWarning = (message: string): void => onProgress({ type: "warning", message });
    const told = { signal, onProgress, onWarning };
    const installing = this.#deps.installer.ensure(backend.name, told);
    const installation = await unlessAborted(installing, signal);
    onProgress(loading(model));
    const bundle = await this.#open(held, model);
    const draft = plan.draft === undefined ? undefined : await this.#open(held, plan.draft);
    const bundles = draft === undefined ? [bundle] : [bundle, draft];
    const { cores } = this.#deps;
    const { platform } = process;
    const keepsCompiled = backend.keepsCompiled === true;
    const cacheDirectory = keepsCompiled ? compiledDirectory(installation, plan) : undefined;
    const facts = { bundle, draft, installation, socket, port, cores, platform, cacheDirectory };
    const input = toArgsInput(plan, facts);
    const { settings } = input;
    const files = { installation, bundles, settings };
    await assertFilesExist({ modelName: model.name, ...files });
    await assertAnswering(model.name, settings.remotes, signal);
    const { args, env } = backend.args(input);
    const isContained = backend.confinedBy === "container";
    const sandbox = isContained ? CONTAINER : await this.#deps.sandbox?.();
    await makeSocketDirectory(held, socket);
    if (cacheDirectory !== undefined) await mkdir(cacheDirectory, { recursive: true });
    const joinsCluster = plan.cluster !== undefined;
    const command = [...installation.command, ...args];
    const confined = sandbox && {
      sandbox,
      view: {
        ...(await engineView({ ...files, socket, env, cacheDirectory, joinsCluster })),
        sharesNetwork: port !== undefined,
        reachesOthers: joinsCluster || settings.remotes !== undefined,
        startsIn: backend.startsIn,
      },
    };
    signal.throwIfAborted();
    const engine = this.#spawn(held, { command, env }, confined);
    const run = { installation, socket, port };
    await this.#untilReady(engine, events, { settings, modelPath: bundle.model, run });
    return engine.exited;
  }

  async #open(held: AsyncDisposableStack, model: RunnableModel): Promise<Bundle> {
    const { signal } = this.#stop;
    const opening = model.openBundle(signal);
    return held.use(await unlessAborted(opening, signal, (late) => late[Symbol.asyncDispose]()));
  }

  #spawn(
    held: AsyncDisposableStack,
    { command, env }: Pick<SpawnOptions, "command" | "env">,
    confined: { readonly sandbox: Sandbox; readonly view: SandboxView } | undefined,
  ): EngineProcess {
    const { backend, plan, socket, logFile } = this.#request;
    const { sandbox, view } = confined ?? {};
    this.#sandboxName = sandbox?.name ?? "none";
    const output = held.use(new LogFile(logFile));
    const engine = this.#deps.spawn({
      command: view === undefined ? command : (sandbox?.wrap(command, view) ?? command),
      env,
      sandbox,
      directory: backend.startsIn ?? dirname(socket),
      graceMs: this.#deps.graceMs,
      onOutput: (chunk) => {
        this.#lastOutputMs = performance.now();
        return output.write(chunk);
      },
    });
    this.#engine = engine;
    const { id: model_id, name: model } = plan.model;
    void output.begin({ model, model_id, backend: backend.name, pid: engine.pid });
    held.defer(() => engine.terminate());
    this.#record(held, engine.pid);
    log.debug(`runtime: engine spawned pid=${engine.pid} argv=${JSON.stringify(command)}`);
    return engine;
  }

  /** The record is for the case that the process outlives this one, which is rare: without it a worker still works. */
  #record(held: AsyncDisposableStack, pid: number): void {
    const { pidStore } = this.#deps;
    try {
      const startTime = readStartTime(pid);
      if (startTime !== undefined) pidStore.add({ pid, startTime });
    } catch (thrown) {
      log.warn(`runtime: worker not recorded pid=${pid} reason=${toAppError(thrown).message}`);
    }
    held.defer(() => {
      try {
        pidStore.remove(pid);
      } catch (thrown) {
        log.debug(`runtime: record kept pid=${pid} reason=${toAppError(thrown).message}`);
      }
    });
  }

  async #untilReady(
    engine: EngineProcess,
    events: WorkerEvents,
    wanted: Wanted & { readonly run: StartedRun },
  ): Promise<void> {
    const { backend } = this.#request;
    const { readyBoundMs: boundMs } = backend;
    // Who says how long it may take knows that it may be silent.
    const stallMs = boundMs ?? this.#deps.stallMs;
    const { signal } = this.#stop;
    const spawnedMs = performance.now();
    const { outcome, answer } = await waitUntilReady({
      address: this.#address,
      path: backend.readinessPath,
      exited: engine.exited,
      lastOutputMs: () => this.#lastOutputMs,
      stallMs,
      boundMs,
      signal,
    });
    if (outcome === "exited") return;
    if (outcome !== "ready") throw stalledError(this.#names(), { stallMs, boundMs, answer });
    const loadMs = performance.now() - spawnedMs;
    const report = await this.#report();
    this.#foundPid = await findEngineProcess(backend, wanted.run, signal);
    signal.throwIfAborted();
    this.#isReady = true;
    const mismatches = report === undefined ? [] : findMismatches(wanted, report);
    events.onReady({ loadMs, report, mismatches });
  }

  /** Asked before the first request, so that nobody is served under settings that nobody has checked. */
  async #report(): Promise<EngineReport | undefined> {
    const { backend, plan } = this.#request;
    const { signal } = this.#stop;
    try {
      return await backend.report?.((path) => askEngine(this.#address, path, { signal }));
    } catch (thrown) {
      if (!signal.aborted) {
        const { message } = toAppError(thrown);
        log.warn(`runtime: settings not read back model=${plan.model.name} reason=${message}`);
      }
      return undefined;
    }
  }
}

// --- internal ---

function loading(model: RunnableModel): ProgressEvent {
  const total_bytes = model.weightBytes;
  return { type: "progress", id: model.name, phase: "loading", done_bytes: null, total_bytes };
}

/** What a killed runner left there is in the way: an engine refuses to listen where a file is. */
async function makeSocketDirectory(held: AsyncDisposableStack, socket: string): Promise<void> {
  if (Buffer.byteLength(socket) > MAX_SOCKET_BYTES) {
    const reason = `its path is longer than ${MAX_SOCKET_BYTES} bytes`;
    throw new AppError("usage", `cannot listen on \`${socket}\`: ${reason}`, {
      hint: "Set TUG_HOME to a directory with a shorter path.",
    });
  }
  const directory = dirname(socket);
  const remove = (): Promise<void> => rm(directory, { recursive: true, force: true });
  await remove();
  held.defer(remove);
  await mkdir(directory, { recursive: true, mode: 0o700 });
}
