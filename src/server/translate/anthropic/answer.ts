/** Answers of the Messages API, and an engine's whole answer as one. Pure. */
import { AppError } from "../../../errors.ts";
import { isRecord } from "../../../oci/descriptor.ts";
import type { ChatAnswer, ChatTimings, ChatToolCall, ChatUsage, FinishReason } from "../chat.ts";

/** @see https://docs.anthropic.com/en/api/messages */
export interface AnthropicMessage {
  readonly id: string;
  readonly type: "message";
  readonly role: "assistant";
  /** As the client wrote it. */
  readonly model: string;
  readonly content: readonly AnthropicBlock[];
  readonly stop_reason: StopReason | null;
  /** Which of `stop_sequences` it was. */
  readonly stop_sequence: string | null;
  readonly stop_details: null;
  readonly container: null;
  readonly usage: AnthropicUsage;
}

export type AnthropicBlock =
  | { readonly type: "thinking"; readonly thinking: string; readonly signature: string }
  | { readonly type: "text"; readonly text: string; readonly citations: null }
  | {
      readonly type: "tool_use";
      readonly id: string;
      readonly name: string;
      readonly input: unknown;
      readonly caller: { readonly type: "direct" };
    };

export type StopReason =
  | "end_turn"
  | "max_tokens"
  | "stop_sequence"
  | "tool_use"
  | "refusal"
  | "model_context_window_exceeded";

export interface AnthropicUsage {
  /** Those of the prompt that were read for this answer. */
  readonly input_tokens: number;
  readonly cache_creation_input_tokens: number;
  /** Those of the prompt that an answer before had read. */
  readonly cache_read_input_tokens: number;
  readonly output_tokens: number;
  readonly service_tier: "standard";
}

/** What of a request its answer is made with. */
export interface AnswerOptions {
  /** As the client wrote it. */
  readonly model: string;
  readonly maxTokens: number;
  readonly stops: readonly string[];
  /** The words the client gave as the answer's beginning: they are no part of it. */
  readonly prefill: string;
  /** Else thinking is there, and empty. */
  readonly isThinkingShown: boolean;
  /** For names of messages and of calls: letters and digits that come only once. */
  readonly newId: () => string;
}

/** Clients give it back with the block and never read it. */
export const SIGNATURE = "dW5zaWduZWQ=";

/** What the API allows in a name of a call. */
const CALL_ID = /^[\w-]{1,128}$/;

/** @throws worker_failed (no answer, or a call whose arguments are no object though it was not cut off) */
export function toMessage(answer: ChatAnswer, options: AnswerOptions): AnthropicMessage {
  const choice = answer.choices?.[0];
  if (choice === undefined) throw unreadable("it has no choices");
  const usage = toUsage(answer);
  const finish = choice.finish_reason ?? "stop";
  const message = choice.message ?? {};
  const hasCalls = (message.tool_calls ?? []).length > 0;
  const stop = toStop({ finish, hasCalls, word: stoppingWord(answer), usage }, options);
  const content = options.maxTokens === 0 ? [] : toContent(message, { ...options, finish });
  return {
    ...emptyMessage(options, options.maxTokens === 0 ? { ...usage, output_tokens: 0 } : usage),
    content,
    ...stop,
  };
}

/** One that has not begun. */
export function emptyMessage(
  { model, newId }: AnswerOptions,
  usage: AnthropicUsage,
): AnthropicMessage {
  return {
    id: `msg_${newId()}`,
    type: "message",
    role: "assistant",
    model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    stop_details: null,
    container: null,
    usage,
  };
}

export type Stop = Pick<AnthropicMessage, "stop_reason" | "stop_sequence">;

/** What an engine says of an answer's end. */
export interface End {
  readonly finish: FinishReason;
  readonly hasCalls: boolean;
  readonly word: string | undefined;
  readonly usage: AnthropicUsage;
}

export function toStop(
  { finish, hasCalls, word, usage }: End,
  { stops, maxTokens }: AnswerOptions,
): Stop {
  switch (finish) {
    case "tool_calls":
      return reason("tool_use");
    case "content_filter":
      return reason("refusal");
    case "length": {
      // Some engines do not count.
      const isShort = usage.output_tokens > 0 && usage.output_tokens < maxTokens;
      return reason(isShort ? "model_context_window_exceeded" : "max_tokens");
    }
    case "stop":
    default:
      // Some engines say so of a call that they were told to make.
      if (hasCalls) return reason("tool_use");
      // The template's own stop words end a turn.
      if (word === undefined || !stops.includes(word)) return reason("end_turn");
      return { stop_reason: "stop_sequence", stop_sequence: word };
  }
}

/** The word that ended it, where the engine tells. */
export function stoppingWord({
  __verbose: said,
}: Pick<ChatAnswer, "__verbose">): string | undefined {
  return said?.stop_type === "word" ? said.stopping_word : undefined;
}

/** Where an engine counts. */
export interface Counted {
  readonly usage?: ChatUsage | null | undefined;
  readonly timings?: ChatTimings | undefined;
}

export function toUsage({ usage, timings }: Counted): AnthropicUsage {
  const { prompt_n, cache_n, predicted_n } = timings ?? {};
  const { prompt_tokens, completion_tokens, prompt_tokens_details } = usage ?? {};
  const cached = prompt_tokens_details?.cached_tokens ?? cache_n ?? 0;
  const read = prompt_tokens === undefined ? prompt_n : prompt_tokens - cached;
  return {
    input_tokens: Math.max(0, read ?? 0),
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cached,
    output_tokens: completion_tokens ?? predicted_n ?? 0,
    service_tier: "standard",
  };
}

/** The engine's own name of a call, in the API's form. */
export function toCallId(id: string | undefined, newId: () => string): string {
  if (id === undefined || !CALL_ID.test(id)) return `toolu_${newId()}`;
  return id.startsWith("toolu_") ? id : `toolu_${id}`;
}

export function toolBlock(id: string, name: string, input: unknown): AnthropicBlock {
  return { type: "tool_use", id, name, input, caller: { type: "direct" } };
}

/** An answer that the API has no shape for. */
export function unreadable(why: string): AppError {
  return new AppError("worker_failed", `cannot read the answer of the engine: ${why}`, {
    hint: "Try again; see `tug logs` if it happens again.",
  });
}

export function hasText(text: string | null | undefined): text is string {
  return typeof text === "string" && text !== "";
}

// --- internal ---

function reason(stop_reason: StopReason): Stop {
  return { stop_reason, stop_sequence: null };
}

type WholeMessage = NonNullable<NonNullable<ChatAnswer["choices"]>[number]["message"]>;

/** Thinking, then text, then calls. */
function toContent(
  { reasoning_content: thought, content: said, tool_calls: calls }: WholeMessage,
  { prefill, isThinkingShown, newId, finish }: AnswerOptions & Pick<End, "finish">,
): AnthropicBlock[] {
  const blocks: AnthropicBlock[] = [];
  if (hasText(thought)) {
    const thinking = isThinkingShown ? thought : "";
    blocks.push({ type: "thinking", thinking, signature: SIGNATURE });
  }
  // llama-server repeats it in whole answers, and in streams does not.
  const text = said?.startsWith(prefill) === true ? said.slice(prefill.length) : said;
  if (hasText(text)) blocks.push({ type: "text", text, citations: null });
  for (const call of calls ?? []) {
    const { name = "" } = call.function ?? {};
    blocks.push(toolBlock(toCallId(call.id, newId), name, toInput(call, finish)));
  }
  return blocks;
}

function toInput({ function: called }: Partial<ChatToolCall>, finish: FinishReason): unknown {
  const text = called?.arguments ?? "";
  if (text.trim() === "") return {};
  const input = tryParse(text);
  if (isRecord(input)) return input;
  if (finish === "length") return {};
  throw unreadable("the model called a tool with arguments that are no JSON object");
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
