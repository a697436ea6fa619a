/** Composition of what decides how models run: planner, stored settings, memory. Loaded when a request needs it. */
import type { Config } from "./config.ts";
import type { Paths } from "./paths.ts";
import type { Backend } from "./runtime/backend.ts";
import type { Installer } from "./runtime/installer/installer.ts";
import { Machine } from "./runtime/machine.ts";
import { type Examiner, createPlanner } from "./runtime/planner.ts";
import { BACKENDS, composeBackends } from "./runtime/backends.ts";
import { readClusters } from "./runtime/engine-settings.ts";
import { engineStamp } from "./runtime/engine-stamp.ts";
import { describeSmaller } from "./runtime/smaller-model.ts";
import { RemoteDevices } from "./runtime/remote-devices.ts";
import type { Supervisor } from "./runtime/supervisor.ts";
import { readWeightLoading } from "./runtime/weight-loading.ts";
import type { AppDeps } from "./server/deps.ts";
import type { StateDatabase } from "./state/database.ts";
import { Ledger } from "./state/ledger.ts";
import { StoredSettings } from "./state/model-settings.ts";

export interface PlanningOptions {
  readonly config: Config;
  readonly paths: Paths;
  readonly state: StateDatabase;
  readonly installer: Installer;
  readonly resolve: AppDeps["resolve"];
  readonly listModels: AppDeps["listModels"];
  /** The runner's, once it is there. */
  readonly supervisor: () => Supervisor | undefined;
}

export interface Planning {
  readonly machine: Machine;
  /** Those that are built in, and those of config.toml; in the order of preference. */
  readonly backends: readonly Backend[];
  readonly examiner: Examiner;
  readonly stored: StoredSettings;
  readonly ledger: Ledger;
}

/** @throws usage (the memory budget, or an engine of config.toml, cannot be understood) */
export function createPlanning(options: PlanningOptions): Planning {
  const { config, paths, state, installer, resolve, listModels, supervisor } = options;
  const backends = composeBackends(config.engines.value);
  const names = backends.map(({ name }) => name);
  const [main] = BACKENDS;
  const machine = new Machine({
    budget: config.memoryBudget.value,
    env: process.env,
    variants: () => installedVariants(backends, installer),
    workers: () => supervisor()?.list() ?? [],
    remotes: main && createRemotes(options, main),
  });
  const stored = new StoredSettings(state);
  const ledger = new Ledger(state);
  const loading = readWeightLoading();
  const examiner = createPlanner({
    backends,
    activeEngine: (backend) => installer.active(backend),
    config,
    models: config.models.value,
    stored,
    ledger,
    resolve,
    readDevices: (variant) => machine.readDevices(variant),
    toWholeBudget: (devices) => machine.toWholeBudget(devices),
    readBudget: () => machine.readBudget(),
    loading: () => loading,
    findSmaller: async (model, budget) => describeSmaller(await listModels(), model.id, budget),
    clusters: readClusters(config.engines.value, backends, process.env),
    engineStamp: () => engineStamp(paths.backends, names),
  });
  return { machine, backends, examiner, stored, ledger };
}

// --- internal ---

/** Of all engines that are installed: each may use devices that the others do not. */
async function installedVariants(
  backends: readonly Backend[],
  installer: Installer,
): Promise<readonly string[]> {
  const found = await Promise.all(
    backends.map(async ({ name, recipe, reservesGpus }) => {
      // Asked for each load, whatever is loaded: no program may run for it.
      const configured = await recipe.configVariant?.(process.env);
      if (configured !== undefined) return [configured];
      const engine = await installer.active(name).catch(() => undefined);
      // Of an environment of the user's own nobody knows which GPUs it is built for.
      const isAny = engine?.variant === "host" && reservesGpus !== undefined;
      return isAny ? ["cuda", "rocm"] : [engine?.variant ?? "cpu"];
    }),
  );
  return [...new Set(found.flat())];
}

function createRemotes({ config, installer }: PlanningOptions, backend: Backend): RemoteDevices {
  return new RemoteDevices({
    servers: config.rpcServers.value,
    backend,
    activeEngine: () => installer.active(backend.name),
    env: process.env,
  });
}
