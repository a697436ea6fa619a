/** What Ollama's requests say besides their text, in the words of engines. Pure. */
import type { ModelSettings } from "../../../api/settings.ts";
import { AppError } from "../../../errors.ts";
import { toRequestSettings } from "../../worker-request.ts";
import type { ChatInput, EmbedInput, OptionsInput } from "./requests.ts";

/** The engine keeps so many tokens for each answer; more are never looked at. Tokens. */
const MAX_REPEAT_LAST_N = 65_536;

type Body = Readonly<Record<string, unknown>>;

/**
 * `options.num_gpu`, `num_thread`, `num_batch` and what else shapes a process is ignored: a model that runs is not
 * loaded anew for what clients send unasked.
 *
 * @throws invalid_request
 */
export function toSettings(
  { keep_alive, options }: Pick<EmbedInput, "keep_alive" | "options">,
  headers: Headers,
): ModelSettings {
  const context = options?.num_ctx;
  return toRequestSettings(
    {
      keep_alive,
      context_size: typeof context === "number" ? Math.trunc(context) : undefined,
    },
    headers,
  );
}

/** Members that are not said are not there, so that the model's own defaults stay. */
export function toSampling(options: OptionsInput | null | undefined): Body {
  if (options === undefined || options === null) return {};
  const { num_predict, num_keep, seed, stop } = options;
  return said({
    temperature: options.temperature,
    top_k: whole(options.top_k),
    top_p: options.top_p,
    min_p: options.min_p,
    typical_p: options.typical_p,
    repeat_last_n: toRepeatLastN(options),
    repeat_penalty: options.repeat_penalty,
    presence_penalty: options.presence_penalty,
    frequency_penalty: options.frequency_penalty,
    mirostat: whole(options.mirostat),
    mirostat_tau: options.mirostat_tau,
    mirostat_eta: options.mirostat_eta,
    n_keep: whole(num_keep),
    // Engines take 32 bits without a sign; -1 is random, as it is in Ollama.
    seed: typeof seed === "number" ? seed >>> 0 : undefined,
    stop: typeof stop === "string" ? [stop] : stop,
    ...(typeof num_predict === "number" ? { max_tokens: toMaxTokens(num_predict) } : {}),
  });
}

/** @returns the schema the answer must have; undefined: any text @throws invalid_request */
export function toSchema(format: ChatInput["format"]): object | "json" | undefined {
  if (format === undefined || format === null || format === "") return undefined;
  if (typeof format === "object" || format === "json") return format;
  throw new AppError(
    "invalid_request",
    "cannot read the request: `format` must be `json` or a JSON schema",
  );
}

export function toResponseFormat(format: ChatInput["format"]): Body {
  const schema = toSchema(format);
  if (schema === undefined) return {};
  if (schema === "json") return { response_format: { type: "json_object" } };
  return {
    response_format: { type: "json_schema", json_schema: { name: "format", strict: true, schema } },
  };
}

// --- internal ---

/** Null: no limit, whatever the model's defaults say. */
function toMaxTokens(value: number): number | null {
  const tokens = Math.trunc(value);
  return tokens > 0 ? tokens : null;
}

function toRepeatLastN({ repeat_last_n, num_ctx }: OptionsInput): number | undefined {
  const tokens = whole(repeat_last_n);
  if (tokens === undefined) return undefined;
  const all = whole(num_ctx) ?? MAX_REPEAT_LAST_N;
  return Math.min(tokens < 0 ? all : tokens, MAX_REPEAT_LAST_N);
}

function whole(value: number | null | undefined): number | undefined {
  return typeof value === "number" ? Math.trunc(value) : undefined;
}

/** `max_tokens` alone may be null. */
function said(body: Body): Body {
  return Object.fromEntries(
    Object.entries(body).filter(
      ([name, value]) => value !== undefined && (value !== null || name === "max_tokens"),
    ),
  );
}
