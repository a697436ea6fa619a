/** From a request to what exactly is to run: engine, settings, memory. The one way, for answers, `estimate` and `explain`. */
import type { ExplainedSetting, ModelSettings } from "../api/settings.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { DefaultMessage } from "../oci/model-defaults.ts";
import type { StoredSettings } from "../state/model-settings.ts";
import type { ModelShape } from "../store/model-shape.ts";
import { chooseBackend } from "./backend-choice.ts";
import type { Backend, Mode, RunnableModel, WorkerSettings } from "./backend.ts";
import type { Demand } from "./demand.ts";
import { type Examination, examine, type PlanSources, readTraits } from "./plan-build.ts";
import type { MemoryEstimate } from "./memory.ts";
import { expectedDemand, fits } from "./plan-memory.ts";
import type { StoredLayers } from "./plan-settings.ts";
import { remoteShare } from "./remote-devices.ts";
import type { Sourced } from "./settings.ts";

/** What requests get where they say nothing themselves; the server fills it in. */
export interface RequestDefaults {
  readonly system?: string | undefined;
  readonly think?: boolean | undefined;
  /** Turns that every conversation begins with. */
  readonly messages?: readonly DefaultMessage[] | undefined;
  /** In the words of OpenAI's and llama.cpp's requests. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

export interface WorkerPlan {
  readonly model: RunnableModel;
  /** The engine's name. */
  readonly backend: string;
  readonly mode: Mode;
  /** Complete: nothing that Tug decides is left open. */
  readonly settings: WorkerSettings;
  /** Its bundle is opened with the model's, and its path becomes `settings.draft.model`. */
  readonly draft?: RunnableModel | undefined;
  /** The ledger's peak where there is one, with what may come to it; else the estimate. */
  readonly demand: Demand;
  /** Where the measured peak belongs; undefined if no engine is installed yet. */
  readonly ledgerKey: string | undefined;
  readonly keepAliveMs: number;
  readonly pinned: boolean;
  readonly defaults: RequestDefaults;
  /** What the engine calls the model, where it answers to no other name. */
  readonly servedModel?: string | undefined;
  /** Members of a request that the engine takes; undefined: all. */
  readonly engineFields?: ReadonlySet<string> | undefined;
  /** Paths that the engine answers requests on; undefined: those of llama-server. */
  readonly enginePaths?: readonly string[] | undefined;
  /** What the model is made as; undefined if nobody knows. */
  readonly architecture?: string | undefined;
  /** Of each of `settings.devices`, what the engine takes when it starts, 0 to 1. By the estimate: a peak would grow. */
  readonly gpuShare?: number | undefined;
  /** `ArgsInput.cacheBytes`. */
  readonly cacheBytes?: number | undefined;
  /** What it holds while it sleeps; undefined: it is ended instead. */
  readonly asleep?: Demand | undefined;
  /** Address of the Ray cluster that it computes with. */
  readonly cluster?: string | undefined;
  readonly explained: readonly ExplainedSetting[];
  /**
   * The request itself changes nothing about the process: so the model runs for everybody. Once what is stored or
   * configured has changed, the worker of an older such plan is of no use to anybody.
   */
  readonly isUsual?: boolean | undefined;
  /** The context is what the request needs, or what nobody has said anything about: a larger one does as well. */
  readonly takesLargerContext?: boolean | undefined;
  /** What would fit, if this does not: a clause for the refusal, such as "a context of 8192 tokens would fit". */
  readonly advice?: string | undefined;
}

export interface PlanRequest {
  readonly model: RunnableModel;
  readonly mode: Mode;
  /** An engine by name; else one is chosen by the model's format. */
  readonly backend?: string | undefined;
  /** What the request says itself. */
  readonly request?: ModelSettings | undefined;
  /** Whether the request may name files of this machine. */
  readonly trusted?: boolean | undefined;
}

export interface ExamineRequest extends PlanRequest {
  /** Instead of what is stored: what would be. */
  readonly stored?: StoredLayers | undefined;
}

export interface Planner {
  /**
   * Some microseconds when nothing has changed since the last such request.
   *
   * @throws backend_not_found, unsupported_model, invalid_request (a setting that this engine or model cannot honour,
   *   such as a context larger than the model's; config.toml, too), forbidden, model_not_found (the draft model)
   */
  plan(request: PlanRequest): Promise<WorkerPlan>;
}

/** Also says what a plan was made of. */
export interface Examiner extends Planner {
  /** Made anew each time. @throws as `plan` */
  examine(request: ExamineRequest): Promise<Examination>;
  /** The engine that would run it. @throws backend_not_found, unsupported_model */
  backendFor(request: PlanRequest): Promise<Backend>;
}

export interface PlannerDeps extends Omit<PlanSources, "findConfigured" | "readShape"> {
  readonly stored: Pick<StoredSettings, "find" | "version">;
  /** `[models."NAME"]` of config.toml, by name. */
  readonly models: Readonly<Record<string, unknown>>;
  /** Another text when another engine may be the active one; some microseconds. */
  engineStamp(): string;
}

/** A model has a plan or two; each is some kilobytes. */
const MAX_PLANS = 256;
/** As many models as anybody uses in turns. */
const MAX_SHAPES = 64;
/** A header of some megabytes, from a slow disk. */
const SHAPE_TIMEOUT_MS = 60_000;

export function createPlanner(deps: PlannerDeps): Examiner {
  return new CachingPlanner(deps);
}

// --- internal ---

/** A plan, and what was estimated for it. */
interface Known extends Pick<MemoryEstimate, "demand" | "growing"> {
  readonly plan: WorkerPlan;
}

class CachingPlanner implements Examiner {
  readonly #deps: PlannerDeps;
  readonly #sources: PlanSources;
  readonly #plans = new Lru<Known>(MAX_PLANS);
  readonly #contexts = new Lru<Sourced<number>>(MAX_PLANS);
  readonly #shapes = new Lru<Promise<ModelShape | undefined>>(MAX_SHAPES);
  readonly #turns = new Lru<number>(MAX_PLANS);
  #nextTurn = 0;
  #version = "";

  constructor(deps: PlannerDeps) {
    this.#deps = deps;
    this.#sources = {
      ...deps,
      activeEngine: (backend) => deps.activeEngine(backend),
      findConfigured: (model) => findConfigured(deps, model),
      readShape: (model) => this.#readShape(model),
    };
  }

  async plan(request: PlanRequest): Promise<WorkerPlan> {
    const version = `${this.#deps.stored.version()} ${this.#deps.engineStamp()}`;
    if (version !== this.#version) this.#plans.clear();
    this.#version = version;
    const { model, mode, backend, request: said, trusted } = request;
    const key = JSON.stringify([model.id, mode, backend, said, trusted]);
    const known = this.#plans.get(key);
    if (known !== undefined) return this.#refresh(known, model);
    const { plan, budget, estimate, growing } = await this.examine(request);
    // What does not fit is looked at again: other programs may have left by then.
    if (version === this.#version && fits(plan.demand, budget))
      this.#plans.set(key, { plan, demand: estimate, growing });
    return plan;
  }

  examine(request: ExamineRequest): Promise<Examination> {
    const { model, mode, stored } = request;
    return examine(this.#sources, request, {
      stored: stored ?? {
        all: this.#deps.stored.find(model.id, null),
        mode: this.#deps.stored.find(model.id, mode),
      },
      remember: (key, decide) => {
        const decided = this.#contexts.get(key) ?? decide();
        this.#contexts.set(key, decided);
        return decided;
      },
      turnOf: (key) => {
        const turn = this.#turns.get(key) ?? this.#nextTurn++;
        this.#turns.set(key, turn);
        return turn;
      },
    });
  }

  async backendFor(request: PlanRequest): Promise<Backend> {
    const traits = await readTraits(request.model);
    return chooseBackend({ ...request, traits }, this.#deps.backends, async (name) => {
      return (await this.#deps.activeEngine(name)) !== undefined;
    });
  }

  /** What was measured since, and the name it is asked for by now. */
  #refresh({ plan, ...estimate }: Known, model: RunnableModel): WorkerPlan {
    const { ledgerKey: key } = plan;
    const measured = key === undefined ? undefined : this.#deps.ledger.find(key);
    const demand = { ...expectedDemand(estimate, measured), ...remoteShare(plan.demand) };
    return { ...plan, model, demand };
  }

  /** Callers share one reading. What cannot be read is the engine's to complain about. */
  #readShape(model: RunnableModel): Promise<ModelShape | undefined> {
    const known = this.#shapes.get(model.id);
    if (known !== undefined) return known;
    const reading = readShape(model);
    this.#shapes.set(model.id, reading);
    void reading.then((shape) => shape === undefined && this.#shapes.delete(model.id));
    return reading;
  }
}

/** Forgets what was not used for longest. */
class Lru<T> {
  readonly #max: number;
  readonly #entries = new Map<string, T>();

  constructor(max: number) {
    this.#max = max;
  }

  get(key: string): T | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  set(key: string, value: T): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > this.#max && oldest !== undefined) this.#entries.delete(oldest);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }
}

async function readShape(model: RunnableModel): Promise<ModelShape | undefined> {
  const late = new AbortController();
  // Not `AbortSignal.timeout`: its timer stays, and would wake an idle runner a minute later.
  const timer = setTimeout(() => late.abort(new Error("it takes too long")), SHAPE_TIMEOUT_MS);
  try {
    return await model.readShape?.(late.signal);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    log.debug(`runtime: shape not read model=${model.name} reason=${reason}`);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** By what a name means, not by how it is spelt: all names of a model have the same settings. */
async function findConfigured(
  { models, resolve }: PlannerDeps,
  model: RunnableModel,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  for (const [name, table] of Object.entries(models)) {
    const isMeant =
      name === model.name || name === model.id || (await meansId(resolve, name)) === model.id;
    if (!isMeant) continue;
    if (typeof table === "object" && table !== null && !Array.isArray(table)) {
      return table as Readonly<Record<string, unknown>>;
    }
    throw new AppError(
      "invalid_request",
      `cannot read the settings of \`${name.slice(0, 200)}\` in config.toml: they are no table`,
      { hint: 'Write `[models."NAME"]` and one setting a line.' },
    );
  }
  return undefined;
}

async function meansId(resolve: PlannerDeps["resolve"], name: string): Promise<string | undefined> {
  try {
    return (await resolve(name, { trusted: true })).id;
  } catch {
    // Nothing here has that name yet.
    return undefined;
  }
}
