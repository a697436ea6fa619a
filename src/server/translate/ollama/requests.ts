/**
 * What Ollama's clients send to be answered.
 *
 * Its numbers may have fractions where it wants whole ones: they are cut off, as there.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md
 */
import * as v from "valibot";

/** An int32 in engines. */
const MAX_NUMBER = 2 ** 31 - 1;
/** @see https://github.com/ollama/ollama/blob/main/docs/api.md (`top_logprobs`) */
const MAX_TOP_LOGPROBS = 20;

const OUT_OF_RANGE = "is out of range";

const NUMBER = v.nullish(
  v.pipe(v.number(), v.minValue(-MAX_NUMBER, OUT_OF_RANGE), v.maxValue(MAX_NUMBER, OUT_OF_RANGE)),
);
const SEED = v.nullish(
  v.pipe(
    v.number(),
    v.minValue(Number.MIN_SAFE_INTEGER, OUT_OF_RANGE),
    v.maxValue(Number.MAX_SAFE_INTEGER, OUT_OF_RANGE),
  ),
);
const CONTEXT = v.nullish(
  v.pipe(v.number(), v.minValue(1, OUT_OF_RANGE), v.maxValue(MAX_NUMBER, OUT_OF_RANGE)),
);

/** What is not named here is ignored, as options that Ollama does not know are. */
export const OllamaOptions = v.looseObject({
  temperature: NUMBER,
  top_k: NUMBER,
  top_p: NUMBER,
  min_p: NUMBER,
  typical_p: NUMBER,
  repeat_last_n: v.pipe(NUMBER, v.description("Tokens; 0 is none, -1 all of the context.")),
  repeat_penalty: NUMBER,
  presence_penalty: NUMBER,
  frequency_penalty: NUMBER,
  mirostat: NUMBER,
  mirostat_tau: NUMBER,
  mirostat_eta: NUMBER,
  seed: v.pipe(SEED, v.description("-1 is a random one.")),
  stop: v.nullish(v.union([v.string(), v.array(v.string())])),
  num_predict: v.pipe(NUMBER, v.description("Tokens at most; 0 and less are no limit.")),
  num_keep: NUMBER,
  num_ctx: v.pipe(
    CONTEXT,
    v.description("Tokens of the context; a larger one that is loaded will do."),
  ),
});

/** Of every request about a model. */
export const NAMES = {
  model: v.nullish(v.string()),
  name: v.pipe(
    v.nullish(v.string()),
    v.description("An older word for `model`; official clients still say it."),
  ),
};

const COMMON = {
  ...NAMES,
  keep_alive: v.pipe(
    v.nullish(v.union([v.string(), v.number()])),
    v.description("A duration such as `5m`, seconds, 0 to unload afterwards, or -1 for ever."),
  ),
  options: v.nullish(OllamaOptions),
};

const GENERATION = {
  ...COMMON,
  stream: v.pipe(v.nullish(v.boolean()), v.description("Default: true.")),
  format: v.pipe(
    v.nullish(v.union([v.string(), v.record(v.string(), v.unknown())])),
    v.description("`json`, or a JSON schema."),
  ),
  think: v.nullish(v.union([v.boolean(), v.picklist(["low", "medium", "high", "max"])])),
  logprobs: v.nullish(v.boolean()),
  top_logprobs: v.nullish(
    v.pipe(
      v.number(),
      v.minValue(0, "must be from 0 to 20"),
      v.maxValue(MAX_TOP_LOGPROBS, "must be from 0 to 20"),
    ),
  ),
};

const IMAGES = v.nullish(v.array(v.string()));

export const OllamaMessage = v.looseObject({
  role: v.pipe(v.string(), v.description("`system`, `user`, `assistant` or `tool`.")),
  content: v.nullish(v.string()),
  thinking: v.nullish(v.string()),
  images: v.pipe(IMAGES, v.description("Base64.")),
  tool_calls: v.nullish(
    v.array(
      v.looseObject({
        id: v.nullish(v.string()),
        function: v.looseObject({
          name: v.string(),
          arguments: v.nullish(v.record(v.string(), v.unknown())),
        }),
      }),
    ),
  ),
  tool_name: v.nullish(v.string()),
  tool_call_id: v.nullish(v.string()),
});

/** `POST /api/chat`. */
export const OllamaChatRequest = v.looseObject({
  ...GENERATION,
  messages: v.pipe(
    v.nullish(v.array(OllamaMessage)),
    v.description("None: the model is only loaded, or unloaded with `keep_alive` 0."),
  ),
  tools: v.nullish(
    v.array(
      v.looseObject({
        type: v.nullish(v.string()),
        function: v.looseObject({
          name: v.string(),
          description: v.nullish(v.string()),
          parameters: v.nullish(v.record(v.string(), v.unknown())),
        }),
      }),
    ),
  ),
});

/** `POST /api/generate`. */
export const OllamaGenerateRequest = v.looseObject({
  ...GENERATION,
  prompt: v.pipe(
    v.nullish(v.string()),
    v.description("None: the model is only loaded, or unloaded with `keep_alive` 0."),
  ),
  system: v.nullish(v.string()),
  template: v.pipe(
    v.nullish(v.string()),
    v.description("Must be empty: templates of Ollama's are not understood."),
  ),
  raw: v.pipe(v.nullish(v.boolean()), v.description("The prompt goes to the model as it is.")),
  images: v.pipe(IMAGES, v.description("Base64.")),
  suffix: v.pipe(
    v.nullish(v.string()),
    v.description("What comes after the answer, for models that can fill in the middle."),
  ),
  context: v.pipe(
    v.nullish(v.array(v.number())),
    v.description("Ignored: no answer has one to send back."),
  ),
});

/** `POST /api/embed`. */
export const OllamaEmbedRequest = v.looseObject({
  ...COMMON,
  input: v.nullish(v.union([v.string(), v.array(v.string())])),
  truncate: v.pipe(
    v.nullish(v.boolean()),
    v.description("Cuts off what is more than the model takes. Default: true."),
  ),
  dimensions: v.nullish(
    v.pipe(v.number(), v.minValue(0, OUT_OF_RANGE), v.maxValue(MAX_NUMBER, OUT_OF_RANGE)),
  ),
});

/** `POST /api/embeddings`. */
export const OllamaEmbeddingsRequest = v.looseObject({
  ...COMMON,
  prompt: v.nullish(v.string()),
});

export type OptionsInput = v.InferOutput<typeof OllamaOptions>;
export type MessageInput = v.InferOutput<typeof OllamaMessage>;
export type ChatInput = v.InferOutput<typeof OllamaChatRequest>;
export type GenerateInput = v.InferOutput<typeof OllamaGenerateRequest>;
export type EmbedInput = v.InferOutput<typeof OllamaEmbedRequest>;
