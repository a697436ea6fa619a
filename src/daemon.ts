/**
 * The composition root: everything that is created is created here. `openLocal` is the API without engines, for
 * commands that only touch models; `startRunner` is the runner. Modules that only the runner needs load with it.
 */
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { RunnerInfo } from "./api/engines.ts";
import { ownCommand } from "./client/own-command.ts";
import type { Config } from "./config.ts";
import { AppError } from "./errors.ts";
import { acquireLock } from "./lock.ts";
import { log } from "./log.ts";
import { builtinFile } from "./models/builtin.ts";
import { ModelDistribution } from "./models/distribution.ts";
import { inspectModel, listModels } from "./models/inspect.ts";
import type { Paths } from "./paths.ts";
import type { Installer } from "./runtime/installer/installer.ts";
import type { Supervisor } from "./runtime/supervisor.ts";
import { type App, createApp } from "./server/app.ts";
import type { RunnerControl } from "./server/deps.ts";
import { rememberResolved } from "./server/resolved-models.ts";
import type { PullJobs } from "./server/pull-jobs.ts";
import type { PullCommand } from "./server/pull-process.ts";
import { modelRoutes } from "./server/routes/models.ts";
import { registryRoutes } from "./server/routes/registries.ts";
import { Store } from "./store/store.ts";
import { VERSION } from "./version.ts";

export interface LocalOptions {
  readonly config: Config;
  readonly paths: Paths;
}

export interface RunnerOptions extends LocalOptions {
  readonly hostname: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly socket: string;
  /** Where its stderr goes, for `tug logs`; undefined for one that runs at a terminal. */
  readonly logFile?: string;
  /** Milliseconds of idleness after which it leaves; null never. */
  readonly idleExitMs: number | null;
  /** Aborting it stops the runner gracefully. */
  readonly signal: AbortSignal;
}

export interface Runner {
  info(): Promise<RunnerInfo>;
  /** Lets every client run this file by its absolute path, which else only trusted ones may. */
  allowFile(path: string): void;
  /** The API, for a caller in this process. */
  readonly app: LocalApp;
  /** Resolves when everything has stopped. */
  readonly closed: Promise<void>;
}

/** Whoever holds the lock keeps it for life; this is for two that start at the same instant and refuse each other. */
const RUNNER_LOCK_WAIT_MS = 50;

/** What a transport needs of an app. */
export interface LocalApp {
  fetch(request: Request): Response | Promise<Response>;
}

/** The API in this process, for a caller that is trusted: the user's own command. */
export function openLocal(options: LocalOptions): LocalApp {
  return asTrusted(composeApp({ ...options, files: [] }));
}

/** @returns undefined if another runner of this user holds the lock */
export async function startRunner(options: RunnerOptions): Promise<Runner | undefined> {
  const { paths } = options;
  process.umask(0o077);
  ensurePrivateDirectory(paths.run);
  mkdirSync(paths.logs, { recursive: true, mode: 0o700 });
  const lock = await takeRunnerLock(join(paths.run, "runner.lock"));
  if (lock === undefined) return undefined;
  try {
    return await run(options, lock);
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

// --- internal ---

interface Composition extends LocalOptions {
  /** Files that any client may run by their path; the runner adds to it. */
  readonly files: string[];
  readonly supervisor?: Supervisor;
  readonly runner?: RunnerControl;
  readonly installer?: Installer;
  /** The runner's; a command pulls in its own process. */
  readonly pulls?: PullJobs;
}

function composeApp(composition: Composition): App {
  const { config, paths, files, supervisor, runner, pulls } = composition;
  const store = Store.open(paths.models);
  const distribution = new ModelDistribution({ config, paths, store });
  const inUse = (modelId: string): boolean =>
    supervisor?.list().some((worker) => worker.modelId === modelId) ?? false;
  return createApp({
    store,
    models: modelRoutes({
      store,
      inUse,
      distribution,
      remotes: (overrides) => distribution.remotes(overrides),
      ...(pulls === undefined ? {} : { pulls }),
    }),
    registries: registryRoutes(distribution),
    installer: () => composition.installer ?? createInstaller(composition),
    resolve: rememberResolved(
      async (name, { trusted }) => {
        const { resolveRunnable } = await import("./models/runnable.ts");
        return resolveRunnable(store, name, { paths: trusted ? "allow" : files });
      },
      join(paths.models, "index.json"),
    ),
    listModels: () => listModels(store),
    inspectModel: (name) => inspectModel(store, name),
    version: VERSION,
    allowedOrigins: config.origins.value,
    ...(config.apiKey.value === "" ? {} : { apiKey: config.apiKey.value }),
    ...(supervisor === undefined ? {} : { runtime: supervisor }),
    ...(runner === undefined ? {} : { runner }),
  });
}

async function createInstaller({ config, paths }: LocalOptions): Promise<Installer> {
  const [{ Installer: InstallerClass }, { BACKENDS }] = await Promise.all([
    import("./runtime/installer/installer.ts"),
    import("./runtime/backends.ts"),
  ]);
  return new InstallerClass({
    directory: paths.backends,
    cacheDirectory: paths.cache,
    backends: BACKENDS,
    machine: { platform: process.platform, arch: process.arch },
    env: process.env,
    offline: config.offline.value,
    remotes: () =>
      new ModelDistribution({ config, paths, store: Store.open(paths.models) }).remotes({
        isStrict: true,
      }),
    smokeModel: () => builtinFile(paths.cache),
  });
}

async function takeRunnerLock(path: string): Promise<Disposable | undefined> {
  try {
    return await acquireLock(path, { waitMs: RUNNER_LOCK_WAIT_MS });
  } catch (error) {
    if (error instanceof AppError && error.code === "conflict") return undefined;
    throw error;
  }
}

/** Somebody else's directory could hold somebody else's socket. */
function ensurePrivateDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (process.getuid === undefined) return;
  const { uid, mode } = statSync(directory);
  if (uid === process.getuid() && (mode & 0o077) === 0) return;
  throw new AppError(
    "forbidden",
    `cannot use \`${directory}\` for the runner's socket: other users can reach it`,
    {
      hint: `Run \`chmod 700 ${directory}\` if it is yours, or set TUG_HOME to a directory of your own.`,
    },
  );
}

async function run(options: RunnerOptions, lock: Disposable): Promise<Runner> {
  const { paths, config } = options;
  const modules = await loadRunnerModules();
  const { SupervisorClass, WorkerRecords, BACKENDS, RunningRunner } = modules;
  const { listen, physicalCores, PullJobsClass, spawnPull } = modules;
  const records = new WorkerRecords(paths.database);
  const installer = await createInstaller(options);
  const supervisor = new SupervisorClass({
    backends: BACKENDS,
    installer,
    runDirectory: paths.run,
    logDirectory: paths.logs,
    pidStore: records,
    limits: {
      maxWorkers: config.maxWorkers.value,
      queueLimit: config.queueLimit.value,
      keepAliveMs: config.keepAliveMs.value,
    },
    cores: await physicalCores(),
  });
  const reaped = await supervisor.reapLeftovers();
  if (reaped > 0) log.warn(`runner: ended engines of a killed runner count=${reaped}`);
  const files: string[] = [];
  const puller = pullCommand(options);
  const pulls = new PullJobsClass({ spawn: (request) => spawnPull(puller, request) });
  const runner = new RunningRunner({
    supervisor,
    installer,
    pulls,
    ...(options.logFile === undefined ? {} : { logFile: options.logFile }),
    idleExitMs: options.idleExitMs,
  });
  const app = composeApp({ ...options, files, supervisor, installer, runner, pulls });
  const { hostname, port, socket } = options;
  runner.begin(await listen({ app, hostname, port, socket }));
  void runner.closed.finally(() => {
    records.close();
    lock[Symbol.dispose]();
  });
  options.signal.addEventListener("abort", () => runner.stop({ force: false }), { once: true });
  return {
    info: () => runner.info(),
    allowFile: (path) => void files.push(path),
    app: asTrusted(app),
    closed: runner.closed,
  };
}

/** What flags told this process, its children have to hear too. */
function pullCommand({ config, paths }: LocalOptions): PullCommand {
  const offline = config.offline.value ? { TUG_OFFLINE: "1" } : {};
  const authorities = config.caBundle.value === "" ? {} : { TUG_CA_BUNDLE: config.caBundle.value };
  return {
    command: [...ownCommand(), "__pull"],
    env: { ...process.env, MODELS_PATH: paths.models, ...offline, ...authorities },
  };
}

/** Modules that only the runner needs. */
async function loadRunnerModules() {
  const [
    { Supervisor: SupervisorClass },
    { WorkerRecords },
    { BACKENDS },
    { RunningRunner },
    { listen },
    { physicalCores },
    { PullJobs: PullJobsClass },
    { spawnPull },
  ] = await Promise.all([
    import("./runtime/supervisor.ts"),
    import("./runtime/worker-records.ts"),
    import("./runtime/backends.ts"),
    import("./server/runner.ts"),
    import("./server/listen.ts"),
    import("./runtime/hardware/index.ts"),
    import("./server/pull-jobs.ts"),
    import("./server/pull-process.ts"),
  ]);
  return {
    SupervisorClass,
    WorkerRecords,
    BACKENDS,
    RunningRunner,
    listen,
    physicalCores,
    PullJobsClass,
    spawnPull,
  };
}

function asTrusted(app: App): LocalApp {
  return { fetch: (request) => app.fetch(request, { trusted: true }) };
}
