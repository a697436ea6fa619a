/** Loading and unloading, which Ollama's clients ask for with a request that asks nothing. */
import type { Context } from "hono";
import type { ModelSettings } from "../../../api/settings.ts";
import type { Mode } from "../../../runtime/backend.ts";
import type { Lease } from "../../../runtime/lease.ts";
import type { WorkerPlan } from "../../../runtime/planner.ts";
import type { AppDeps, AppEnv, Runtime } from "../../deps.ts";
import { requireSuited } from "../../suited-model.ts";
import { requireRuntime } from "../../worker-request.ts";
import { tryProfile } from "./ability.ts";

export interface LoadRequest {
  /** As the client wrote it. */
  readonly modelName: string;
  readonly mode: Mode;
  readonly settings: ModelSettings;
}

export interface LoadContext {
  readonly c: Context<AppEnv>;
  readonly deps: AppDeps;
}

/** With `keep_alive` 0 the model is unloaded. @throws what planning, loading and unloading throw */
export async function loadOrUnload(
  context: LoadContext,
  request: LoadRequest,
): Promise<"load" | "unload"> {
  const { signal } = context.c.req.raw;
  const { runtime, plan } = await planWorker(context, request);
  const isLeaving = request.settings.keep_alive !== undefined && plan.keepAliveMs === 0;
  if (isLeaving) {
    await runtime.unload({ models: [plan.model.id], wait: true, signal });
    return "unload";
  }
  await checkSuited(context, plan);
  (await runtime.acquire({ plan, signal }))[Symbol.dispose]();
  return "load";
}

/** A worker of the model, for a question besides the request itself. @throws what planning and loading throw */
export async function acquireWorker(context: LoadContext, request: LoadRequest): Promise<Lease> {
  const { runtime, plan } = await planWorker(context, request);
  await checkSuited(context, plan);
  return runtime.acquire({ plan, signal: context.c.req.raw.signal });
}

// --- internal ---

/** Before it takes memory that others may need. @throws invalid_request */
async function checkSuited({ deps }: LoadContext, plan: WorkerPlan): Promise<void> {
  requireSuited({ plan, profile: await tryProfile(deps, plan.model.id), body: {} });
}

async function planWorker(
  { c, deps }: LoadContext,
  { modelName, mode, settings }: LoadRequest,
): Promise<{ readonly runtime: Runtime; readonly plan: WorkerPlan }> {
  const runtime = requireRuntime(deps);
  const trusted = c.env?.trusted === true;
  const model = await deps.resolve(modelName, { trusted });
  const planner = await deps.planner();
  return { runtime, plan: await planner.plan({ model, mode, request: settings, trusted }) };
}
