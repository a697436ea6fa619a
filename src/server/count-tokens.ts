/** How many tokens a conversation has for its model: with its template, its tools, and what settings add to it. */
import { AppError } from "../errors.ts";
import { answerInference, type InferenceContext, type InferenceRequest } from "./inference.ts";
import type { Dialect } from "./dialect.ts";
import type { ChatRequest } from "./translate/chat.ts";

export interface CountContext extends Omit<InferenceContext, "route"> {
  readonly dialect: Dialect;
  /** The engine that the path names. */
  readonly backend?: string | undefined;
}

export interface CountRequest extends Pick<
  InferenceRequest,
  "modelName" | "settings" | "bytes" | "held"
> {
  /** As an engine would get it to answer. */
  readonly body: ChatRequest;
  /** The body of the answer. */
  readonly toBody: (tokens: number) => object;
}

/** llama-server's, since build 8700 or so. @see https://platform.openai.com/docs/api-reference/responses (its shape) */
const ENGINE_PATH = "/v1/chat/completions/input_tokens";

/**
 * It needs a worker as an answer does, and occupies none of its slots.
 *
 * @throws as `answerInference`; worker_failed (the engine does not count)
 */
export function countTokens(context: CountContext, asked: CountRequest): Promise<Response> {
  const { dialect, backend, ...rest } = context;
  const route = { enginePath: ENGINE_PATH, mode: "completion" as const, dialect, backend };
  const { toBody, ...request } = asked;
  const translation = { whole: (answer: object) => toBody(readCount(answer)) };
  return answerInference({ ...rest, route }, { ...request, isStream: false, translation });
}

// --- internal ---

/** @throws worker_failed */
function readCount(answer: object): number {
  const count = (answer as Readonly<Record<string, unknown>>)["input_tokens"];
  if (typeof count === "number" && Number.isSafeInteger(count) && count >= 0) return count;
  throw new AppError("worker_failed", "cannot count the tokens: the engine gave no number", {
    hint: "See `tug logs` for what the engine says of it.",
  });
}
