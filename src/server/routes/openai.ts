/**
 * OpenAI's routes, under `/v1`, `/engines/v1` and `/engines/<engine>/v1`. Chats and completions reach the engine byte
 * for byte unless a model's defaults or a word about thinking have to be added; of the others see their own files.
 */
import { Hono } from "hono";
import * as v from "valibot";
import type { Model } from "../../api/models.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { OPENAI } from "../dialect.ts";
import { InferenceBody, type InferenceRoute, serveInference } from "../inference.ts";
import { addEmbeddingRoutes } from "./embeddings.ts";
import { bodiesOf, engineOf, V1_PREFIXES } from "./engine-paths.ts";
import { addImageRoutes } from "./images.ts";
import { addNotInstalledRoutes } from "./not-installed.ts";
import { addRerankRoutes } from "./rerank.ts";
import { addTokenRoutes } from "./tokens.ts";

const MESSAGE = v.looseObject({ role: v.string() });
const TOOL = v.looseObject({ type: v.string() });

/** `POST /v1/chat/completions`, as far as it is looked at here. */
export const ChatCompletionsRequest = v.looseObject({
  ...InferenceBody.entries,
  messages: v.optional(v.pipe(v.array(MESSAGE), v.nonEmpty("must not be empty"))),
  tools: v.nullish(v.array(TOOL)),
  think: v.pipe(
    v.nullish(v.union([v.boolean(), v.string()])),
    v.description("Whether the model thinks first, or how much: `low`, `medium`, `high`."),
  ),
  reasoning_effort: v.nullish(v.string()),
});

/** `POST /v1/completions`; `prompt` is a text, tokens, or a list of either. */
export const CompletionsRequest = v.looseObject({
  ...InferenceBody.entries,
  prompt: v.optional(v.union([v.string(), v.array(v.unknown())])),
});

/** `GET /v1/models/{id}`; the last field is Docker Model Runner's. */
interface OpenaiModel {
  readonly id: string;
  readonly object: "model";
  readonly created: number;
  readonly owned_by: "docker";
  readonly dmr: Readonly<Record<string, string | number>>;
}

type Route = Pick<InferenceRoute, "enginePath" | "mode" | "schema">;

const INFERENCE: Readonly<Record<string, Route>> = {
  "/chat/completions": {
    enginePath: "/v1/chat/completions",
    mode: "completion",
    schema: ChatCompletionsRequest,
  },
  "/completions": {
    enginePath: "/v1/completions",
    mode: "completion",
    schema: CompletionsRequest,
  },
};

export function openaiRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  for (const prefix of V1_PREFIXES) {
    for (const [path, route] of Object.entries(INFERENCE)) {
      addInference(app, deps, { path: `${prefix}${path}`, ...route });
    }
    app.get(`${prefix}/models`, async (c) => {
      await engineOf(c);
      const models = await deps.listModels();
      return c.json({ object: "list", data: models.map(toOpenaiModel) });
    });
    app.get(`${prefix}/models/:name{.+}`, async (c) => {
      await engineOf(c);
      return c.json(toOpenaiModel(await deps.inspectModel(c.req.param("name"))));
    });
  }
  // Of servers that know no versions; the bodies are those of /v1/completions.
  addInference(app, deps, {
    path: "/generate",
    enginePath: "/v1/completions",
    mode: "completion",
    schema: CompletionsRequest,
  });
  addEmbeddingRoutes(app, deps);
  addRerankRoutes(app, deps);
  addTokenRoutes(app, deps);
  addImageRoutes(app, deps);
  addNotInstalledRoutes(app);
  return app;
}

// --- internal ---

function addInference(
  app: Hono<AppEnv>,
  deps: AppDeps,
  { path, ...route }: Route & { readonly path: string },
): void {
  const bodies = bodiesOf(deps);
  app.post(path, async (c) => {
    const backend = await engineOf(c);
    return serveInference(c, deps, { ...route, dialect: OPENAI, bodies, backend });
  });
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
