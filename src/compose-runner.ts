/** Composition of the runner: everything that exists once in its process. Loaded by whoever becomes the runner. */
import { join } from "node:path";
import { composeApp, createInstaller, createResolve } from "./compose-app.ts";
import { asTrusted, type LocalOptions, type Runner, type RunnerOptions } from "./daemon.ts";
import type { Config } from "./config.ts";
import type { Paths } from "./paths.ts";
import { ownCommand } from "./client/own-command.ts";
import { log } from "./log.ts";
import { listModels } from "./models/inspect.ts";
import { type Planning, createPlanning } from "./planning.ts";
import type { Installer } from "./runtime/installer/installer.ts";
import type { Sandbox } from "./runtime/sandbox/sandbox.ts";
import { physicalCores } from "./runtime/hardware/index.ts";
import { createSleepDetector } from "./runtime/resume.ts";
import { rememberSandbox } from "./runtime/sandbox/index.ts";
import { Supervisor } from "./runtime/supervisor.ts";
import { isLoopback, missingKey } from "./server/access/binding.ts";
import { ImageFiles } from "./server/image-files.ts";
import { listen } from "./server/listen.ts";
import { startPreload } from "./server/preload.ts";
import { PullJobs } from "./server/pull-jobs.ts";
import { type PullCommand, spawnPull } from "./server/pull-process.ts";
import { RunningRunner } from "./server/runner.ts";
import type { TlsFiles } from "./server/tls/pair.ts";
import { createWatching, type Watching } from "./server/watch/watching.ts";
import { ApiKeys } from "./state/api-keys.ts";
import { StateDatabase } from "./state/database.ts";
import { WorkerRecords } from "./state/worker-records.ts";
import { Store } from "./store/store.ts";
import { VERSION } from "./version.ts";

/** @throws usage (a setting that cannot be understood), sandbox_unavailable */
export async function composeRunner(options: RunnerOptions, lock: Disposable): Promise<Runner> {
  const { paths, config, hostname, port, socket, signal, logFile } = options;
  // First, because a certificate that cannot be used ends the start.
  const tls = await tlsOf(options);
  const files: string[] = [];
  const state = new StateDatabase(paths.database);
  const access = openAccess(options, state);
  const store = Store.open(paths.models);
  const resolve = createResolve({ store, paths, files, config });
  const installer = await createInstaller(options);
  const base = { ...access, config, paths, state, store, resolve, installer };
  const planning: Planning = createPlanning({
    ...base,
    listModels: () => listModels(store),
    supervisor: () => supervisor,
  });
  const confinement = { mode: config.sandbox.value, platform: process.platform, env: process.env };
  const sandbox = rememberSandbox(confinement);
  if (confinement.mode === "require") await sandbox.choose();
  const supervisor: Supervisor = await createSupervisor({
    ...base,
    planning,
    sandbox: () => sandbox.choose(),
  });
  const watching = await watch({ ...base, planning, supervisor });
  const puller = pullCommand(options);
  const pulls = new PullJobs({ spawn: (request) => spawnPull(puller, request) });
  const runner = new RunningRunner({
    supervisor,
    installer,
    pulls,
    idleExitMs: options.idleExitMs,
    sandbox: () => sandbox.describe(),
  });
  const imageFiles = new ImageFiles({ directory: join(paths.run, "images") });
  const parts = {
    ...base,
    ...(logFile === undefined ? {} : { logFile }),
    files,
    supervisor,
    runner,
    pulls,
    planning,
    watching,
    nameSandbox: async () => (await sandbox.describe()).name,
    imageFiles,
  };
  const app = composeApp(parts);
  runner.begin(await listen({ app, hostname, port, socket, tls }));
  if (access.keyRequired && tls === undefined) log.warn(UNENCRYPTED);
  stopOn(signal, runner);
  const preloading = { resolve, planner: () => planning.examiner, runtime: supervisor };
  void startPreload(preloading, config.preload.value, signal);
  return {
    info: () => runner.info(),
    allowFile: (path) => void files.push(path),
    app: asTrusted(app),
    closed: closing(runner, { watching, imageFiles, state, lock }),
  };
}

// --- internal ---

const UNENCRYPTED =
  "runner: API keys and what is asked travel unencrypted beyond this machine; `--tls` or `--tls-cert` encrypts them";

/** @throws usage (others could reach it, and nobody has a key) */
function openAccess(
  { config, hostname, makesKey }: RunnerOptions,
  state: StateDatabase,
): { keys: ApiKeys; keyRequired: boolean } {
  const keys = new ApiKeys(state);
  const keyRequired = !isLoopback(hostname);
  const hasKey = (): boolean => config.apiKey.value !== "" || makesKey === true || keys.hasLive();
  if (keyRequired && !hasKey()) throw missingKey(hostname);
  return { keys, keyRequired };
}

function stopOn(signal: AbortSignal, runner: RunningRunner): void {
  const stop = (): void => runner.stop({ force: false });
  signal.addEventListener("abort", stop, { once: true });
  // Starting takes a moment, in which it may have been asked to leave.
  if (signal.aborted) stop();
}

/** Who writes down what happened goes before the database, and the lock goes last. */
async function closing(
  runner: RunningRunner,
  held: {
    readonly watching: Watching;
    readonly imageFiles: ImageFiles;
    readonly state: Disposable;
    readonly lock: Disposable;
  },
): Promise<void> {
  try {
    await runner.closed;
    await held.watching.close();
    await held.imageFiles.close();
  } finally {
    held.state[Symbol.dispose]();
    held.lock[Symbol.dispose]();
  }
}

/** Loaded only where the port speaks TLS. */
async function tlsOf({ config, paths, hostname }: RunnerOptions): Promise<TlsFiles | undefined> {
  const [certFile, keyFile] = [config.tlsCert.value, config.tlsKey.value];
  const enabled = config.tls.value;
  if (!enabled && certFile === "" && keyFile === "") return undefined;
  const { tlsCredentials } = await import("./server/tls/credentials.ts");
  const hosts = config.hosts.value;
  return tlsCredentials({ enabled, certFile, keyFile, directory: paths.tls, hostname, hosts });
}

interface Base {
  readonly config: Config;
  readonly paths: Paths;
  readonly state: StateDatabase;
  readonly installer: Installer;
  readonly planning: Planning;
}

function watch({
  config,
  state,
  planning,
  supervisor,
}: Base & { readonly supervisor: Supervisor }): Promise<Watching> {
  return createWatching({
    config,
    state,
    events: supervisor.events,
    version: VERSION,
    env: process.env,
    listWorkers: () => supervisor.list(),
    metricsPath: (backend) => planning.backends.find(({ name }) => name === backend)?.metricsPath,
    readBudget: () => planning.machine.readBudget(),
    http: async () => {
      const { createHttp } = await import("./http/http.ts");
      const { offline, caBundle } = config;
      const settings = { offline: offline.value, caBundle: caBundle.value };
      return createHttp({ ...settings, isInsecure: () => false });
    },
  });
}

async function createSupervisor({
  config,
  paths,
  state,
  installer,
  planning,
  sandbox,
}: Base & { readonly sandbox: () => Promise<Sandbox> }): Promise<Supervisor> {
  const { machine, ledger } = planning;
  const supervisor = new Supervisor({
    backends: planning.backends,
    installer,
    sandbox,
    ledger,
    runDirectory: paths.run,
    logDirectory: paths.logs,
    pidStore: new WorkerRecords(state),
    limits: {
      maxWorkers: config.maxWorkers.value,
      queueLimit: config.queueLimit.value,
      keepAliveMs: config.keepAliveMs.value,
      silenceMs: config.silenceMs.value,
    },
    cores: await physicalCores(),
    measure: (pid) => machine.measure(pid),
    measureDevices: (pid) => machine.measureGpu(pid),
    readBudget: () => machine.readBudget(),
    sleepDetector: createSleepDetector(),
  });
  const reaped = await supervisor.reapLeftovers();
  if (reaped > 0) log.warn(`runner: ended engines of a killed runner count=${reaped}`);
  return supervisor;
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
