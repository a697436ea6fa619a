/** `POST /api/embed` and `/api/embeddings`. */
import type { Context, Hono } from "hono";
import { systemClock } from "../../../runtime/clock.ts";
import type { BodyBudget } from "../../body-budget.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { OLLAMA } from "../../dialect.ts";
import { answerInference, type HeldBody, readInferenceBody } from "../../inference.ts";
import type { OllamaEmbedAnswer, OllamaEmbeddingsAnswer } from "../../translate/ollama/answers.ts";
import {
  type EngineEmbeddings,
  readEmbeddings,
  toInputs,
} from "../../translate/ollama/embeddings.ts";
import { toSettings } from "../../translate/ollama/options.ts";
import {
  type EmbedInput,
  OllamaEmbedRequest,
  OllamaEmbeddingsRequest,
} from "../../translate/ollama/requests.ts";
import { fitInputs } from "./fit-inputs.ts";
import { loadOrUnload } from "./load.ts";
import { requireName } from "./requests.ts";

export function addEmbedRoutes(app: Hono<AppEnv>, deps: AppDeps, bodies: BodyBudget): void {
  app.post("/api/embed", async (c) => {
    using held = await readInferenceBody(c.req.raw, { schema: OllamaEmbedRequest, bodies });
    const input = held.value;
    const toAnswer = ({ vectors, promptTokens, totalMs, loadMs }: Embedded): OllamaEmbedAnswer => ({
      model: requireName(input),
      embeddings: vectors,
      total_duration: Math.round(totalMs * NS_PER_MS),
      load_duration: Math.round(loadMs * NS_PER_MS),
      prompt_eval_count: promptTokens,
    });
    return await embed({ c, deps, held, input, toAnswer });
  });
  app.post("/api/embeddings", async (c) => {
    using held = await readInferenceBody(c.req.raw, { schema: OllamaEmbeddingsRequest, bodies });
    const { prompt, ...rest } = held.value;
    const input = { ...rest, input: prompt };
    return await embed({ c, deps, held, input, toAnswer: toFirst });
  });
}

// --- internal ---

const NS_PER_MS = 1_000_000;

interface Embedded extends EngineEmbeddings {
  readonly totalMs: number;
  readonly loadMs: number;
}

function toFirst({ vectors }: Embedded): OllamaEmbeddingsAnswer {
  return { embedding: vectors[0] ?? [] };
}

interface EmbedJob {
  readonly c: Context<AppEnv>;
  readonly deps: AppDeps;
  readonly held: HeldBody<unknown>;
  readonly input: EmbedInput;
  readonly toAnswer: (embedded: Embedded) => object;
}

async function embed({ c, deps, held, input, toAnswer }: EmbedJob): Promise<Response> {
  const { clock = systemClock } = deps;
  const startedMs = clock.now();
  const modelName = requireName(input);
  const settings = toSettings(input, c.req.raw.headers);
  const target = { modelName, mode: "embedding", settings } as const;
  const texts = toInputs(input.input);
  if (texts.length === 0) {
    await loadOrUnload({ c, deps }, target);
    const totalMs = clock.now() - startedMs;
    return c.json(toAnswer({ vectors: [], promptTokens: 0, totalMs, loadMs: totalMs }));
  }
  const isCut = input.truncate !== false;
  const { inputs, waitedMs } = isCut
    ? await fitInputs({ c, deps }, target, texts)
    : { inputs: texts, waitedMs: 0 };
  const route = { enginePath: "/v1/embeddings", mode: "embedding", dialect: OLLAMA } as const;
  return answerInference(
    { c, deps, route },
    {
      modelName,
      settings,
      body: { model: modelName, input: inputs, encoding_format: "float" },
      bytes: held.bytes,
      isStream: false,
      translation: {
        whole: (answer, facts) =>
          toAnswer({
            ...readEmbeddings(answer, input.dimensions),
            totalMs: clock.now() - startedMs,
            loadMs: waitedMs + facts.waitedMs,
          }),
      },
      held: held.keep(),
    },
  );
}
