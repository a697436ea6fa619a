/**
 * Reranking: which of some documents answer a question best. The words are Jina's and Cohere's; `/score` has vLLM's.
 *
 * @see https://jina.ai/reranker/ (`POST /v1/rerank`)
 * @see https://docs.cohere.com/reference/rerank
 * @see https://docs.vllm.ai/en/latest/models/pooling_models.html (score API)
 */
import type { Context, Hono } from "hono";
import * as v from "valibot";
import { AppError } from "../../errors.ts";
import { isRecord } from "../../oci/descriptor.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { OPENAI } from "../dialect.ts";
import { answerInference, type HeldBody, readInferenceBody } from "../inference.ts";
import type { Schema } from "../request-body.ts";
import type { Translation } from "../translate/translation.ts";
import { toRequestSettings, WORKER_FIELDS } from "../worker-request.ts";
import { bodiesOf, engineOf, PLAIN_PREFIXES, V1_PREFIXES } from "./engine-paths.ts";

const TEXT = v.pipe(v.string(), v.nonEmpty("must not be empty"));
const DOCUMENT = v.union([v.string(), v.looseObject({ text: v.string() })]);

/** `POST /v1/rerank`, `/rerank`. */
export const RerankRequest = v.looseObject({
  ...WORKER_FIELDS,
  query: TEXT,
  documents: v.pipe(v.array(DOCUMENT), v.nonEmpty("must not be empty")),
  top_n: v.pipe(
    v.nullish(v.pipe(v.number(), v.integer(), v.minValue(1))),
    v.description("How many are wanted, the best first; all unless given."),
  ),
  return_documents: v.nullish(v.boolean()),
});

/** `POST /v1/score`, `/score`. */
export const ScoreRequest = v.looseObject({
  ...WORKER_FIELDS,
  text_1: v.union([TEXT, v.pipe(v.array(TEXT), v.length(1, "must be one text"))]),
  text_2: v.union([TEXT, v.pipe(v.array(TEXT), v.nonEmpty("must not be empty"))]),
});

export interface RerankAnswer {
  readonly model: string;
  readonly object: "list";
  readonly usage: RerankUsage;
  /** The most relevant first. */
  readonly results: readonly {
    readonly index: number;
    /** As the model gives it: higher is better, of no fixed range. */
    readonly relevance_score: number;
    readonly document?: { readonly text: string };
  }[];
}

export interface ScoreAnswer {
  readonly id: string;
  readonly object: "list";
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
  /** In the order of `text_2`. */
  readonly data: readonly {
    readonly index: number;
    readonly object: "score";
    readonly score: number;
  }[];
  readonly usage: RerankUsage;
}

export interface RerankUsage {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
}

export function addRerankRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  const bodies = bodiesOf(deps);
  const rerank = async (c: Context<AppEnv>): Promise<Response> => {
    using held = await readInferenceBody(c.req.raw, { schema: RerankRequest, bodies });
    return await ask({ c, deps }, held, toRerank(held.value));
  };
  const score = async (c: Context<AppEnv>): Promise<Response> => {
    using held = await readInferenceBody(c.req.raw, { schema: ScoreRequest, bodies });
    return await ask({ c, deps }, held, toScore(held.value));
  };
  for (const prefix of [...V1_PREFIXES, ...PLAIN_PREFIXES]) {
    app.post(`${prefix}/rerank`, rerank);
    app.post(`${prefix}/score`, score);
  }
}

// --- internal ---

type Rerank = v.InferOutput<typeof RerankRequest>;
type Score = v.InferOutput<typeof ScoreRequest>;

/** What an engine is asked, and what its answer becomes. */
interface Question {
  readonly query: string;
  readonly documents: readonly string[];
  readonly toAnswer: (ranking: Ranking) => RerankAnswer | ScoreAnswer;
}

interface Ranking {
  /** The most relevant first. */
  readonly results: readonly { readonly index: number; readonly relevance_score: number }[];
  readonly usage: RerankUsage;
}

interface Asked {
  readonly c: Context<AppEnv>;
  readonly deps: AppDeps;
}

async function ask(
  { c, deps }: Asked,
  held: HeldBody<v.InferOutput<Schema>> & { readonly value: Rerank | Score },
  { query, documents, toAnswer }: Question,
): Promise<Response> {
  const { value, bytes } = held;
  const backend = await engineOf(c);
  const translation: Translation = {
    whole: (answer) => toAnswer(readRanking(answer, documents.length)),
  };
  return answerInference(
    {
      c,
      deps,
      route: { enginePath: "/v1/rerank", mode: "reranking", dialect: OPENAI, backend },
    },
    {
      modelName: value.model,
      settings: toRequestSettings(value, c.req.raw.headers),
      body: { model: value.model, query, documents },
      bytes,
      isStream: false,
      translation,
      held: held.keep(),
    },
  );
}

function toRerank({ model, query, documents, top_n: top, return_documents: returns }: Rerank) {
  const texts = documents.map((one) => (typeof one === "string" ? one : one.text));
  return {
    query,
    documents: texts,
    toAnswer: ({ results, usage }: Ranking): RerankAnswer => ({
      model,
      object: "list",
      usage,
      results: results.slice(0, top ?? texts.length).map((result) => ({
        ...result,
        ...(returns === true ? { document: { text: texts[result.index] ?? "" } } : {}),
      })),
    }),
  };
}

function toScore({ model, text_1: query, text_2: texts }: Score) {
  return {
    query: typeof query === "string" ? query : (query[0] ?? ""),
    documents: typeof texts === "string" ? [texts] : texts,
    toAnswer: ({ results, usage }: Ranking): ScoreAnswer => ({
      id: `score-${crypto.randomUUID()}`,
      object: "list",
      created: Math.floor(Date.now() / 1000),
      model,
      data: results
        .toSorted((one, other) => one.index - other.index)
        .map(({ index, relevance_score: score }) => ({ index, object: "score", score })),
      usage,
    }),
  };
}

/** @throws worker_failed */
function readRanking(answer: object, count: number): Ranking {
  const { results, usage } = answer as Readonly<Record<string, unknown>>;
  if (!Array.isArray(results)) throw unreadable();
  const read = results.map((result: unknown) => {
    const { index, relevance_score: score } = isRecord(result) ? result : {};
    if (!Number.isInteger(index) || Number(index) < 0 || Number(index) >= count) throw unreadable();
    return { index: Number(index), relevance_score: typeof score === "number" ? score : 0 };
  });
  const tokens = isRecord(usage) ? usage : {};
  const prompt = Number(tokens["prompt_tokens"] ?? 0);
  return {
    results: read.toSorted((one, other) => other.relevance_score - one.relevance_score),
    usage: { prompt_tokens: prompt, total_tokens: Number(tokens["total_tokens"] ?? prompt) },
  };
}

function unreadable(): AppError {
  return new AppError("worker_failed", "cannot read the answer of the engine: it ranks nothing", {
    hint: "Try again; see `tug logs` if it happens again.",
  });
}
