/**
 * Texts to tokens and back, and how many tokens a chat has. On whichever worker the model would run anyway.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md `/tokenize`, `/detokenize`
 * @see https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (tokenizer API: `prompt`, `count`)
 */
import type { Context, Hono } from "hono";
import * as v from "valibot";
import { AppError } from "../../errors.ts";
import type { Mode } from "../../runtime/backend.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { OPENAI } from "../dialect.ts";
import {
  answerInference,
  type HeldBody,
  InferenceBody,
  readInferenceBody,
  serveInference,
} from "../inference.ts";
import { modeOf } from "../suited-model.ts";
import { toRequestSettings, WORKER_FIELDS } from "../worker-request.ts";
import { bodiesOf, engineOf, PLAIN_PREFIXES, V1_PREFIXES } from "./engine-paths.ts";

/** `POST /tokenize`: `content` is llama-server's word, `prompt` vLLM's. */
export const TokenizeRequest = v.looseObject({
  ...WORKER_FIELDS,
  content: v.optional(v.string()),
  prompt: v.optional(v.string()),
  add_special: v.nullish(v.boolean()),
  add_special_tokens: v.nullish(v.boolean()),
  parse_special: v.nullish(v.boolean()),
  with_pieces: v.nullish(v.boolean()),
});

const MAX_TOKEN = 2 ** 31 - 1;

/** `POST /detokenize`. */
export const DetokenizeRequest = v.looseObject({
  ...WORKER_FIELDS,
  tokens: v.array(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_TOKEN))),
});

/** `POST /v1/chat/completions/input_tokens`: the body of a chat, which is not answered. */
export const InputTokensRequest = v.looseObject({
  ...InferenceBody.entries,
  messages: v.pipe(v.array(v.looseObject({ role: v.string() })), v.nonEmpty("must not be empty")),
});

export interface TokenizeAnswer {
  /** Or, with `with_pieces`, what each stands for: bytes where they are no whole characters. */
  readonly tokens: readonly (number | { readonly id: number; readonly piece: unknown })[];
  readonly count: number;
}

export interface DetokenizeAnswer {
  /** llama-server's word. */
  readonly content: string;
  /** vLLM's. */
  readonly prompt: string;
}

export function addTokenRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  const bodies = bodiesOf(deps);
  const tokenize = async (c: Context<AppEnv>): Promise<Response> => {
    using held = await readInferenceBody(c.req.raw, { schema: TokenizeRequest, bodies });
    return await ask({ c, deps, enginePath: "/tokenize" }, held, toTokenize(held.value));
  };
  const detokenize = async (c: Context<AppEnv>): Promise<Response> => {
    using held = await readInferenceBody(c.req.raw, { schema: DetokenizeRequest, bodies });
    const { model, tokens } = held.value;
    return await ask({ c, deps, enginePath: "/detokenize" }, held, {
      body: { model, tokens },
      toAnswer: ({ content }): DetokenizeAnswer => {
        const text = typeof content === "string" ? content : "";
        return { content: text, prompt: text };
      },
    });
  };
  for (const prefix of [...V1_PREFIXES, ...PLAIN_PREFIXES]) {
    app.post(`${prefix}/tokenize`, tokenize);
    app.post(`${prefix}/detokenize`, detokenize);
  }
  for (const prefix of V1_PREFIXES) {
    const path = "/chat/completions/input_tokens";
    app.post(`${prefix}${path}`, async (c) => {
      const backend = await engineOf(c);
      return serveInference(c, deps, {
        enginePath: `/v1${path}`,
        mode: "completion",
        dialect: OPENAI,
        schema: InputTokensRequest,
        bodies,
        backend,
      });
    });
  }
}

// --- internal ---

type Fields = Readonly<Record<string, unknown>>;

interface Question {
  readonly body: Fields;
  readonly toAnswer: (answer: Fields) => TokenizeAnswer | DetokenizeAnswer;
}

interface Asked {
  readonly c: Context<AppEnv>;
  readonly deps: AppDeps;
  readonly enginePath: string;
}

/** @throws invalid_request */
function toTokenize(value: v.InferOutput<typeof TokenizeRequest>): Question {
  const content = value.content ?? value.prompt;
  if (content === undefined) {
    throw new AppError("invalid_request", "cannot read the request: `content` is required", {
      hint: "For a chat use `/v1/chat/completions/input_tokens`.",
      details: { param: "content" },
    });
  }
  const special = value.add_special ?? value.add_special_tokens ?? false;
  return {
    body: {
      model: value.model,
      content,
      add_special: special,
      parse_special: value.parse_special ?? true,
      with_pieces: value.with_pieces ?? false,
    },
    toAnswer: ({ tokens }) => {
      const list = Array.isArray(tokens) ? (tokens as TokenizeAnswer["tokens"]) : [];
      return { tokens: list, count: list.length };
    },
  };
}

async function ask(
  { c, deps, enginePath }: Asked,
  held: HeldBody<v.InferOutput<v.ObjectSchema<typeof WORKER_FIELDS, undefined>>>,
  { body, toAnswer }: Question,
): Promise<Response> {
  const backend = await engineOf(c);
  const { value, bytes } = held;
  const mode = await naturalMode(c, deps, value.model);
  return answerInference(
    { c, deps, route: { enginePath, mode, dialect: OPENAI, backend } },
    {
      modelName: value.model,
      settings: toRequestSettings(value, c.req.raw.headers),
      body,
      bytes,
      isStream: false,
      translation: { whole: (answer) => toAnswer(answer as Fields) },
      held: held.keep(),
    },
  );
}

/** A worker for embeddings tokenizes as well as one for chats: none is loaded besides. */
async function naturalMode(c: Context<AppEnv>, deps: AppDeps, name: string): Promise<Mode> {
  const { id } = await deps.resolve(name, { trusted: c.env?.trusted === true });
  try {
    return modeOf(await deps.profileOf?.(id));
  } catch {
    return "completion";
  }
}
