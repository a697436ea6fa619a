/**
 * Of Ollama's API: loading and unloading, as its clients do before they ask.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md#load-a-model
 */
import { Hono } from "hono";
import * as v from "valibot";
import { AppError } from "../../errors.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { parseBody } from "../request-body.ts";
import { requireRuntime, toRequestSettings, WORKER_FIELDS } from "../worker-request.ts";

const GenerateBody = v.looseObject({ ...WORKER_FIELDS, prompt: v.nullish(v.string()) });

/** Without a prompt: what a client that is answered has nothing to do with. */
interface Loaded {
  readonly model: string;
  /** RFC 3339. */
  readonly created_at: string;
  readonly response: "";
  readonly done: true;
  readonly done_reason: "load" | "unload";
}

export function ollamaRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/api/generate", async (c) => {
    const { signal, headers } = c.req.raw;
    const { value: body } = await parseBody(c.req.raw, GenerateBody);
    if (body.prompt) throw onlyLoads();
    const runtime = requireRuntime(deps);
    const trusted = c.env?.trusted === true;
    const model = await deps.resolve(body.model, { trusted });
    const request = toRequestSettings(body, headers);
    const planner = await deps.planner();
    const plan = await planner.plan({ model, mode: "completion", request, trusted });
    const isLeaving = request.keep_alive !== undefined && plan.keepAliveMs === 0;
    if (isLeaving) await runtime.unload({ models: [model.id], wait: true, signal });
    else (await runtime.acquire({ plan, signal }))[Symbol.dispose]();
    return c.json<Loaded>({
      model: body.model,
      created_at: new Date().toISOString(),
      response: "",
      done: true,
      done_reason: isLeaving ? "unload" : "load",
    });
  });
  return app;
}

// --- internal ---

function onlyLoads(): AppError {
  return new AppError("not_supported", "cannot answer a prompt on Ollama's route", {
    hint: "Ask `/v1/chat/completions`, which Ollama has, too.",
  });
}
