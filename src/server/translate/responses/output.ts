/**
 * The items of an answer, as they grow. Each piece of an engine's answer becomes events in the order that is documented:
 * an item is added, its part is added, deltas, and all of it done, before the next item is added.
 *
 * @see https://platform.openai.com/docs/api-reference/responses-streaming
 */
import type { ItemStatus, OutputItem, OutputText, TokenLogprob } from "../../../api/responses.ts";
import { AppError } from "../../../errors.ts";
import type { ChatChunk, ToolCallDelta } from "../chat.ts";
import type { MakeId } from "./ids.ts";
import { sealReasoning } from "./reasoning.ts";

/** Ids of engines are kept, unless they are none. */
const MAX_CALL_ID = 64;

/** Without its number. */
export type OutputEvent = Readonly<Record<string, unknown>> & { readonly type: string };

export interface OutputOptions {
  readonly makeId: MakeId;
  /** Reasoning is given as its own summary. */
  readonly asSummary: boolean;
  /** Reasoning is also given in a form to be sent back. */
  readonly sealed: boolean;
}

type Delta = NonNullable<NonNullable<ChatChunk["choices"]>[number]["delta"]>;

interface OpenItem {
  readonly kind: "message" | "reasoning" | "call";
  readonly id: string;
  /** Of a call: its number in the engine's answer. */
  readonly callIndex: number;
  readonly callId: string;
  readonly name: string;
  text: string;
  readonly logprobs: TokenLogprob[];
}

export class OutputItems {
  readonly #options: OutputOptions;
  readonly #done: OutputItem[] = [];
  #open: OpenItem | undefined;
  /** Calls come in order; a piece of an earlier one would be lost. */
  #lastCall = -1;

  constructor(options: OutputOptions) {
    this.#options = options;
  }

  /** What there is, whole or not. */
  get items(): readonly OutputItem[] {
    return this.#open === undefined
      ? this.#done
      : [...this.#done, this.#toItem(this.#open, "incomplete")];
  }

  /** @throws worker_failed (pieces of calls in no order) */
  push(delta: Delta, logprobs: readonly TokenLogprob[]): OutputEvent[] {
    const events: OutputEvent[] = [];
    const { reasoning_content: reasoning, content, tool_calls: calls } = delta;
    if (typeof reasoning === "string" && reasoning !== "") {
      this.#text("reasoning", { text: reasoning, logprobs: [] }, events);
    }
    if (typeof content === "string" && content !== "") {
      this.#text("message", { text: content, logprobs }, events);
    }
    for (const call of calls ?? []) this.#call(call, events);
    return events;
  }

  /** @param status of the item that is open */
  close(status: "completed" | "incomplete"): OutputEvent[] {
    const item = this.#open;
    if (item === undefined) return [];
    const events: OutputEvent[] = [];
    // Some models give nothing at all to functions without parameters; clients read it as JSON.
    const isBare = item.kind === "call" && item.text === "" && status === "completed";
    if (isBare) this.#arguments(item, "{}", events);
    this.#open = undefined;
    const output_index = this.#done.length;
    const whole = this.#toItem(item, status);
    events.push(...closing(item, { output_index, item_id: item.id }, whole));
    this.#done.push(whole);
    events.push({ type: "response.output_item.done", output_index, item: whole });
    return events;
  }

  // --- internal ---

  #text(
    kind: "message" | "reasoning",
    { text, logprobs }: { readonly text: string; readonly logprobs: readonly TokenLogprob[] },
    events: OutputEvent[],
  ): void {
    const item = this.#open?.kind === kind ? this.#open : this.#begin({ kind }, events);
    item.text += text;
    item.logprobs.push(...logprobs);
    const at = { output_index: this.#done.length, item_id: item.id };
    if (kind === "message") {
      const type = "response.output_text.delta";
      events.push({ type, ...at, content_index: 0, delta: text, logprobs });
    } else if (this.#options.asSummary) {
      const type = "response.reasoning_summary_text.delta";
      events.push({ type, ...at, summary_index: 0, delta: text });
    } else {
      events.push({ type: "response.reasoning_text.delta", ...at, content_index: 0, delta: text });
    }
  }

  #call(call: ToolCallDelta, events: OutputEvent[]): void {
    const item = this.#openCall(call.index ?? 0) ?? this.#begin(toCall(call), events);
    this.#lastCall = item.callIndex;
    const delta = call.function?.arguments ?? "";
    if (delta !== "") this.#arguments(item, delta, events);
  }

  #arguments(item: OpenItem, delta: string, events: OutputEvent[]): void {
    item.text += delta;
    const type = "response.function_call_arguments.delta";
    events.push({ type, output_index: this.#done.length, item_id: item.id, delta });
  }

  /** @returns undefined if it is a new one */
  #openCall(index: number): OpenItem | undefined {
    if (this.#open?.kind === "call" && this.#open.callIndex === index) return this.#open;
    if (index <= this.#lastCall) throw disordered();
    return undefined;
  }

  #begin(begun: Begun, events: OutputEvent[]): OpenItem {
    events.push(...this.close("completed"));
    const { makeId, asSummary } = this.#options;
    const { kind, callIndex = 0, callId = "", name = "" } = begun;
    const id = makeId(ID_KINDS[kind]);
    const ownCallId = kind === "call" && callId === "" ? makeId("call") : callId;
    const item = { kind, id, callIndex, callId: ownCallId, name, text: "", logprobs: [] };
    this.#open = item;
    const output_index = this.#done.length;
    const added = withoutParts(this.#toItem(item, "in_progress"));
    events.push({ type: "response.output_item.added", output_index, item: added });
    const at = { output_index, item_id: id };
    if (kind === "message") {
      const part = outputText("", []);
      events.push({ type: "response.content_part.added", ...at, content_index: 0, part });
    } else if (kind === "reasoning" && asSummary) {
      const part = { type: "summary_text", text: "" };
      const type = "response.reasoning_summary_part.added";
      events.push({ type, ...at, summary_index: 0, part });
    } else if (kind === "reasoning") {
      const part = { type: "reasoning_text", text: "" };
      events.push({ type: "response.content_part.added", ...at, content_index: 0, part });
    }
    return item;
  }

  #toItem({ kind, id, callId, name, text, logprobs }: OpenItem, status: ItemStatus): OutputItem {
    if (kind === "reasoning") return this.#toReasoning(id, text, status);
    if (kind === "call") {
      return { id, type: "function_call", status, call_id: callId, name, arguments: text };
    }
    const content = [outputText(text, [...logprobs])];
    return { id, type: "message", status, role: "assistant", content };
  }

  #toReasoning(id: string, text: string, status: ItemStatus): OutputItem {
    const { asSummary, sealed } = this.#options;
    return {
      id,
      type: "reasoning",
      status,
      summary: asSummary ? [{ type: "summary_text", text }] : [],
      content: asSummary ? [] : [{ type: "reasoning_text", text }],
      ...(sealed ? { encrypted_content: sealReasoning(text) } : {}),
    };
  }
}

// --- internal ---

const ID_KINDS = { message: "msg", reasoning: "rs", call: "fc" } as const;

type Begun = Pick<OpenItem, "kind"> & Partial<Pick<OpenItem, "callIndex" | "callId" | "name">>;

function toCall({ index = 0, id, function: said }: ToolCallDelta): Begun {
  const isNamed = typeof id === "string" && id.length <= MAX_CALL_ID;
  return { kind: "call", callIndex: index, callId: isNamed ? id : "", name: said?.name ?? "" };
}

function outputText(text: string, logprobs: readonly TokenLogprob[]): OutputText {
  return { type: "output_text", text, annotations: [], logprobs };
}

/** Parts are added by events of their own. */
function withoutParts(item: OutputItem): OutputItem {
  if (item.type === "message") return { ...item, content: [] };
  if (item.type === "reasoning") return { ...item, summary: [], content: [] };
  return item;
}

function closing(
  { kind, text, logprobs }: OpenItem,
  at: { readonly output_index: number; readonly item_id: string },
  item: OutputItem,
): OutputEvent[] {
  if (kind === "call") {
    const type = "response.function_call_arguments.done";
    const { name } = item as Extract<OutputItem, { type: "function_call" }>;
    return [{ type, ...at, name, arguments: text }];
  }
  const done = "response.content_part.done";
  if (kind === "message") {
    const part = outputText(text, logprobs);
    return [
      { type: "response.output_text.done", ...at, content_index: 0, text, logprobs },
      { type: done, ...at, content_index: 0, part },
    ];
  }
  const isSummary = item.type === "reasoning" && item.summary.length > 0;
  if (isSummary) {
    const part = { type: "summary_text", text };
    return [
      { type: "response.reasoning_summary_text.done", ...at, summary_index: 0, text },
      { type: "response.reasoning_summary_part.done", ...at, summary_index: 0, part },
    ];
  }
  return [
    { type: "response.reasoning_text.done", ...at, content_index: 0, text },
    { type: done, ...at, content_index: 0, part: { type: "reasoning_text", text } },
  ];
}

function disordered(): AppError {
  return new AppError(
    "worker_failed",
    "cannot read the answer: the engine sent pieces of its calls in no order",
    { hint: "Set `parallel_tool_calls` to false." },
  );
}
