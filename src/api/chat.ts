/** OpenAI chat completions, as far as Tug itself reads or writes them; every other field passes untouched. */

/** Images are `data:` URLs; they come before the text. */
export type ContentPart =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image_url"; readonly image_url: { readonly url: string } };

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant" | "tool";
  readonly content: string | readonly ContentPart[];
}

export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly temperature?: number;
  readonly max_tokens?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly repeat_penalty?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  /** llama.cpp: `{ "enable_thinking": false }` turns reasoning off in templates that know it. */
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>>;
  readonly keep_alive?: string | number;
  /** Tokens of context the worker must have; Tug's own, engines ignore it. */
  readonly context_size?: number;
  /** The engine by name: part of the path, not of the body. */
  readonly backend?: string;
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

/** llama-server's own timings, passed on where the engine gives them. */
export interface Timings {
  readonly prompt_n?: number;
  readonly prompt_ms?: number;
  readonly prompt_per_second?: number;
  readonly predicted_n?: number;
  readonly predicted_ms?: number;
  readonly predicted_per_second?: number;
}

/** What a streamed answer is made of, in order; `done` comes exactly once, last. */
export type ChatEvent =
  | { readonly kind: "reasoning"; readonly text: string }
  | { readonly kind: "content"; readonly text: string }
  | {
      readonly kind: "done";
      readonly finishReason: string | null;
      readonly usage: Usage | null;
      readonly timings: Timings | null;
    };
