/**
 * A streamed answer of an engine as events of the Messages API: one block after the other, each begun, filled and ended.
 *
 * @see https://docs.anthropic.com/en/api/messages-streaming
 */
import type { ChatChunk, ChatTimings, ChatUsage, FinishReason, ToolCallDelta } from "../chat.ts";
import type { AnswerStream } from "../translation.ts";
import {
  type AnswerOptions,
  type Counted,
  emptyMessage,
  hasText,
  SIGNATURE,
  stoppingWord,
  toCallId,
  toolBlock,
  toStop,
  toUsage,
  unreadable,
} from "./answer.ts";

const PING = `event: ping\ndata: {"type":"ping"}\n\n`;

/** What is thought and not shown takes minutes, in which clients would give up. A few seconds' worth of pieces. */
const HIDDEN_PIECES_A_PING = 32;

type Open =
  | { readonly type: "thinking" | "text" }
  /** @param call as the engine numbers it */
  | { readonly type: "tool_use"; readonly call: number };

type Delta = NonNullable<NonNullable<ChatChunk["choices"]>[number]["delta"]>;

export class MessageStream implements AnswerStream {
  readonly #options: AnswerOptions;
  #hasBegun = false;
  #open: Open | undefined;
  /** Of the block that is open, or would come next. */
  #index = 0;
  /** The last call that was begun, as the engine numbers it. */
  #lastCall = -1;
  #hidden = 0;
  #finish: FinishReason | undefined;
  #word: string | undefined;
  #usage: ChatUsage | undefined;
  /** Of the last piece: they count where no usage is told. */
  #timings: ChatTimings | undefined;

  constructor(options: AnswerOptions) {
    this.#options = options;
  }

  push(chunk: ChatChunk): string {
    this.#usage = chunk.usage ?? this.#usage;
    this.#timings = chunk.timings ?? this.#timings;
    this.#word = stoppingWord(chunk) ?? this.#word;
    const choice = chunk.choices?.[0];
    if (choice === undefined) return "";
    this.#finish = choice.finish_reason ?? this.#finish;
    const events =
      this.#pieces(choice.delta ?? {}) + (this.#finish === undefined ? "" : this.#close());
    return events === "" ? "" : this.#begin(chunk) + events;
  }

  end(): string {
    const finish = this.#finish;
    if (finish === undefined) throw unreadable("it ended without a reason");
    const counted = { usage: this.#usage ?? null, timings: this.#timings };
    const usage = toUsage(counted);
    const stop = toStop(
      { finish, hasCalls: this.#lastCall >= 0, word: this.#word, usage },
      this.#options,
    );
    const { service_tier: _, ...counts } = usage;
    return (
      this.#begin(counted) +
      this.#close() +
      event("message_delta", {
        delta: { ...stop, stop_details: null, container: null },
        usage: counts,
      }) +
      event("message_stop", {})
    );
  }

  fail(body: object): string {
    return `event: error\ndata: ${JSON.stringify(body)}\n\n`;
  }

  comment(): string {
    return PING;
  }

  #pieces({ reasoning_content: thought, content: text, tool_calls: calls }: Delta): string {
    let events = "";
    if (hasText(thought)) events += this.#think(thought);
    if (hasText(text)) events += this.#say(text);
    for (const call of calls ?? []) events += this.#call(call);
    return events;
  }

  /** Once, before all others. The prompt's size is known with the first piece, where the engine tells it. */
  #begin(counted: Counted): string {
    if (this.#hasBegun) return "";
    this.#hasBegun = true;
    const usage = { ...toUsage(counted), output_tokens: 0 };
    return event("message_start", { message: emptyMessage(this.#options, usage) }) + PING;
  }

  #think(thought: string): string {
    const begun = this.#openBlock({ type: "thinking" }, { thinking: "", signature: "" });
    if (!this.#options.isThinkingShown) {
      this.#hidden += 1;
      return this.#hidden % HIDDEN_PIECES_A_PING === 0 ? begun + PING : begun;
    }
    return begun + this.#delta({ type: "thinking_delta", thinking: thought });
  }

  #say(text: string): string {
    const begun = this.#openBlock({ type: "text" }, { text: "", citations: null });
    return begun + this.#delta({ type: "text_delta", text });
  }

  #call({ index = 0, id, function: called }: ToolCallDelta): string {
    const begun = this.#isOpenCall(index) ? "" : this.#beginCall(index, id, called?.name);
    const json = called?.arguments ?? "";
    return json === ""
      ? begun
      : begun + this.#delta({ type: "input_json_delta", partial_json: json });
  }

  #isOpenCall(index: number): boolean {
    return this.#open?.type === "tool_use" && this.#open.call === index;
  }

  #beginCall(index: number, id: string | undefined, name: string | undefined): string {
    if (index <= this.#lastCall) throw unreadable("it goes on with a call that had ended");
    if (name === undefined) throw unreadable("it calls a tool without a name");
    this.#lastCall = index;
    const block = toolBlock(toCallId(id, this.#options.newId), name, {});
    return this.#openBlock({ type: "tool_use", call: index }, block);
  }

  /** @param empty its members besides the type */
  #openBlock(open: Open, empty: object): string {
    if (open.type !== "tool_use" && this.#open?.type === open.type) return "";
    const closed = this.#close();
    this.#open = open;
    const content_block = { type: open.type, ...empty };
    return closed + event("content_block_start", { index: this.#index, content_block });
  }

  #close(): string {
    if (this.#open === undefined) return "";
    const signed =
      this.#open.type === "thinking"
        ? this.#delta({ type: "signature_delta", signature: SIGNATURE })
        : "";
    const stopped = event("content_block_stop", { index: this.#index });
    this.#open = undefined;
    this.#index += 1;
    return signed + stopped;
  }

  #delta(delta: object): string {
    return event("content_block_delta", { index: this.#index, delta });
  }
}

// --- internal ---

function event(type: string, members: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...members })}\n\n`;
}
