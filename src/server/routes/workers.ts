/** `/engines`: the workers that run, and loading, unloading and pinning them. */
import type { Hono } from "hono";
import * as v from "valibot";
import type { LoadResult, PinResult, UnloadResult } from "../../api/engines.ts";
import { AppError, toAppError } from "../../errors.ts";
import { displayReference } from "../../oci/reference.ts";
import type { WorkerSnapshot } from "../../runtime/snapshot.ts";
import { usualMode } from "../../runtime/usual-mode.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { progressResponse } from "../progress-response.ts";
import { parseBody } from "../request-body.ts";
import {
  requireBackend,
  requireRuntime,
  toRequestSettings,
  WORKER_FIELDS,
} from "../worker-request.ts";
import { toWorkerStatus } from "../worker-status.ts";

/** In a hint. */
const MAX_NAMES = 5;

const ModelName = v.pipe(v.string(), v.nonEmpty("must not be empty"));

/** Docker's CLI sends every member: `""` and `null` say nothing. */
export const UnloadBody = v.object({
  all: v.nullish(v.boolean()),
  backend: v.nullish(v.string()),
  models: v.nullish(v.array(ModelName)),
  wait: v.optional(v.boolean(), false),
  force: v.optional(v.boolean(), false),
});

export const PinBody = v.object({
  models: v.pipe(v.array(ModelName), v.minLength(1, "must not be empty")),
  pinned: v.boolean(),
});

export const LoadBody = v.object({
  ...WORKER_FIELDS,
  backend: v.optional(v.string()),
  mode: v.optional(v.picklist(["completion", "embedding", "reranking", "image-generation"])),
});

export function addWorkerRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  app.get("/ps", (c) => c.json((deps.runtime?.list() ?? []).map(toWorkerStatus)));
  app.post("/unload", async (c) => {
    const { value } = await parseBody(c.req.raw, UnloadBody);
    return c.json(await unload(deps, value, callerOf(c)));
  });
  app.post("/pin", async (c) => {
    const { value } = await parseBody(c.req.raw, PinBody);
    return c.json(await pin(deps, value, callerOf(c)));
  });
  app.post("/load", async (c) => {
    const { value } = await parseBody(c.req.raw, LoadBody);
    return load(deps, value, { ...callerOf(c), headers: c.req.raw.headers });
  });
}

// --- internal ---

interface Caller {
  readonly signal: AbortSignal;
  readonly trusted: boolean;
}

function callerOf(c: {
  readonly req: { readonly raw: Request };
  readonly env?: AppEnv["Bindings"];
}): Caller {
  return { signal: c.req.raw.signal, trusted: c.env?.trusted === true };
}

async function unload(
  deps: AppDeps,
  { wait, force, ...said }: v.InferOutput<typeof UnloadBody>,
  caller: Caller,
): Promise<UnloadResult> {
  const [all, backend, models] = [
    said.all ?? false,
    said.backend || undefined,
    said.models ?? undefined,
  ];
  if (!all && backend === undefined && models === undefined) {
    throw new AppError("invalid_request", "cannot unload: the request names nothing", {
      hint: "Give `models`, `backend`, or `all: true`.",
    });
  }
  if (backend !== undefined) await requireBackend(backend, deps.engineNames);
  const ids = models && (await Promise.all(models.map((name) => idOf(deps, name, caller))));
  if (deps.runtime === undefined) return { unloaded_runners: 0, skipped: [] };
  const { signal } = caller;
  const outcome = await deps.runtime.unload({ all, backend, models: ids, wait, force, signal });
  return {
    unloaded_runners: outcome.unloaded,
    skipped: outcome.skipped.map(({ modelName, reason }) => ({ model: modelName, reason })),
  };
}

/**
 * A worker outlives its model's name: what is loaded can be named as it was when it was loaded.
 *
 * @throws model_not_found, with what is loaded
 */
async function idOf({ runtime, resolve }: AppDeps, name: string, caller: Caller): Promise<string> {
  const workers = runtime?.list() ?? [];
  const shown = displayReference(name);
  const isMeant = ({ modelName, modelId }: WorkerSnapshot): boolean =>
    modelId === name || modelName === name || displayReference(modelName) === shown;
  const loaded = workers.find(isMeant);
  if (loaded !== undefined) return loaded.modelId;
  try {
    return (await resolve(name, { trusted: caller.trusted })).id;
  } catch (thrown) {
    const error = toAppError(thrown);
    if (error.code !== "model_not_found" || workers.length === 0) throw error;
    const names = [...new Set(workers.map(({ modelName }) => displayReference(modelName)))];
    throw new AppError(error.code, error.message, {
      hint: `Loaded are ${names.slice(0, MAX_NAMES).join(", ")}; \`tug ps\` lists what is.`,
      details: { loaded: names.slice(0, MAX_NAMES) },
      cause: error,
    });
  }
}

/** All names are known before anything is changed. */
async function pin(
  deps: AppDeps,
  { models, pinned }: v.InferOutput<typeof PinBody>,
  caller: Caller,
): Promise<PinResult> {
  const ids = await Promise.all(models.map((name) => idOf(deps, name, caller)));
  const settings = await deps.settings();
  return {
    models: models.map((model, index) => {
      const id = ids[index] ?? "";
      // `false` is stored, too: it has to win over what config.toml says.
      settings.set(id, null, { pinned });
      const count = deps.runtime?.pin(id, pinned) ?? 0;
      return { model, model_id: id, pinned, loaded: count > 0 };
    }),
  };
}

async function load(
  deps: AppDeps,
  body: v.InferOutput<typeof LoadBody>,
  { signal, trusted, headers }: Caller & { readonly headers: Headers },
): Promise<Response> {
  const runtime = requireRuntime(deps);
  const backend =
    body.backend === undefined ? undefined : await requireBackend(body.backend, deps.engineNames);
  const request = toRequestSettings(body, headers);
  const model = await deps.resolve(body.model, { trusted });
  const planner = await deps.planner();
  return progressResponse<LoadResult>(signal, async (options) => {
    const start = performance.now();
    const mode = body.mode ?? usualMode(model);
    const plan = await planner.plan({ model, mode, backend, request, trusted });
    using lease = await runtime.acquire({ plan, ...options });
    const loadMs = Math.round(performance.now() - start);
    return { model_id: lease.modelId, backend: lease.backend, load_ms: loadMs };
  });
}
