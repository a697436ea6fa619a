/** How an API speaks where an answer is not simply the engine's: what keeps a waiting client, and how a stream fails. */
import type { AppError } from "../errors.ts";
import { toErrorBody } from "./error-response.ts";
import type { InferenceFacts } from "./observer.ts";

export interface Dialect {
  readonly name: InferenceFacts["dialect"];
  /**
   * Shown by nobody: it only keeps proxies and clients from giving up. Absent where a stream has no room for it.
   *
   * @param text one line
   */
  readonly comment?: (text: string) => string;
  /** The body of a failed request. */
  errorBody(error: AppError): object;
  /** The last of a stream that fails after it began. @param body ours, or the engine's own */
  errorEvent(body: object): string;
}

/**
 * @see https://platform.openai.com/docs/api-reference/chat-streaming
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream (a colon begins a comment)
 */
export const OPENAI: Dialect = {
  name: "openai",
  comment: (text) => `: ${text}\n\n`,
  errorBody: toErrorBody,
  errorEvent: (body) => `data: ${JSON.stringify(body)}\n\n`,
};
