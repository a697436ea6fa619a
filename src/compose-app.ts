/** Composition of the HTTP API: the store, what moves models, and, in the runner, what runs them. */
import { join } from "node:path";
import type { Config } from "./config.ts";
import { builtinFile } from "./models/builtin.ts";
import type { ModelProfiles } from "./models/capabilities.ts";
import { ModelDistribution } from "./models/distribution.ts";
import { inspectModel, listModels } from "./models/inspect.ts";
import type { Paths } from "./paths.ts";
import type { Planning } from "./planning.ts";
import type { Installer } from "./runtime/installer/installer.ts";
import type { Supervisor } from "./runtime/supervisor.ts";
import { type App, createApp } from "./server/app.ts";
import { BodyBudget } from "./server/body-budget.ts";
import type { AppDeps, RunnerControl } from "./server/deps.ts";
import { drainModel } from "./server/drain-model.ts";
import type { ImageFiles } from "./server/image-files.ts";
import type { PullJobs } from "./server/pull-jobs.ts";
import type { LogSource } from "./server/log-reader.ts";
import type { ApiKeys } from "./state/api-keys.ts";
import { withAliases } from "./server/model-aliases.ts";
import {
  type ReadOwnModels,
  toInspected,
  toListed,
  toRunnable,
  withOwnModels,
} from "./server/own-models.ts";
import { rememberResolved } from "./server/resolved-models.ts";
import { type ModelRoutesDeps, modelRoutes } from "./server/routes/models.ts";
import { registryRoutes } from "./server/routes/registries.ts";
import type { RequestLog } from "./server/routes/requests.ts";
import { settingsRoutes } from "./server/routes/settings.ts";
import type { Watching } from "./server/watch/watching.ts";
import type { StateDatabase } from "./state/database.ts";
import { Store } from "./store/store.ts";
import { VERSION } from "./version.ts";

export interface Composition {
  readonly config: Config;
  readonly paths: Paths;
  /** Files that any client may run by their path; the runner adds to it. */
  readonly files: string[];
  readonly supervisor?: Supervisor;
  readonly runner?: RunnerControl;
  readonly installer?: Installer;
  /** The runner's; a command pulls in its own process. */
  readonly pulls?: PullJobs;
  /** Made here unless given. */
  readonly store?: Store;
  /** The runner's; nobody else keeps responses. */
  readonly state?: StateDatabase;
  readonly resolve?: AppDeps["resolve"];
  readonly planning?: Planning;
  /** Where the runner's stderr goes; undefined for one at a terminal. */
  readonly logFile?: string;
  readonly watching?: Watching;
  /** The runner's. */
  readonly imageFiles?: ImageFiles;
  /** Made here unless given. */
  readonly keys?: ApiKeys;
  /** Others than this machine's users reach the port. */
  readonly keyRequired?: boolean;
  /** What engines are confined with; tried out unless given. */
  readonly nameSandbox?: () => Promise<string>;
}

export function composeApp(composition: Composition): App {
  const { config, paths, files, supervisor, runner, pulls } = composition;
  const store = composition.store ?? Store.open(paths.models);
  const distribution = new ModelDistribution({ config, paths, store });
  const resolve = composition.resolve ?? createResolve({ store, paths, files, config });
  const planning = once(() => composition.planning ?? planLocally(composition, resolve));
  const keys = once(() => composition.keys ?? openLocalKeys(paths));
  const requestLog = once(() => composition.watching?.requests ?? openLocalRequestLog(paths));
  const models = describeModels(store, config);
  const modelWork: ModelRoutesDeps = {
    store,
    inspect: models.inspect,
    distribution,
    remotes: (overrides) => distribution.remotes(overrides),
    ...(pulls === undefined ? {} : { pulls }),
    ...(supervisor === undefined ? {} : removalThrough(supervisor)),
  };
  const profiles = once(() => openProfiles(store));
  return createApp({
    store,
    engineNames: once(() => nameEngines(config)),
    models: modelRoutes(modelWork),
    modelWork,
    profileOf: async (modelId) => (await profiles()).of(modelId),
    registries: registryRoutes(distribution),
    installer: () => composition.installer ?? createInstaller(composition),
    resolve,
    planner: async () => (await planning()).examiner,
    settings: async () => (await planning()).stored,
    settingsRoutes: settingsRoutes({
      resolve,
      listModels: () => listModels(store),
      examiner: async () => (await planning()).examiner,
      stored: async () => (await planning()).stored,
      runtime: supervisor,
      sandbox: composition.nameSandbox ?? (() => nameSandbox(config)),
      cores: countCores,
      estimateSource: estimateWith({ store, distribution, files }),
    }),
    requestLog,
    ...(composition.state === undefined ? {} : { responses: openResponses(composition.state) }),
    bodies: new BodyBudget({ maxBodyBytes: config.maxBodyBytes.value }),
    ...(composition.imageFiles === undefined ? {} : { imageFiles: composition.imageFiles }),
    logs: readLogs(composition),
    ...(composition.watching === undefined ? {} : watchedBy(composition.watching)),
    listModels: models.list,
    inspectModel: withAliases(config.aliases.value, models.inspect),
    version: VERSION,
    allowedOrigins: config.origins.value,
    keys,
    keyRequired: composition.keyRequired === true,
    allowedHosts: config.hosts.value,
    ...(config.apiKey.value === "" ? {} : { apiKey: config.apiKey.value }),
    ...(supervisor === undefined ? {} : { runtime: supervisor }),
    ...(runner === undefined ? {} : { runner }),
  });
}

/** @param options.files that any client may name by their paths; who owns the list may add to it */
export function createResolve({
  store,
  paths,
  files,
  config,
}: {
  readonly store: Store;
  readonly paths: Paths;
  readonly files: readonly string[];
  readonly config: Pick<Config, "aliases" | "engines" | "nimPrefixes">;
}): AppDeps["resolve"] {
  const inStore: AppDeps["resolve"] = async (name, { trusted }) => {
    const { resolveRunnable } = await import("./models/runnable.ts");
    const imagePrefixes = config.nimPrefixes.value;
    return resolveRunnable(store, name, { paths: trusted ? "allow" : files, imagePrefixes });
  };
  const empty = join(paths.cache, "no-files");
  const all = withOwnModels(ownModelsOf(config), inStore, (model, name) =>
    toRunnable(model, name, empty),
  );
  return rememberResolved(withAliases(config.aliases.value, all), join(paths.models, "index.json"));
}

export async function createInstaller({
  config,
  paths,
}: Pick<Composition, "config" | "paths">): Promise<Installer> {
  const [{ Installer: InstallerClass }, { BACKENDS, composeBackends }, { readPinnedVersions }] =
    await Promise.all([
      import("./runtime/installer/installer.ts"),
      import("./runtime/backends.ts"),
      import("./runtime/engine-settings.ts"),
    ]);
  const builtIn = BACKENDS.map(({ name }) => name);
  return new InstallerClass({
    directory: paths.backends,
    cacheDirectory: paths.cache,
    backends: composeBackends(config.engines.value),
    pinnedVersions: readPinnedVersions(config.engines.value, builtIn),
    machine: { platform: process.platform, arch: process.arch },
    // What the file says of it counts as if the variable said it.
    env: { ...process.env, TUG_CONTAINER_ENGINE: config.containerEngine.value },
    offline: config.offline.value,
    remotes: () =>
      new ModelDistribution({ config, paths, store: Store.open(paths.models) }).remotes({
        isStrict: true,
      }),
    smokeModel: () => builtinFile(paths.cache),
  });
}

// --- internal ---

/** Those of the store, and those that engines of the user's own bring. */
function describeModels(store: Store, config: Pick<Config, "engines">) {
  const own = ownModelsOf(config);
  return {
    list: async () => [...(await listModels(store)), ...(await own()).map(toListed)],
    inspect: withOwnModels(own, (name: string) => inspectModel(store, name), toInspected),
  };
}

function estimateWith({
  store,
  distribution,
  files,
}: {
  readonly store: Store;
  readonly distribution: ModelDistribution;
  readonly files: readonly string[];
}): NonNullable<Parameters<typeof settingsRoutes>[0]["estimateSource"]> {
  return async (name, { trusted, signal }) => {
    const { estimateSource } = await import("./models/estimate-source.ts");
    const remotes = await distribution.remotes();
    return estimateSource(name, { store, remotes, paths: trusted ? "allow" : files, signal });
  };
}

/** Read when a name is asked for that the store does not have, or all are listed. */
function ownModelsOf({ engines }: Pick<Config, "engines">): ReadOwnModels {
  return once(async () => {
    if (Object.keys(engines.value).length === 0) return [];
    const { readOwnModels } = await import("./runtime/custom-models.ts");
    return readOwnModels(engines.value);
  });
}

/** @throws usage (`[engines]` of config.toml cannot be understood) */
async function nameEngines({ engines }: Config): Promise<readonly string[]> {
  const { BACKENDS, composeBackends } = await import("./runtime/backends.ts");
  const builtIn = BACKENDS.map(({ name }) => name);
  const all = composeBackends(engines.value).map(({ name }) => name);
  return [...builtIn, ...all.filter((name) => !builtIn.includes(name))];
}

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

/** For a process that runs no engines. The database is closed with the process. */
async function planLocally(
  composition: Composition,
  resolve: AppDeps["resolve"],
): Promise<Planning> {
  const [{ createPlanning }, { StateDatabase }, installer] = await Promise.all([
    import("./planning.ts"),
    import("./state/database.ts"),
    createInstaller(composition),
  ]);
  const { config, paths } = composition;
  const state = new StateDatabase(paths.database);
  const store = composition.store ?? Store.open(paths.models);
  return createPlanning({
    config,
    paths,
    state,
    installer,
    resolve,
    listModels: () => listModels(store),
    supervisor: () => undefined,
  });
}

async function openProfiles(store: Store): Promise<ModelProfiles> {
  const { ModelProfiles: ProfilesClass } = await import("./models/capabilities.ts");
  return new ProfilesClass(store);
}

function openResponses(state: StateDatabase): NonNullable<AppDeps["responses"]> {
  return async () => {
    const { Responses } = await import("./state/responses.ts");
    return new Responses(state);
  };
}

async function openLocalRequestLog(paths: Paths): Promise<RequestLog> {
  const [{ openRequestLog }, { StateDatabase }] = await Promise.all([
    import("./server/watch/watching.ts"),
    import("./state/database.ts"),
  ]);
  return openRequestLog(new StateDatabase(paths.database));
}

async function openLocalKeys(paths: Paths): Promise<ApiKeys> {
  const [{ ApiKeys: KeysClass }, { StateDatabase }] = await Promise.all([
    import("./state/api-keys.ts"),
    import("./state/database.ts"),
  ]);
  return new KeysClass(new StateDatabase(paths.database));
}

/** A model that is running may be removed only by who waits until it is not. */
function removalThrough(supervisor: Supervisor): Pick<ModelRoutesDeps, "inUse" | "drain"> {
  return {
    inUse: (modelId) =>
      supervisor
        .list()
        .some((worker) => worker.modelId === modelId || worker.draftModelId === modelId),
    drain: (modelId, options) => drainModel(supervisor, modelId, options),
  };
}

function readLogs({ config, paths, runner, logFile }: Composition): LogSource {
  const hasRunnerLog = runner === undefined || logFile !== undefined;
  return {
    hasRunnerLog,
    read: async (query, signal) => {
      const { createLogReader } = await import("./server/log-reader.ts");
      const format = config.logFormat.value;
      return createLogReader({ directory: paths.logs, hasRunnerLog, format }).read(query, signal);
    },
  };
}

function watchedBy({ observers, metrics }: Watching): Pick<AppDeps, "observers" | "metrics"> {
  return { observers, ...(metrics === undefined ? {} : { metrics }) };
}

async function nameSandbox({ sandbox: { value: mode } }: Config): Promise<string> {
  const { findSandbox } = await import("./runtime/sandbox/index.ts");
  const { platform, env } = process;
  return (await findSandbox({ mode, platform, env })).sandbox.name;
}

async function countCores(): Promise<number> {
  const { physicalCores } = await import("./runtime/hardware/index.ts");
  return physicalCores();
}
