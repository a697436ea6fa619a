/**
 * What Ollama answers. Members that are undefined are not sent.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md
 */

/** What an answer took: nanoseconds and tokens. In the last line of a stream, and in whole answers. */
export interface OllamaMetrics {
  readonly total_duration: number;
  /** The wait for the worker, which is nothing much if it was loaded. */
  readonly load_duration: number;
  /** All tokens of the prompt, those the engine still knew among them. */
  readonly prompt_eval_count?: number | undefined;
  readonly prompt_eval_duration?: number | undefined;
  readonly eval_count?: number | undefined;
  readonly eval_duration?: number | undefined;
}

interface Line extends Partial<OllamaMetrics> {
  /** As the client wrote it. */
  readonly model: string;
  /** RFC 3339. */
  readonly created_at: string;
  readonly done: boolean;
  /** With `done`. */
  readonly done_reason?: DoneReason | undefined;
  readonly logprobs?: readonly OllamaLogprob[] | undefined;
}

export type DoneReason = "stop" | "length" | "load" | "unload";

/** `POST /api/chat`: the whole answer, or a line of a stream. */
export interface OllamaChatAnswer extends Line {
  readonly message: OllamaAnswerMessage;
}

export interface OllamaAnswerMessage {
  readonly role: "assistant";
  readonly content: string;
  readonly thinking?: string | undefined;
  readonly tool_calls?: readonly OllamaToolCall[] | undefined;
}

export interface OllamaToolCall {
  readonly id?: string | undefined;
  readonly function: {
    readonly index: number;
    readonly name: string;
    readonly arguments: Readonly<Record<string, unknown>>;
  };
}

/** `POST /api/generate`: the whole answer, or a line of a stream. There is no `context`: it is deprecated. */
export interface OllamaGenerateAnswer extends Line {
  readonly response: string;
  readonly thinking?: string | undefined;
}

export interface OllamaTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes?: readonly number[] | undefined;
}

export interface OllamaLogprob extends OllamaTokenLogprob {
  readonly top_logprobs?: readonly OllamaTokenLogprob[] | undefined;
}

/** `POST /api/embed`. */
export interface OllamaEmbedAnswer {
  readonly model: string;
  /** One for each input, of length 1. */
  readonly embeddings: readonly (readonly number[])[];
  /** Nanoseconds. */
  readonly total_duration?: number | undefined;
  readonly load_duration?: number | undefined;
  readonly prompt_eval_count?: number | undefined;
}

/** `POST /api/embeddings`. */
export interface OllamaEmbeddingsAnswer {
  readonly embedding: readonly number[];
}
