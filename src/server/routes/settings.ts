/**
 * `/engines/_configure`, `/engines/explain`, `/engines/estimate`: what is set for a model, what that makes of it, and how
 * much memory it takes. They need no runner: what is stored lies in the database that every process shares. What only a
 * few requests need is loaded by them: every command that asks in its own process loads this.
 */
import { type Context, Hono } from "hono";
import * as v from "valibot";
import type {
  ConfigureResult,
  EstimateResult,
  ExplainResult,
  ModeName,
  StoredSettingsRow,
} from "../../api/settings.ts";
import { AppError } from "../../errors.ts";
import type { EstimateSource } from "../../models/estimate-source.ts";
import type { RunnableModel } from "../../runtime/backend.ts";
import type { Examination } from "../../runtime/plan-build.ts";
import type { Examiner, PlanRequest } from "../../runtime/planner.ts";
import { checkSettings } from "../../runtime/settings.ts";
import { usualMode } from "../../runtime/usual-mode.ts";
import type { StoredSettings } from "../../state/model-settings.ts";
import type { AppDeps, AppEnv, Runtime } from "../deps.ts";
import {
  DockerConfigureBody,
  fromDocker,
  readDockerNames,
  toDockerRow,
} from "../docker-settings.ts";
import { readFlag } from "../query-flag.ts";
import { parseBody, parseValue } from "../request-body.ts";
import { knownBackends, requireBackend, toKeepAlive } from "../worker-request.ts";

export interface SettingsRoutesDeps {
  readonly resolve: AppDeps["resolve"];
  readonly listModels: AppDeps["listModels"];
  readonly examiner: () => Examiner | Promise<Examiner>;
  readonly stored: () => StoredSettings | Promise<StoredSettings>;
  /** Absent in a process that runs no engines. */
  readonly runtime?: Pick<Runtime, "list" | "pin"> | undefined;
  /** Which sandbox an engine would get. */
  readonly sandbox: () => Promise<string>;
  /** Logical processors that a worker may use. */
  readonly cores: () => number | Promise<number>;
  /** The shape of a model that is not here; absent where nothing beyond this machine is asked. */
  readonly estimateSource?: (
    name: string,
    options: { readonly trusted: boolean; readonly signal: AbortSignal },
  ) => Promise<EstimateSource>;
}

const MODES = [
  "completion",
  "embedding",
  "reranking",
  "image-generation",
] as const satisfies readonly ModeName[];
const MODEL = v.pipe(v.string(), v.nonEmpty("must not be empty"));
const MODE = v.exactOptional(v.picklist(MODES));

const ModeBody = v.object({ mode: v.optional(v.picklist(MODES)) });

export const ConfigureBody = v.object({
  model: MODEL,
  mode: v.nullish(v.picklist(MODES)),
  set: v.record(v.string(), v.unknown()),
});

export const ExplainBody = v.object({
  model: MODEL,
  mode: MODE,
  backend: v.exactOptional(v.string()),
  context_size: v.exactOptional(v.number()),
});

export const EstimateBody = v.object({
  model: MODEL,
  mode: MODE,
  context_size: v.exactOptional(v.number()),
  parallel: v.exactOptional(v.number()),
  cache_type_k: v.exactOptional(v.string()),
  cache_type_v: v.exactOptional(v.string()),
  draft_model: v.exactOptional(v.string()),
});

export function settingsRoutes(deps: SettingsRoutesDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  for (const path of ["/_configure", "/:engine/_configure"] as const) {
    app.post(path, (c) => change(c, deps));
    app.get(path, (c) => show(c, deps));
    app.delete(path, (c) => reset(c, deps));
  }
  app.post("/explain", (c) => explain(c, deps));
  app.post("/estimate", (c) => estimate(c, deps));
  return app;
}

// --- internal ---

type SettingsContext = Context<AppEnv>;

/** Ours has `set`; without it the body is one of Docker Model Runner's, whose clients expect 202 and no body. */
async function change(c: SettingsContext, deps: SettingsRoutesDeps): Promise<Response> {
  const backend = await engineOf(c);
  const { value } = await parseBody(c.req.raw, v.record(v.string(), v.unknown()));
  const isOurs = Object.hasOwn(value, "set");
  const { model: name, mode, set } = isOurs ? readOurs(value) : readDockers(value);
  const trusted = isTrusted(c);
  const { configure } = await import("../configure.ts");
  const result = await configure(
    { ...deps, examiner: await deps.examiner(), stored: await deps.stored() },
    { model: await deps.resolve(name, { trusted }), mode, backend, set, trusted },
  );
  return isOurs ? c.json<ConfigureResult>(result) : c.body(null, 202);
}

interface ReadChange {
  readonly model: string;
  readonly mode: ModeName | undefined;
  readonly set: Readonly<Record<string, unknown>>;
}

function readOurs(body: Readonly<Record<string, unknown>>): ReadChange {
  const { model, mode, set } = parseValue(ConfigureBody, body);
  const keepAlive = set["keep_alive"];
  const spelt = typeof keepAlive === "number" ? { keep_alive: toKeepAlive(keepAlive) } : {};
  return { model, mode: mode ?? undefined, set: { ...set, ...spelt } };
}

function readDockers(body: Readonly<Record<string, unknown>>): ReadChange {
  const read = parseValue(DockerConfigureBody, readDockerNames(body));
  const { mode } = parseValue(ModeBody, { mode: read.mode || undefined });
  return { model: read.model, mode, set: fromDocker(read) };
}

async function show(c: SettingsContext, deps: SettingsRoutesDeps): Promise<Response> {
  const backend = (await engineOf(c)) ?? (await knownBackends(c.get("engineNames")))[0] ?? "";
  const stored = await deps.stored();
  const name = c.req.query("model");
  const wanted = name ? await idOf(deps, name, isTrusted(c)) : undefined;
  const entries = stored.list().filter(({ modelId }) => modelId === (wanted ?? modelId));
  if (entries.length === 0) return c.json([]);
  const models = new Map<string, readonly string[]>(
    (await deps.listModels()).map(({ id, tags }) => [id, tags]),
  );
  const rows = entries.map(({ modelId, mode, settings, updatedAtMs }): StoredSettingsRow => ({
    model_id: modelId,
    tags: models.get(modelId) ?? [],
    mode,
    settings,
    updated_at: new Date(updatedAtMs).toISOString(),
  }));
  return c.json(
    rows.map(({ mode, ...row }) => {
      // Go takes `mode` for `Mode`, and null for none of its modes.
      const ours = mode === null ? row : { ...row, mode };
      return { ...ours, ...toDockerRow({ ...row, mode }, backend) };
    }),
  );
}

async function reset(c: SettingsContext, deps: SettingsRoutesDeps): Promise<Response> {
  await engineOf(c);
  const [name, modeText] = ["model", "mode"].map((key) => c.req.query(key));
  const stored = await deps.stored();
  if (name === undefined || name === "") {
    if (readFlag(c, "all")) {
      const ids = new Set(stored.list().map(({ modelId }) => modelId));
      return c.json({ reset: await resetted(deps, ids, stored.reset()) });
    }
    throw new AppError("invalid_request", "cannot reset settings: the request names no model", {
      hint: "Give `model`, or `all=true`.",
    });
  }
  const { mode } = parseValue(ModeBody, { mode: modeText || undefined });
  const id = await idOf(deps, name, isTrusted(c));
  return c.json({ reset: await resetted(deps, new Set([id]), stored.reset(id, mode)) });
}

/** @returns the count */
async function resetted(
  deps: SettingsRoutesDeps,
  ids: ReadonlySet<string>,
  count: number,
): Promise<number> {
  if (count === 0 || deps.runtime === undefined) return count;
  const { followPins } = await import("../configure.ts");
  await followPins({ ...deps, examiner: await deps.examiner() }, ids);
  return count;
}

async function explain(c: SettingsContext, deps: SettingsRoutesDeps): Promise<Response> {
  const { value } = await parseBody(c.req.raw, ExplainBody);
  const trusted = isTrusted(c);
  const backend =
    value.backend === undefined
      ? undefined
      : await requireBackend(value.backend, c.get("engineNames"));
  const model = await deps.resolve(value.model, { trusted });
  const request = checkSettings({ context_size: value.context_size }, "cannot read the request");
  const examination = await examineAs(deps, value.mode, { model, backend, request, trusted });
  const { explainPlan } = await import("../explain.ts");
  const result = await explainPlan(examination, {
    workers: deps.runtime?.list() ?? [],
    sandbox: deps.sandbox,
    cores: await deps.cores(),
    platform: process.platform,
    signal: c.req.raw.signal,
  });
  return c.json<ExplainResult>(result);
}

async function estimate(c: SettingsContext, deps: SettingsRoutesDeps): Promise<Response> {
  const { value } = await parseBody(c.req.raw, EstimateBody);
  const { model: name, mode, ...said } = value;
  const trusted = isTrusted(c);
  const request = checkSettings(said, "cannot read the request");
  const { model, isLocal } = await find(deps, name, { trusted, signal: c.req.raw.signal });
  const examination = await examineAs(deps, mode, { model, request, trusted });
  const workers = deps.runtime?.list() ?? [];
  const { toEstimate } = await import("../explain.ts");
  return c.json<EstimateResult>(toEstimate(examination, { isLocal, workers }));
}

/** A model that pools cannot do anything else, whether somebody says so or not. */
async function examineAs(
  deps: SettingsRoutesDeps,
  mode: ModeName | undefined,
  request: Omit<PlanRequest, "mode">,
): Promise<Examination> {
  const examiner = await deps.examiner();
  const examination = await examiner.examine({
    ...request,
    mode: mode ?? usualMode(request.model),
  });
  const { shape, backend } = examination;
  const isPooled = mode === undefined && shape?.isPooled === true;
  if (!isPooled || !backend.modes.includes("embedding")) return examination;
  return examiner.examine({ ...request, mode: "embedding" });
}

async function find(
  { resolve, estimateSource }: SettingsRoutesDeps,
  name: string,
  options: { readonly trusted: boolean; readonly signal: AbortSignal },
): Promise<{ readonly model: RunnableModel; readonly isLocal: boolean }> {
  try {
    return { model: await resolve(name, options), isLocal: true };
  } catch (error) {
    const isElsewhere = error instanceof AppError && error.code === "model_not_found";
    if (!isElsewhere || estimateSource === undefined) throw error;
  }
  const { modelId, name: full, shape, projectorBytes } = await estimateSource(name, options);
  const model: RunnableModel = {
    id: modelId,
    name: full,
    format: "gguf",
    weightBytes: shape.weightBytes,
    projectorBytes,
    readShape: () => Promise.resolve(shape),
    openBundle: () => Promise.reject(new Error("only its header was read")),
  };
  return { model, isLocal: false };
}

/** Settings outlive their model: they can be seen and reset by its id. */
async function idOf(
  { resolve, stored }: SettingsRoutesDeps,
  name: string,
  trusted: boolean,
): Promise<string> {
  const known = (await stored()).list().find(({ modelId }) => modelId === name.trim());
  return known?.modelId ?? (await resolve(name, { trusted })).id;
}

/** @throws backend_not_found */
async function engineOf(c: SettingsContext): Promise<string | undefined> {
  const engine = c.req.param("engine");
  return engine === undefined ? undefined : requireBackend(engine, c.get("engineNames"));
}

function isTrusted(c: SettingsContext): boolean {
  return c.env?.trusted === true;
}
