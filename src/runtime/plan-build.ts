/** Makes one plan from everything that has a say: settings, the engine that is installed, the model's shape, memory. */
import type { ExplainedSetting } from "../api/settings.ts";
import { parseDuration } from "../config.ts";
import { AppError } from "../errors.ts";
import { ledgerKey } from "../state/ledger.ts";
import type { ModelShape } from "../store/model-shape.ts";
import { chooseBackend } from "./backend-choice.ts";
import type {
  Backend,
  Installation,
  Mode,
  ModelTraits,
  RunnableModel,
  WorkerSettings,
} from "./backend.ts";
import type { Demand } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";
import type { RunShape, WeightLoading } from "./memory.ts";
import { readEngineDevices, toEngineFacts } from "./plan-engine.ts";
import {
  chooseContext,
  estimateRun,
  expectedDemand,
  fits,
  largestThatFits,
  leastContext,
  type MemoryFacts,
} from "./plan-memory.ts";
import {
  packagedExtras,
  type PlannerConfig,
  REQUEST,
  requestDefaults,
  type ResolvedSettings,
  resolveSettings,
  type StoredLayers,
} from "./plan-settings.ts";
import {
  DEFAULT_CACHE_TYPE,
  DEFAULT_PARALLEL,
  requireFiles,
  toRun,
  toWorkerSettings,
} from "./plan-worker.ts";
import type { PlanRequest, WorkerPlan } from "./planner.ts";
import {
  assertUsable,
  claimRemotes,
  isRemote,
  remotesOf,
  withoutRemotes,
} from "./remote-devices.ts";
import { requireTrust } from "./trust.ts";
import {
  type EffectiveSettings,
  formatKeepAlive,
  SETTING_NAMES,
  type Sourced,
} from "./settings.ts";

/** A plan, and what it was made of. */
export interface Examination {
  readonly plan: WorkerPlan;
  readonly backend: Backend;
  /** Undefined if none is installed yet. */
  readonly engine: Installation | undefined;
  /** Undefined if nobody can read it. */
  readonly shape: ModelShape | undefined;
  /** Bytes by what they are for. */
  readonly parts: Readonly<Record<string, number>>;
  readonly estimate: Demand;
  /** Of the estimate, what comes with long prompts only. */
  readonly growing: Demand;
  /** The peak that was measured with these settings. */
  readonly measured: Demand | undefined;
  readonly devices: readonly Device[];
  /** What all workers may hold now. */
  readonly budget: Demand;
  /** Null if none fits, or nobody can tell. */
  readonly largestContext: number | null;
}

/** What a plan is made with; each part is asked when it is needed. */
export interface PlanSources {
  readonly backends: readonly Backend[];
  /** The engine to use; undefined if none is installed. */
  activeEngine(backend: string): Promise<Installation | undefined>;
  readonly config: PlannerConfig;
  /** What `[models."NAME"]` says of this model. */
  findConfigured(model: RunnableModel): Promise<Readonly<Record<string, unknown>> | undefined>;
  /** Undefined if nobody can read it. */
  readShape(model: RunnableModel): Promise<ModelShape | undefined>;
  /** @param variant of the engine that is to run */
  readDevices(variant: string): Promise<readonly Device[]>;
  /** What workers may hold if no other program held anything: it decides what is stable. */
  toWholeBudget(devices: readonly Device[]): Demand;
  /** What other programs leave of it; undefined: memory is not limited. */
  readBudget(): Promise<Demand | undefined>;
  /** How engines on this machine get weights into memory. */
  loading(): Promise<WeightLoading>;
  readonly ledger: { find(key: string): Demand | undefined };
  /** Addresses of Ray clusters that config.toml names, by engine. */
  readonly clusters?: ReadonlyMap<string, string> | undefined;
  /** @throws model_not_found, forbidden */
  resolve(name: string, options: { readonly trusted: boolean }): Promise<RunnableModel>;
  /** Models that would do instead of one that does not fit: a clause, or undefined. */
  findSmaller?(model: RunnableModel, budget: Demand): Promise<string | undefined>;
}

/** Decides once what would else change with what other programs hold, and with it the identity of workers. */
export type Remember = (key: string, decide: () => Sourced<number>) => Sourced<number>;

export interface ExamineOptions {
  readonly stored: StoredLayers;
  readonly remember: Remember;
  /** Models count round in the order in which they were first asked for. */
  readonly turnOf: (key: string) => number;
}

/** @throws as `Planner.plan` */
export async function examine(
  sources: PlanSources,
  request: PlanRequest,
  { stored, remember, turnOf }: ExamineOptions,
): Promise<Examination> {
  const { model, mode } = request;
  const installed = new Map<string, Installation | undefined>();
  const isInstalled = async (name: string): Promise<boolean> => {
    installed.set(name, await sources.activeEngine(name));
    return installed.get(name) !== undefined;
  };
  const traits = await readTraits(model);
  const backend = await chooseBackend({ ...request, traits }, sources.backends, isInstalled);
  const engine = installed.get(backend.name) ?? (await sources.activeEngine(backend.name));
  const [configured, shape, all, budget] = await Promise.all([
    sources.findConfigured(model),
    sources.readShape(model),
    readEngineDevices((variant) => sources.readDevices(variant), backend, engine),
    sources.readBudget(),
  ]);
  const resolved = resolveSettings(
    {
      model,
      mode,
      request: request.request,
      trusted: request.trusted === true,
      stored,
      configured,
      config: sources.config,
    },
    backend,
  );
  const devices = sharesOut({ backend, mode, resolved })
    ? all
    : all.filter((one) => !isRemote(one));
  assertUsable(model.name, devices);
  requireTrust({ model, traits, backend, resolved });
  requireFiles(resolved);
  const draft = await resolveDraft(sources, request, resolved.effective);
  const parts = { model, mode, backend, engine, shape, devices, resolved, draft };
  const turn = backend.reservesGpus && turnOf(`${mode} ${model.id}`);
  return compose(sources, { ...parts, budget, remember, turn });
}

/** What cannot be read is the engine's to complain about. */
export async function readTraits(model: RunnableModel): Promise<ModelTraits | undefined> {
  return model.readTraits?.().catch(() => undefined);
}

// --- internal ---

/** An embedding model is small, and would take the servers from the model that its answers are for. */
function sharesOut({ backend, mode, resolved }: Pick<Parts, "backend" | "mode" | "resolved">) {
  if (backend.rpc === undefined || mode !== "completion") return false;
  return resolved.effective.gpu_layers?.value !== 0 && !backend.rpc.avoids(resolved.flags);
}

interface Draft {
  readonly model: RunnableModel;
  readonly shape: ModelShape | undefined;
}

interface Parts {
  readonly model: RunnableModel;
  readonly mode: Mode;
  readonly backend: Backend;
  readonly engine: Installation | undefined;
  readonly shape: ModelShape | undefined;
  readonly devices: readonly Device[];
  readonly budget: Demand | undefined;
  readonly resolved: ResolvedSettings;
  readonly draft: Draft | undefined;
  readonly remember: Remember;
  readonly turn: number | undefined;
}

async function compose(sources: PlanSources, parts: Parts): Promise<Examination> {
  const { model, mode, backend, engine, shape, devices, resolved, draft } = parts;
  const wholeBudget = sources.toWholeBudget(devices);
  const budget = parts.budget ?? wholeBudget;
  const loading = await sources.loading();
  const run = (tokens: number): RunShape =>
    toRun({ ...parts, budget: wholeBudget, loading }, tokens);
  const least = leastContext(shape);
  const open: MemoryFacts = { model, shape, run: run(least), wholeBudget, budget };
  const context = decideContext(parts, open);
  const facts = { ...open, run: run(context.value > 0 ? context.value : least) };
  const { parts: byPurpose, demand: estimate, growing } = estimateRun(facts);
  const settings = toWorkerSettings(resolved, {
    contextTokens: context.value,
    draftId: draft?.model.id,
    run: facts.run,
    remotes: remotesOf(devices),
  });
  const key = engine && ledgerKey(toLedgerFacts(parts, engine, settings));
  const measured = findMeasured(sources, key);
  const expected = expectedDemand({ demand: estimate, growing }, measured);
  const demand = claimRemotes(expected, devices, wholeBudget);
  const isFitting = fits(demand, budget);
  const largestContext = largestFor(facts, isFitting ? context.value : 0);
  const advice = isFitting
    ? undefined
    : await advise(sources, { model, budget, largestContext, contextTokens: context.value });
  const keepAlive = toKeepAlive(resolved.effective, sources.config);
  const need = { ...parts, run: facts.run, byPurpose, estimate, demand };
  const plan: WorkerPlan = {
    model,
    backend: backend.name,
    mode,
    settings,
    ...(draft === undefined ? {} : { draft: draft.model }),
    demand,
    ledgerKey: key,
    keepAliveMs: parseDuration(keepAlive.value),
    pinned: resolved.effective.pinned?.value ?? false,
    defaults: requestDefaults(resolved.effective, model.defaults),
    explained: explain(parts, { context, keepAlive, config: sources.config }),
    isUsual: resolved.isUsual,
    takesLargerContext: resolved.takesLargerContext,
    ...toEngineFacts(need, sources.clusters),
    servedModel: backend.servedModel,
    enginePaths: backend.paths,
    engineFields: backend.fields,
    ...(advice === undefined ? {} : { advice }),
  };
  const facets = { plan, backend, engine, shape, parts: byPurpose, estimate, growing, measured };
  return { ...facets, devices, budget, largestContext };
}

/** @param fitting what is known to fit: what was measured to fit does, though the estimate is above */
function largestFor(facts: MemoryFacts, fitting: number): number | null {
  const estimated = largestThatFits(facts, facts.budget ?? facts.wholeBudget);
  return estimated === null ? null : Math.max(estimated, fitting);
}

/** What nobody says is decided once: what other programs hold changes, and workers must not with it. */
function decideContext(parts: Parts, facts: MemoryFacts): Sourced<number> {
  const { resolved, remember } = parts;
  const decide = (): Sourced<number> => chooseContext(resolved, facts);
  const isSaid =
    resolved.effective.context_size !== undefined || resolved.usualContext !== undefined;
  if (isSaid) return decide();
  if (parts.backend.choosesContext === true) return { value: -1, source: "default" };
  const { model, mode, backend, engine, draft } = parts;
  const { loading: _, draft: __, ...run } = facts.run;
  const build = engine && buildOf(engine);
  return remember(
    JSON.stringify([model.id, mode, backend.name, build, draft?.model.id, run]),
    decide,
  );
}

async function resolveDraft(
  sources: PlanSources,
  { model, mode, trusted }: PlanRequest,
  { draft_model: said }: EffectiveSettings,
): Promise<Draft | undefined> {
  if (said === undefined || mode !== "completion") return undefined;
  // What is stored was allowed when it was stored.
  const isAllowed = said.source !== REQUEST || trusted === true;
  const draft = await sources.resolve(said.value, { trusted: isAllowed });
  if (draft.id === model.id) {
    throw new AppError("invalid_request", `cannot let \`${model.name}\` draft for itself`, {
      hint: "Choose a smaller model of the same family.",
    });
  }
  if (draft.format !== model.format) {
    const reason = `it is a ${draft.format} model, not ${model.format}`;
    throw new AppError(
      "unsupported_model",
      `cannot draft with \`${said.value.slice(0, 200)}\`: ${reason}`,
      { hint: "Choose a smaller model of the same family and format." },
    );
  }
  return { model: draft, shape: await sources.readShape(draft) };
}

/** What of it was only claimed is left out. */
function findMeasured({ ledger }: PlanSources, key: string | undefined): Demand | undefined {
  const known = key === undefined ? undefined : ledger.find(key);
  return known && withoutRemotes(known);
}

function buildOf({ backend, version, variant }: Installation): string {
  return `${backend}/${version}-${variant}`;
}

function toLedgerFacts(
  { model, mode, draft, devices }: Parts,
  engine: Installation,
  settings: WorkerSettings,
): Parameters<typeof ledgerKey>[0] {
  const { contextTokens, parallel, cacheTypeK, cacheTypeV, gpuLayers, adapters } = settings;
  const { promptCacheMiB, contextCheckpoints: checkpoints } = settings;
  return {
    modelId: model.id,
    build: buildOf(engine),
    mode,
    contextTokens,
    parallel,
    cacheTypeK,
    cacheTypeV,
    gpuLayers,
    adapters,
    // Where it takes GPUs whole, what was measured on others says nothing.
    devices: settings.devices ?? devices.map(({ id }) => id),
    draftModelId: draft?.model.id,
    runtimeFlags: settings.runtimeFlags,
    further: { promptCacheMiB: promptCacheMiB ?? 0, checkpoints: checkpoints ?? 0 },
  };
}

function toKeepAlive(effective: EffectiveSettings, config: PlannerConfig): Sourced<string> {
  const { value, source } = config.keepAliveMs;
  return effective.keep_alive ?? { value: formatKeepAlive(value), source };
}

/** In the order of the settings; what nobody says and nothing decides is left out. */
function explain(
  { model, backend, resolved, devices }: Parts,
  decided: {
    readonly context: Sourced<number>;
    readonly keepAlive: Sourced<string>;
    readonly config: PlannerConfig;
  },
): readonly ExplainedSetting[] {
  const { effective } = resolved;
  const values: Readonly<Record<string, Sourced<unknown>>> = {
    parallel: byDefault(DEFAULT_PARALLEL),
    ...(devices.length > 1 ? { gpu_layers: byDefault("as many as fit") } : {}),
    ...(backend.cacheTypes === undefined
      ? {}
      : {
          cache_type_k: byDefault(DEFAULT_CACHE_TYPE),
          cache_type_v: byDefault(DEFAULT_CACHE_TYPE),
        }),
    ...effective,
    context_size: decided.context,
    keep_alive: decided.keepAlive,
  };
  const rows = SETTING_NAMES.flatMap((name): ExplainedSetting[] => {
    const said = values[name];
    const instead = backend.ignores?.[name];
    if (said === undefined) return [];
    if (instead === undefined) return [{ name, ...said }];
    // What nobody said and does not count would only confuse; a context is what memory is counted for.
    const isSaid = effective[name] !== undefined || name === "context_size";
    return isSaid ? [{ name, ...said, ignored: instead }] : [];
  });
  const remotes = remotesOf(devices);
  const shared = remotes && {
    name: "rpc_servers",
    value: remotes.join(", "),
    source: decided.config.rpcServers?.source ?? "default",
  };
  return [...rows, ...(shared === undefined ? [] : [shared]), ...packagedExtras(model.defaults)];
}

function byDefault<T>(value: T): Sourced<T> {
  return { value, source: "default" };
}

async function advise(
  sources: PlanSources,
  need: {
    readonly model: RunnableModel;
    readonly budget: Demand;
    readonly largestContext: number | null;
    readonly contextTokens: number;
  },
): Promise<string | undefined> {
  const { model, budget, largestContext, contextTokens } = need;
  if (largestContext !== null && largestContext < contextTokens) {
    return `a context of ${largestContext} tokens would fit`;
  }
  return sources.findSmaller?.(model, budget);
}
