/**
 * OpenAI's Responses on the wire, as far as models on this machine have them: text, reasoning and function calls.
 *
 * @see https://platform.openai.com/docs/api-reference/responses/object
 * @see https://platform.openai.com/docs/api-reference/responses-streaming
 */

export type ResponseStatus =
  | "queued"
  | "in_progress"
  | "completed"
  | "incomplete"
  | "failed"
  | "cancelled";

export type ItemStatus = "in_progress" | "completed" | "incomplete";

export interface TopLogprob {
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export interface TokenLogprob extends TopLogprob {
  readonly top_logprobs: readonly TopLogprob[];
}

export interface OutputText {
  readonly type: "output_text";
  readonly text: string;
  readonly annotations: readonly never[];
  readonly logprobs: readonly TokenLogprob[];
}

export interface OutputMessage {
  readonly id: string;
  readonly type: "message";
  readonly status: ItemStatus;
  readonly role: "assistant";
  readonly content: readonly OutputText[];
}

export interface ReasoningItem {
  readonly id: string;
  readonly type: "reasoning";
  readonly status: ItemStatus;
  /** Where a summary was asked for; it is the reasoning itself, and `content` is then empty. */
  readonly summary: readonly { readonly type: "summary_text"; readonly text: string }[];
  readonly content: readonly { readonly type: "reasoning_text"; readonly text: string }[];
  /** Where it was asked for: the reasoning in a form that is only to be sent back. */
  readonly encrypted_content?: string;
}

export interface FunctionCallItem {
  readonly id: string;
  readonly type: "function_call";
  readonly status: ItemStatus;
  readonly call_id: string;
  readonly name: string;
  /** JSON as text. */
  readonly arguments: string;
}

export type OutputItem = OutputMessage | ReasoningItem | FunctionCallItem;

export type InputPart =
  | { readonly type: "input_text"; readonly text: string }
  | { readonly type: "input_image"; readonly image_url: string; readonly detail: string }
  | {
      readonly type: "input_audio";
      readonly input_audio: { readonly data: string; readonly format: string };
    };

export interface InputMessage {
  readonly id: string;
  readonly type: "message";
  readonly status: ItemStatus;
  readonly role: "user" | "system" | "developer";
  readonly content: readonly InputPart[];
}

export interface FunctionCallOutputItem {
  readonly id: string;
  readonly type: "function_call_output";
  readonly status: ItemStatus;
  readonly call_id: string;
  readonly output: string | readonly InputPart[];
}

/** What a conversation is made of. */
export type ResponseItem = OutputItem | InputMessage | FunctionCallOutputItem;

export interface ResponseUsage {
  readonly input_tokens: number;
  readonly input_tokens_details: {
    readonly cached_tokens: number;
    readonly cache_write_tokens: number;
  };
  readonly output_tokens: number;
  /** 0: engines do not count it apart. */
  readonly output_tokens_details: { readonly reasoning_tokens: number };
  readonly total_tokens: number;
}

export interface ResponseFailure {
  readonly code: string;
  readonly message: string;
}

export interface FunctionTool {
  readonly type: "function";
  readonly name: string;
  readonly description: string | null;
  readonly parameters: Readonly<Record<string, unknown>> | null;
  readonly strict: boolean;
}

export type ToolMode = "auto" | "none" | "required";

export type ToolChoice =
  | ToolMode
  | { readonly type: "function"; readonly name: string }
  | {
      readonly type: "allowed_tools";
      readonly mode: "auto" | "required";
      readonly tools: readonly { readonly type: "function"; readonly name: string }[];
    };

export type TextFormat =
  | { readonly type: "text" }
  | { readonly type: "json_object" }
  | {
      readonly type: "json_schema";
      readonly name: string;
      readonly description: string | null;
      readonly schema: Readonly<Record<string, unknown>>;
      readonly strict: boolean;
    };

export interface ResponseObject {
  readonly id: string;
  readonly object: "response";
  /** Seconds since 1970. */
  readonly created_at: number;
  readonly status: ResponseStatus;
  readonly background: boolean;
  /** Seconds since 1970; null unless it is completed. */
  readonly completed_at: number | null;
  readonly error: ResponseFailure | null;
  readonly incomplete_details: {
    readonly reason: "max_output_tokens" | "content_filter";
  } | null;
  readonly instructions: string | null;
  readonly max_output_tokens: number | null;
  readonly max_tool_calls: number | null;
  /** As the client wrote it. */
  readonly model: string;
  readonly output: readonly OutputItem[];
  readonly parallel_tool_calls: boolean;
  readonly previous_response_id: string | null;
  readonly prompt_cache_key: string | null;
  readonly reasoning: { readonly effort: string | null; readonly summary: string | null };
  readonly safety_identifier: string | null;
  readonly service_tier: string;
  /** Whether it can be asked for again. */
  readonly store: boolean;
  readonly temperature: number | null;
  readonly text: { readonly format: TextFormat; readonly verbosity: string };
  readonly tool_choice: ToolChoice;
  readonly tools: readonly FunctionTool[];
  readonly top_logprobs: number;
  readonly top_p: number | null;
  readonly truncation: "disabled";
  readonly usage: ResponseUsage | null;
  readonly user: string | null;
  readonly metadata: Readonly<Record<string, string>>;
}

/** `GET /v1/responses/{id}/input_items` */
export interface ResponseItemList {
  readonly object: "list";
  readonly data: readonly ResponseItem[];
  readonly first_id: string | null;
  readonly last_id: string | null;
  readonly has_more: boolean;
}

/** `DELETE /v1/responses/{id}` */
export interface DeletedResponse {
  readonly id: string;
  readonly object: "response";
  readonly deleted: true;
}
