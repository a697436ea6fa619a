/** What an engine refuses, as a client gets it: in its own words if they are JSON, with the status it chose. */
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import type { Dialect } from "./dialect.ts";

/** The reason an engine gives is a sentence; a page of HTML is cut. Bytes. */
const MAX_BODY_BYTES = 64 * 1024;
/** What of a text that is not JSON is looked at, and what of it is shown. Characters. */
const MAX_LOOKED_AT = 4096;
const MAX_SHOWN = 200;

/** C++'s exception; what devices' libraries say. */
const OUT_OF_MEMORY = /\bbad_alloc\b|\bout of memory\b/i;

/**
 * What llama-server answers with 500 though the request is at fault: exceptions of its parser of requests.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-common.cpp `oaicompat_chat_params_parse`
 */
const REQUESTS_FAULT =
  /^Failed to parse (?:tools|messages)|^Missing |input is not supported|json\.exception|make GET request|^Failed to (?:load|decode|process) (?:image|audio|video|media)|^Invalid /i;
const NO_MEDIA = /^(image|audio|video) input is not supported/;
/**
 * Of llama-server, whose inputs of embeddings must fit into one batch; of vLLM, which counts no further than it has to;
 * of SGLang.
 */
const TOO_LONG = [
  /\((?<prompt>\d+) tokens\) (?:exceeds the available context size |is too large to process\b[^(]{0,200})\((?:current batch size: )?(?<context>\d+)(?: tokens)?\)/,
  /maximum context length is (?<context>\d+) tokens\. However, (?:your prompt contains|your request has|you requested) (?:at least )?(?<prompt>\d+) /,
  /input \((?<prompt>\d+) tokens\) is longer than the model's context length \((?<context>\d+) tokens\)/,
];
/** vLLM's, of a model whose family Tug does not know. */
const NO_TOOL_PARSER = /--tool-call-parser to be set/;
const NO_POOLING = /^Pooling type 'none'/;
/** C++'s, of a vocabulary that is looked into beyond its end. */
const NO_TOKEN = /_M_range_check/;

export interface Refusal {
  readonly status: number;
  readonly body: object;
}

/** Reads at most what a reason needs; whoever called lets go of the rest. */
export async function readRefusal(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    chunks.push(chunk);
    size += chunk.byteLength;
    if (size >= MAX_BODY_BYTES) break;
  }
  return Buffer.concat(chunks).subarray(0, MAX_BODY_BYTES);
}

/**
 * @param status 400 or more
 * @returns the engine's own JSON, or its text as ours
 * @throws context_length_exceeded; insufficient_memory; worker_failed (it says that it is still loading, which is not the client's to know)
 */
export function toRefusal(
  { status, bytes }: { readonly status: number; readonly bytes: Uint8Array },
  { modelName, dialect }: { readonly modelName: string; readonly dialect: Dialect },
): Refusal {
  const body = parseObject(bytes);
  const error = isRecord(body?.["error"]) ? body["error"] : body;
  const said = error?.["message"];
  const message = typeof said === "string" ? said : undefined;
  const sizes = findSizes(error, message);
  if (sizes !== undefined) throw tooLong(sizes, modelName);
  const known =
    inability(status, message, modelName) ??
    unparsedTools(message, modelName) ??
    unsuitedModel(message, modelName);
  if (known !== undefined) throw known;
  if (body === undefined) {
    const inText = inWords(status, bytes, modelName);
    throwIfExhausted(inText.message, modelName);
    return { status, body: dialect.errorBody(inText) };
  }
  return message === undefined ? { status, body } : refusalOf(status, message, { body, dialect });
}

// --- internal ---

function refusalOf(
  said: number,
  message: string,
  { body, dialect }: { readonly body: object; readonly dialect: Dialect },
): Refusal {
  const status = said >= 500 && REQUESTS_FAULT.test(message) ? 400 : said;
  return { status, body: dialect.refusalBody?.(status, message) ?? body };
}

function unparsedTools(message: string | undefined, modelName: string): AppError | undefined {
  if (message === undefined || !NO_TOOL_PARSER.test(message)) return undefined;
  const reason = "its engine does not know how the model calls tools";
  return new AppError("invalid_request", `cannot answer with \`${modelName}\`: ${reason}`, {
    hint: "Name its parser, such as `tug configure MODEL -- --tool-call-parser hermes`, or ask without tools.",
    details: { param: "tools" },
  });
}

/** For models of which nothing was known before they were loaded. */
function unsuitedModel(message: string | undefined, modelName: string): AppError | undefined {
  const [reason, param] = findUnsuited(message ?? "") ?? [];
  if (reason === undefined) return undefined;
  return new AppError("invalid_request", `cannot answer with \`${modelName}\`: ${reason}`, {
    hint: "Use another model; `tug list` shows which there are.",
    details: { param },
  });
}

/** @returns the reason, and the field that is wrong */
function findUnsuited(message: string): readonly [string, string] | undefined {
  const medium = NO_MEDIA.exec(message)?.[1];
  if (medium !== undefined) {
    return [`it takes no ${medium === "image" ? "images" : medium}`, "messages"];
  }
  if (NO_POOLING.test(message)) return ["it is for chat, not for embeddings", "model"];
  return NO_TOKEN.test(message) ? ["it has no such token", "tokens"] : undefined;
}

function parseObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Those of a prompt that is larger than the context; NaN where the engine does not tell. */
interface Sizes {
  readonly promptTokens: number;
  readonly contextTokens: number;
}

/**
 * llama-server gives both numbers as members, older builds only in the sentence.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server `ERROR_TYPE_EXCEED_CONTEXT_SIZE`
 */
function findSizes(
  error: Readonly<Record<string, unknown>> | undefined,
  message = "",
): Sizes | undefined {
  const found = TOO_LONG.map((pattern) => pattern.exec(message)?.groups).find(Boolean);
  if (error?.["type"] !== "exceed_context_size_error" && found === undefined) return undefined;
  return {
    promptTokens: Number(error?.["n_prompt_tokens"] ?? found?.["prompt"]),
    contextTokens: Number(error?.["n_ctx"] ?? found?.["context"]),
  };
}

/**
 * Agents shorten their conversation and try again if they find the words of Anthropic ("prompt is too long: N tokens >
 * M maximum") or of OpenAI ("maximum context length is M tokens"): many look at no code.
 */
function tooLong({ promptTokens, contextTokens }: Sizes, modelName: string): AppError {
  const isKnown = Number.isSafeInteger(promptTokens) && Number.isSafeInteger(contextTokens);
  const sizes = isKnown
    ? `prompt is too long: ${promptTokens} tokens > ${contextTokens} maximum (maximum context length is ${contextTokens} tokens)`
    : "prompt is too long: it exceeds the maximum context length";
  return new AppError("context_length_exceeded", `cannot answer with \`${modelName}\`: ${sizes}`, {
    hint: "Give it a larger context (`--ctx-size N`, or `tug configure MODEL --context-size N`), or send less.",
    details: isKnown ? { prompt_tokens: promptTokens, context_tokens: contextTokens } : undefined,
  });
}

/** What is the engine's own trouble, and may be none of another one's. */
function inability(
  status: number,
  message: string | undefined,
  modelName: string,
): AppError | undefined {
  if (status === 503 && (message === undefined || /loading/i.test(message))) {
    return new AppError(
      "worker_failed",
      `cannot answer with \`${modelName}\`: the engine was not ready`,
      { hint: "Try again in a moment; see `tug logs` if it happens again." },
    );
  }
  return message === undefined ? undefined : exhaustion(message, modelName);
}

/** What an engine says that could not allocate: it may live on, and answer nothing any more. */
export function exhaustion(message: string, modelName: string): AppError | undefined {
  if (!OUT_OF_MEMORY.test(message)) return undefined;
  return new AppError(
    "insufficient_memory",
    `cannot answer with \`${modelName}\`: the engine ran out of memory`,
    { hint: "Unload other models (`tug unload`), or give it a smaller context." },
  );
}

function throwIfExhausted(text: string, modelName: string): void {
  const error = exhaustion(text, modelName);
  if (error !== undefined) throw error;
}

function inWords(status: number, bytes: Uint8Array, modelName: string): AppError {
  const text = new TextDecoder()
    .decode(bytes)
    .slice(0, MAX_LOOKED_AT)
    .replaceAll(/<style[\s\S]*?<\/style>|<script[\s\S]*?<\/script>|<[^>]*>/gi, " ")
    .replaceAll(/[\p{Cc}\s]+/gu, " ")
    .trim()
    .slice(0, MAX_SHOWN);
  const reason = text === "" ? `the engine answered ${status}` : `the engine says: ${text}`;
  return new AppError(
    status < 500 ? "invalid_request" : "worker_failed",
    `cannot answer with \`${modelName}\`: ${reason}`,
    { hint: "See `tug logs` for what the engine says of it." },
  );
}
