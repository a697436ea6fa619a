/**
 * OpenAI's routes, under `/v1`, `/engines/v1` and `/engines/<engine>/v1`. Of a body only `model`, `keep_alive` and
 * `context_size` are read; the engine gets it byte for byte.
 */
import { type Context, Hono } from "hono";
import type { Model } from "../../api/models.ts";
import type { Mode } from "../../runtime/backend.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { BodyBudget } from "../body-budget.ts";
import { OPENAI } from "../dialect.ts";
import { serveInference } from "../inference.ts";
import { requireBackend } from "../worker-request.ts";

const PREFIXES = ["/v1", "/engines/v1", "/engines/:engine/v1"] as const;

const INFERENCE: readonly { readonly path: string; readonly mode: Mode }[] = [
  { path: "/chat/completions", mode: "completion" },
  { path: "/completions", mode: "completion" },
];

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
      app.post(`${prefix}${path}`, async (c) => {
        const backend = await checkEngine(c);
        return serveInference(c, deps, { enginePath, mode, dialect: OPENAI, bodies, backend });
      });
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
