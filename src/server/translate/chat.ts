/**
 * What engines answer on `/v1/chat/completions`, as far as other APIs' answers are made of it. Members may be missing:
 * engines differ, and what is not there is not said.
 *
 * @see https://platform.openai.com/docs/api-reference/chat/object
 * @see https://platform.openai.com/docs/api-reference/chat-streaming
 */

/** A request to an engine. `model` is what the client wrote. */
export type ChatRequest = Readonly<Record<string, unknown>> & {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
};

export interface ChatMessage {
  readonly role: "system" | "developer" | "user" | "assistant" | "tool";
  readonly content?: string | readonly ChatPart[] | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly ChatToolCall[];
  readonly tool_call_id?: string;
  readonly name?: string;
}

export type ChatPart =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image_url"; readonly image_url: { readonly url: string } }
  | {
      readonly type: "input_audio";
      readonly input_audio: { readonly data: string; readonly format: string };
    };

export interface ChatToolCall {
  readonly id: string;
  readonly type: "function";
  /** Arguments are JSON as text. */
  readonly function: { readonly name: string; readonly arguments: string };
}

/** `length`: the limit of tokens, or the context's end. */
export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter";

export interface ChatUsage {
  readonly prompt_tokens?: number;
  readonly completion_tokens?: number;
  readonly total_tokens?: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number };
}

/** llama-server's own, in the last chunk and in whole answers. */
export interface ChatTimings {
  /** Tokens of the prompt that were read, those that were in the cache not among them. */
  readonly prompt_n?: number;
  readonly prompt_ms?: number;
  readonly predicted_n?: number;
  readonly predicted_ms?: number;
  readonly cache_n?: number;
}

/** llama-server's own, in the last chunk and in whole answers, if `verbose` was asked for. */
export interface ChatVerbose {
  /** `word`: one of `stop`, or of the template's own. */
  readonly stop_type?: string;
  readonly stopping_word?: string;
}

export interface ChatAnswer {
  readonly id?: string;
  /** Seconds since 1970. */
  readonly created?: number;
  readonly choices?: readonly {
    readonly index?: number;
    readonly message?: {
      readonly content?: string | null;
      readonly reasoning_content?: string | null;
      readonly tool_calls?: readonly Partial<ChatToolCall>[] | null;
    };
    readonly finish_reason?: FinishReason | null;
    readonly logprobs?: unknown;
  }[];
  readonly usage?: ChatUsage | null;
  readonly timings?: ChatTimings;
  readonly __verbose?: ChatVerbose;
}

/** One call's piece: `id` and `name` come once, with the first; arguments in pieces. */
export interface ToolCallDelta {
  readonly index?: number;
  readonly id?: string;
  readonly function?: { readonly name?: string; readonly arguments?: string };
}

export interface ChatChunk {
  readonly id?: string;
  readonly created?: number;
  readonly choices?: readonly {
    readonly index?: number;
    readonly delta?: {
      readonly content?: string | null;
      readonly reasoning_content?: string | null;
      readonly tool_calls?: readonly ToolCallDelta[] | null;
    };
    readonly finish_reason?: FinishReason | null;
    readonly logprobs?: unknown;
  }[];
  /** In a last chunk without choices, if `stream_options.include_usage` was asked for. */
  readonly usage?: ChatUsage | null;
  readonly timings?: ChatTimings;
  readonly __verbose?: ChatVerbose;
}
