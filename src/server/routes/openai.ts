/**
 * OpenAI's routes, under `/v1`, `/engines/v1` and `/engines/<engine>/v1`. Of a body only `model`, `keep_alive` and
 * `context_size` are read; the engine gets it byte for byte.
 */
import { type Context, Hono } from "hono";
import * as v from "valibot";
import type { Model } from "../../api/models.ts";
import type { Mode } from "../../runtime/backend.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { applyDefaults } from "../packaged-defaults.ts";
import { proxyToWorker } from "../proxy.ts";
import { BodyBudget } from "../body-budget.ts";
import { MAX_INFERENCE_BODY_BYTES, parseBody } from "../request-body.ts";
import {
  requireBackend,
  requireRuntime,
  toKeepAliveMs,
  toWorkerSettings,
  WORKER_FIELDS,
} from "../worker-request.ts";

const PREFIXES = ["/v1", "/engines/v1", "/engines/:engine/v1"] as const;

const INFERENCE: readonly { readonly path: string; readonly mode: Mode }[] = [
  { path: "/chat/completions", mode: "completion" },
  { path: "/completions", mode: "completion" },
];

/** Loose: what is not named here passes untouched. */
const InferenceBody = v.looseObject(WORKER_FIELDS);

/** `GET /v1/models/{id}`; the last field is Docker Model Runner's. */
interface OpenaiModel {
  readonly id: string;
  readonly object: "model";
  readonly created: number;
  readonly owned_by: "docker";
  readonly dmr: Readonly<Record<string, string | number>>;
}

export function openaiRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  const bodies = new BodyBudget();
  for (const prefix of PREFIXES) {
    for (const { path, mode } of INFERENCE) {
      const enginePath = `/v1${path}`;
      app.post(`${prefix}${path}`, (c) => infer(c, deps, { enginePath, mode, bodies }));
    }
    app.get(`${prefix}/models`, async (c) => {
      await checkEngine(c);
      const models = await deps.listModels();
      return c.json({ object: "list", data: models.map(toOpenaiModel) });
    });
    app.get(`${prefix}/models/:name{.+}`, async (c) => {
      await checkEngine(c);
      return c.json(toOpenaiModel(await deps.inspectModel(c.req.param("name"))));
    });
  }
  return app;
}

// --- internal ---

interface InferenceRoute {
  readonly enginePath: string;
  readonly mode: Mode;
  readonly bodies: BodyBudget;
}

async function infer(
  c: Context<AppEnv>,
  deps: AppDeps,
  { enginePath, mode, bodies }: InferenceRoute,
): Promise<Response> {
  const request = c.req.raw;
  const backend = await checkEngine(c);
  // Until the answer begins: then the engine has the body.
  using room = bodies.open();
  const limits = { maxBytes: MAX_INFERENCE_BODY_BYTES, take: room.take };
  const { value: body, bytes } = await parseBody(request, InferenceBody, limits);
  const runtime = requireRuntime(deps);
  const model = await deps.resolve(body.model, { trusted: c.env?.trusted === true });
  const lease = await runtime.acquire({
    model,
    backend,
    mode,
    settings: toWorkerSettings(body.context_size),
    keepAliveMs: toKeepAliveMs(body.keep_alive),
    signal: request.signal,
  });
  if (c.req.header("x-preload-only")?.toLowerCase() === "true") {
    lease[Symbol.dispose]();
    return c.body(null, 200);
  }
  const query = request.url.indexOf("?");
  const path = query < 0 ? enginePath : enginePath + request.url.slice(query);
  const { method, headers, signal } = request;
  const complete = applyDefaults(body, model.defaults);
  // Untouched where nothing is added: byte for byte what the client sent.
  const sent = complete === body ? bytes : new TextEncoder().encode(JSON.stringify(complete));
  return await proxyToWorker({ method, path, headers, body: sent, signal }, lease);
}

/** @returns the engine that the path names @throws backend_not_found */
async function checkEngine(c: Context<AppEnv>): Promise<string | undefined> {
  const engine = c.req.param("engine");
  return engine === undefined ? undefined : requireBackend(engine);
}

function toOpenaiModel({ id, tags, created, config }: Model): OpenaiModel {
  const facts = {
    context_window: config.context_size,
    architecture: config.architecture,
    parameters: config.parameters,
    quantization: config.quantization,
    size: config.size,
  };
  const known = Object.entries(facts).filter(
    (entry): entry is [string, string | number] => entry[1] !== null,
  );
  return {
    id: tags[0] ?? id,
    object: "model",
    created,
    owned_by: "docker",
    dmr: Object.fromEntries(known),
  };
}
