/** One engine process serving one model, from nothing to gone. Knows no queue and no other worker. */
import { access, constants, mkdir, rm } from "node:fs/promises";
import { dirname } from "node:path";

import { AppError, toAppError } from "../errors.ts";
import { log } from "../log.ts";
import type {
  Backend,
  Bundle,
  ExitFacts,
  Installation,
  Mode,
  RunnableModel,
  WorkerSettings,
} from "./backend.ts";
import { LogFile } from "./log-file.ts";
import { readStartTime } from "./process-identity.ts";
import { type EngineProcess, settlesWithin, type Spawn } from "./process.ts";
import { waitUntilReady } from "./readiness.ts";
import type { WorkerRecord } from "./worker-records.ts";

/** The shape of the API's progress events, which the runtime may not import. */
export interface ProgressEvent {
  readonly type: "progress";
  readonly id: string;
  readonly phase: string;
  readonly done_bytes: number | null;
  readonly total_bytes: number | null;
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
    options: { readonly signal: AbortSignal; readonly onProgress: ProgressListener },
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
  readonly model: RunnableModel;
  readonly mode: Mode;
  readonly settings: WorkerSettings;
  /** Must not be in use; its directory is made private. */
  readonly socket: string;
  readonly logFile: string;
}

export interface WorkerDeps {
  readonly installer: Pick<EngineInstaller, "ensure">;
  readonly pidStore: PidStore;
  readonly spawn: Spawn;
  readonly cores: number;
  /** Loading without any sign of progress for this long is given up. */
  readonly stallMs: number;
  /** From SIGTERM to SIGKILL. */
  readonly graceMs: number;
}

export interface WorkerEvents {
  /** @param loadMs from the spawn of the process */
  onReady(loadMs: number): void;
  onProgress: ProgressListener;
}

/** A broken connection reaches its caller before the exit of the process does. */
const FAILURE_WAIT_MS = 1000;

export class Worker {
  readonly #request: WorkerRequest;
  readonly #deps: WorkerDeps;
  readonly #stop = new AbortController();
  readonly #end = Promise.withResolvers<AppError>();
  #engine: EngineProcess | undefined;
  #lastOutputMs = 0;
  #isReady = false;

  constructor(request: WorkerRequest, deps: WorkerDeps) {
    this.#request = request;
    this.#deps = deps;
  }

  get pid(): number | null {
    return this.#engine?.pid ?? null;
  }

  /**
   * The whole life: installs the engine if need be, starts it, reports readiness, waits for its end, and gives back
   * all it held. Call it once. Never rejects.
   *
   * @returns why it ended; `shutting_down` if `stop` was called
   */
  async run(events: WorkerEvents): Promise<AppError> {
    try {
      await using held = new AsyncDisposableStack();
      const facts = await this.#live(held, events);
      this.#end.resolve(this.#stop.signal.aborted ? this.#stopped() : this.#explain(facts));
    } catch (thrown) {
      this.#end.resolve(this.#stop.signal.aborted ? this.#stopped() : toAppError(thrown));
    }
    return this.#end.promise;
  }

  /** Asks it to end, in whatever state it is; `run` resolves when it has. Idempotent. */
  stop(): void {
    this.#stop.abort();
    void this.#engine?.terminate();
  }

  /** Why it died, or undefined if it has not died within a second. */
  async failure(): Promise<AppError | undefined> {
    const hasEnded = await settlesWithin(this.#end.promise, FAILURE_WAIT_MS);
    return hasEnded ? this.#end.promise : undefined;
  }

  // --- internal ---

  async #live(held: AsyncDisposableStack, events: WorkerEvents): Promise<ExitFacts> {
    const { backend, model, mode, settings, socket } = this.#request;
    const { signal } = this.#stop;
    const { onProgress } = events;
    const installing = this.#deps.installer.ensure(backend.name, { signal, onProgress });
    const installation = await unlessAborted(installing, signal);
    onProgress(loading(model));
    const opening = model.openBundle(signal);
    const bundle: Bundle = held.use(
      await unlessAborted(opening, signal, (late) => late[Symbol.asyncDispose]()),
    );
    await assertExecutable(installation, model);
    const { cores } = this.#deps;
    const { platform } = process;
    const input = { bundle, mode, settings, alias: model.name, socket, cores, platform };
    const { args, env } = backend.args(input);
    await mkdir(dirname(socket), { recursive: true, mode: 0o700 });
    // An engine refuses to listen where a file is.
    await rm(socket, { force: true });
    held.defer(() => rm(socket, { force: true }));
    signal.throwIfAborted();
    const engine = this.#spawn(held, [...installation.command, ...args], env);
    await this.#untilReady(engine, events);
    return engine.exited;
  }

  #spawn(
    held: AsyncDisposableStack,
    command: readonly string[],
    env: Readonly<Record<string, string>>,
  ): EngineProcess {
    const { socket, logFile } = this.#request;
    const output = held.use(new LogFile(logFile));
    const engine = this.#deps.spawn({
      command,
      env,
      directory: dirname(socket),
      graceMs: this.#deps.graceMs,
      onOutput: (chunk) => {
        this.#lastOutputMs = performance.now();
        return output.write(chunk);
      },
    });
    this.#engine = engine;
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

  async #untilReady(engine: EngineProcess, events: WorkerEvents): Promise<void> {
    const { backend, model, socket, logFile } = this.#request;
    const { stallMs } = this.#deps;
    const spawnedMs = performance.now();
    const readiness = await waitUntilReady({
      socket,
      path: backend.readinessPath,
      exited: engine.exited,
      lastOutputMs: () => this.#lastOutputMs,
      stallMs,
      signal: this.#stop.signal,
    });
    if (readiness === "stalled") {
      const reason = `${backend.name} made no progress for ${stallMs / 1000} s`;
      throw new AppError("worker_failed", `cannot load \`${model.name}\`: ${reason}`, {
        hint: `Read the engine's log: ${logFile}.`,
        details: { backend: backend.name, stall_ms: stallMs, log_file: logFile },
      });
    }
    if (readiness === "exited") return;
    this.#isReady = true;
    events.onReady(performance.now() - spawnedMs);
  }

  #explain(facts: ExitFacts): AppError {
    const { backend, model, logFile } = this.#request;
    const { reason, hint } = backend.explainExit(facts);
    const verb = this.#isReady ? "serve" : "load";
    return new AppError("worker_failed", `cannot ${verb} \`${model.name}\`: ${reason}`, {
      hint: hint ?? `Read the engine's log: ${logFile}.`,
      details: {
        backend: backend.name,
        exit_code: facts.exitCode,
        signal: facts.signal,
        log_file: logFile,
      },
    });
  }

  #stopped(): AppError {
    const { name } = this.#request.model;
    return new AppError("shutting_down", `cannot serve \`${name}\`: its worker was stopped`, {
      hint: "Try again: the model is loaded again when it is asked for.",
    });
  }
}

/**
 * Stops waiting when the signal aborts, even if the one that works does not listen to it.
 *
 * @param giveBack what to do with a result that comes too late
 */
async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal,
  giveBack: (late: T) => unknown = () => undefined,
): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => {
    work.then(giveBack).catch((thrown: unknown) => {
      log.debug(`runtime: late result lost reason=${String(thrown)}`);
    });
    reject(signal.reason);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    if (signal.aborted) onAbort();
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function loading(model: RunnableModel): ProgressEvent {
  const total_bytes = model.weightBytes;
  return { type: "progress", id: model.name, phase: "loading", done_bytes: null, total_bytes };
}

async function assertExecutable(installation: Installation, model: RunnableModel): Promise<void> {
  const [program = ""] = installation.command;
  try {
    await access(program, constants.X_OK);
  } catch (cause) {
    const reason = `${installation.backend}'s program \`${program}\` cannot be executed`;
    throw new AppError("worker_failed", `cannot load \`${model.name}\`: ${reason}`, {
      hint: "Install the engine again with `tug install-runner`.",
      cause,
    });
  }
}
