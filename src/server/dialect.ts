/** How an API speaks where an answer is not simply the engine's: what keeps a waiting client, and how things fail. */
import type { AppError } from "../errors.ts";
import { toErrorBody, toRefusalBody } from "./error-response.ts";
import type { InferenceFacts } from "./observer.ts";

export interface Dialect {
  readonly name: InferenceFacts["dialect"];
  /** The media type of its streams. */
  readonly streamType: string;
  /**
   * Shown by nobody: it only keeps proxies and clients from giving up. Absent where a stream has no room for it.
   *
   * @param text one line
   */
  readonly comment?: (text: string) => string;
  /** The body of a failed request. */
  errorBody(error: AppError): object;
  /** Of what an engine refuses; absent: as the engine says it. @param status 400 or more */
  readonly refusalBody?: (status: number, message: string) => object;
  /** The last of a stream that fails after it began. @param body ours, or the engine's own */
  errorEvent(body: object): string;
}

/**
 * @see https://platform.openai.com/docs/api-reference/chat-streaming
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream (a colon begins a comment)
 */
export const OPENAI: Dialect = {
  name: "openai",
  streamType: "text/event-stream",
  comment: (text) => `: ${text}\n\n`,
  errorBody: toErrorBody,
  refusalBody: toRefusalBody,
  errorEvent: (body) => `data: ${JSON.stringify(body)}\n\n`,
};

/**
 * @see https://docs.anthropic.com/en/api/errors
 * @see https://docs.anthropic.com/en/api/messages-streaming (`ping` may come anywhere)
 */
export const ANTHROPIC: Dialect = {
  name: "anthropic",
  streamType: "text/event-stream",
  comment: () => `event: ping\ndata: {"type":"ping"}\n\n`,
  errorBody: (error) => anthropicError(error.status, sentence(error)),
  refusalBody: anthropicError,
  errorEvent: (body) => `event: error\ndata: ${JSON.stringify(body)}\n\n`,
};

/** @see https://github.com/ollama/ollama/blob/main/docs/api.md (`{"error": …}`; in a stream as its last line) */
export const OLLAMA: Dialect = {
  name: "ollama",
  streamType: "application/x-ndjson",
  errorBody: (error) => ({ error: sentence(error) }),
  refusalBody: (_, message) => ({ error: message }),
  errorEvent: (body) => `${JSON.stringify(body)}\n`,
};

/** Whose clients ask on a path, also where nothing answers. */
export function dialectOf(path: string): Dialect {
  if (/^\/api(?:\/|$)/.test(path)) return OLLAMA;
  if (/^\/anthropic(?:\/|$)|\/v1\/messages(?:\/|$)/.test(path)) return ANTHROPIC;
  return OPENAI;
}

// --- internal ---

/** Anthropic's and Ollama's errors have no room for a hint of its own. */
function sentence({ message, hint }: AppError): string {
  return hint === undefined ? message : `${message}. ${hint}`;
}

const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
  504: "timeout_error",
};

function anthropicError(status: number, message: string): object {
  const type = ANTHROPIC_TYPES[status] ?? (status < 500 ? "invalid_request_error" : "api_error");
  return { type: "error", error: { type, message } };
}
