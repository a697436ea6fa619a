/** What an engine refuses, as a client gets it: in its own words if they are JSON, with the status it chose. */
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import type { Dialect } from "./dialect.ts";

/** The reason an engine gives is a sentence; a page of HTML is cut. Bytes. */
const MAX_BODY_BYTES = 64 * 1024;
/** What of a text that is not JSON is looked at, and what of it is shown. Characters. */
const MAX_LOOKED_AT = 4096;
const MAX_SHOWN = 200;

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
 * @throws context_length_exceeded; worker_failed (it says that it is still loading, which is not the client's to know)
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
  if (status === 503 && (message === undefined || /loading/i.test(message))) {
    throw new AppError(
      "worker_failed",
      `cannot answer with \`${modelName}\`: the engine was not ready`,
      { hint: "Try again in a moment; see `tug logs` if it happens again." },
    );
  }
  if (body !== undefined) return { status, body };
  return { status, body: dialect.errorBody(inWords(status, bytes, modelName)) };
}

// --- internal ---

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
  const found = /\((\d+) tokens\) exceeds the available context size \((\d+) tokens\)/.exec(
    message,
  );
  if (error?.["type"] !== "exceed_context_size_error" && found === null) return undefined;
  return {
    promptTokens: Number(error?.["n_prompt_tokens"] ?? found?.[1]),
    contextTokens: Number(error?.["n_ctx"] ?? found?.[2]),
  };
}

function tooLong({ promptTokens, contextTokens }: Sizes, modelName: string): AppError {
  const isKnown = Number.isSafeInteger(promptTokens) && Number.isSafeInteger(contextTokens);
  const sizes = isKnown
    ? `the prompt has ${promptTokens} tokens, the context ${contextTokens}`
    : "the prompt is larger than the context";
  return new AppError("context_length_exceeded", `cannot answer with \`${modelName}\`: ${sizes}`, {
    hint: "Give it a larger context (`--ctx-size N`, or `tug configure MODEL --context-size N`), or send less.",
    details: isKnown ? { prompt_tokens: promptTokens, context_tokens: contextTokens } : undefined,
  });
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
