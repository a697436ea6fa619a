/**
 * An engine's answer as Ollama's: whole, or as lines of JSON of which the last one tells how it ended and what it took.
 * Pure but for the clock.
 */
import type { Clock } from "../../../runtime/clock.ts";
import type { ChatAnswer, ChatChunk, ChatTimings, ChatUsage } from "../chat.ts";
import type { AnswerFacts, AnswerStream, Translation } from "../translation.ts";
import type {
  OllamaChatAnswer,
  OllamaGenerateAnswer,
  OllamaLogprob,
  OllamaMetrics,
  OllamaToolCall,
} from "./answers.ts";
import type { Piece, ReadPiece } from "./pieces.ts";
import { ToolCalls } from "./tool-calls.ts";

const NS_PER_MS = 1_000_000;

/** What one line says. */
export interface Said {
  readonly content: string;
  readonly thinking?: string;
  readonly calls?: readonly OllamaToolCall[];
}

/** How the routes differ: where in a line the text is. */
export type Shape = (
  said: Said,
) => Pick<OllamaChatAnswer, "message"> | Pick<OllamaGenerateAnswer, "response" | "thinking">;

export interface GenerationOptions {
  /** As the client wrote it. */
  readonly modelName: string;
  readonly read: ReadPiece;
  readonly shape: Shape;
  readonly clock: Pick<Clock, "now">;
  /** The client wants no thinking: what an engine sends all the same is left out. */
  readonly hidesThinking?: boolean;
}

export const CHAT_SHAPE: Shape = ({ content, thinking = "", calls = [] }) => ({
  message: {
    role: "assistant",
    content,
    ...(thinking === "" ? {} : { thinking }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  },
});

export const GENERATE_SHAPE: Shape = ({ content, thinking = "" }) => ({
  response: content,
  ...(thinking === "" ? {} : { thinking }),
});

/** One request's; it counts from now on. */
export function ollamaGeneration(options: GenerationOptions): Translation {
  const startedMs = options.clock.now();
  return {
    whole: (answer, facts) => toWhole(answer, { ...options, startedMs, facts }),
    stream: new GenerationStream({ ...options, startedMs }),
  };
}

/** A line that stands for itself: nothing was asked, the model is only loaded or unloaded. */
export function ollamaLoaded(
  { modelName, shape, clock }: Pick<GenerationOptions, "modelName" | "shape" | "clock">,
  reason: "load" | "unload",
): object {
  const line = { model: modelName, created_at: timeOf(clock), ...shape({ content: "" }) };
  return { ...line, done: true, done_reason: reason };
}

// --- internal ---

interface Started extends GenerationOptions {
  readonly startedMs: number;
}

interface Ended {
  readonly finish: Piece["finish"];
  readonly usage: ChatUsage | undefined;
  readonly timings: ChatTimings | undefined;
}

function toWhole(answer: ChatAnswer, options: Started & { readonly facts: AnswerFacts }): object {
  const { modelName, read, shape, clock, hidesThinking, facts } = options;
  const piece = read(answer as Readonly<Record<string, unknown>>);
  const calls = new ToolCalls();
  const all = [...calls.push(piece.calls), ...calls.end(piece.finish === "length")];
  const thinking = hidesThinking === true ? "" : piece.thinking;
  return {
    model: modelName,
    created_at: timeOf(clock),
    ...shape({ content: piece.content, thinking, calls: all }),
    done: true,
    done_reason: piece.finish ?? "stop",
    ...metricsOf(piece, options, facts),
    ...logprobsOf(piece.logprobs),
  };
}

class GenerationStream implements AnswerStream {
  readonly #options: Started;
  readonly #calls = new ToolCalls();
  #facts: AnswerFacts = { waitedMs: 0 };
  #ended: Ended = { finish: undefined, usage: undefined, timings: undefined };
  #areCallsOver = false;

  constructor(options: Started) {
    this.#options = options;
  }

  begin(facts: AnswerFacts): void {
    this.#facts = facts;
  }

  push(chunk: ChatChunk): string {
    const { read, hidesThinking } = this.#options;
    const piece = read(chunk as Readonly<Record<string, unknown>>);
    this.#note(piece);
    const calls = this.#calls.push(piece.calls);
    if (piece.finish !== undefined) calls.push(...this.#endCalls());
    const thinking = hidesThinking === true ? "" : piece.thinking;
    const { content, logprobs } = piece;
    const isHidden = thinking !== piece.thinking;
    // A token may be a part of a character: it has a probability, but no text yet.
    const known = isHidden && content === "" ? [] : logprobs;
    const isEmpty = [content, thinking, calls, known].every(({ length }) => length === 0);
    return isEmpty ? "" : this.#line({ content, thinking, calls }, known);
  }

  end(): string {
    const { modelName, shape, clock } = this.#options;
    const calls = this.#endCalls();
    const line = {
      model: modelName,
      created_at: timeOf(clock),
      ...shape({ content: "" }),
      done: true,
      done_reason: this.#ended.finish ?? "stop",
      ...metricsOf(this.#ended, this.#options, this.#facts),
    };
    const before = calls.length === 0 ? "" : this.#line({ content: "", calls }, []);
    return `${before}${JSON.stringify(line)}\n`;
  }

  fail(body: object): string {
    return `${JSON.stringify(body)}\n`;
  }

  /** A line that says nothing keeps the client. */
  comment(): string {
    return this.#line({ content: "" }, []);
  }

  #note({ finish, usage, timings }: Piece): void {
    if (finish === undefined && usage === undefined && timings === undefined) return;
    const known = this.#ended;
    this.#ended = {
      finish: finish ?? known.finish,
      usage: usage ?? known.usage,
      timings: timings ?? known.timings,
    };
  }

  #endCalls(): OllamaToolCall[] {
    if (this.#areCallsOver) return [];
    this.#areCallsOver = true;
    return this.#calls.end(this.#ended.finish === "length");
  }

  #line(said: Said, logprobs: readonly OllamaLogprob[]): string {
    const { modelName, shape, clock } = this.#options;
    const line = { model: modelName, created_at: timeOf(clock), ...shape(said), done: false };
    return `${JSON.stringify({ ...line, ...logprobsOf(logprobs) })}\n`;
  }
}

function metricsOf(
  { usage, timings }: Pick<Piece, "usage" | "timings">,
  { clock, startedMs }: Started,
  { waitedMs }: AnswerFacts,
): OllamaMetrics {
  const read = sum(timings?.cache_n, timings?.prompt_n);
  return {
    total_duration: toNs(clock.now() - startedMs),
    load_duration: toNs(waitedMs),
    prompt_eval_count: usage?.prompt_tokens ?? read,
    prompt_eval_duration: toNs(timings?.prompt_ms),
    eval_count: usage?.completion_tokens ?? timings?.predicted_n,
    eval_duration: toNs(timings?.predicted_ms),
  };
}

function sum(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined && other === undefined ? undefined : (one ?? 0) + (other ?? 0);
}

function logprobsOf(logprobs: readonly OllamaLogprob[]): Pick<OllamaChatAnswer, "logprobs"> {
  return logprobs.length === 0 ? {} : { logprobs };
}

function toNs(ms: number): number;
function toNs(ms: number | undefined): number | undefined;
function toNs(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.max(0, Math.round(ms * NS_PER_MS));
}

function timeOf(clock: Pick<Clock, "now">): string {
  return new Date(clock.now()).toISOString();
}
