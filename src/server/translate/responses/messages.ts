/** A conversation of items as messages of a chat. Pure. */
import type { InputPart, OutputMessage, ResponseItem } from "../../../api/responses.ts";
import { isRecord } from "../../../oci/descriptor.ts";
import type { ChatMessage, ChatPart, ChatToolCall } from "../chat.ts";
import { refuse } from "./refuse.ts";

/**
 * @param items the whole conversation, oldest first
 * @param instructions come first
 * @throws invalid_request: a call without an output, or an output without a call
 */
export function toMessages(
  items: readonly ResponseItem[],
  instructions: string | null,
): ChatMessage[] {
  const whole = items.filter(isWhole);
  checkCalls(whole);
  const builder = new MessageBuilder();
  for (const item of whole) builder.add(item);
  return withSystem(builder.finish(), instructions);
}

// --- internal ---

/** Of an answer that was broken off, a call may be half a call. */
function isWhole(item: ResponseItem): boolean {
  return item.type !== "function_call" || item.status === "completed";
}

function checkCalls(items: readonly ResponseItem[]): void {
  const open = new Set<string>();
  const known = new Set<string>();
  for (const item of items) {
    if (item.type === "function_call") {
      open.add(item.call_id);
      known.add(item.call_id);
    } else if (item.type === "function_call_output") {
      open.delete(item.call_id);
      if (known.has(item.call_id)) continue;
      const id = item.call_id.slice(0, 80);
      throw refuse("input", `no call is found for the output of \`${id}\``);
    }
  }
  const [first] = open;
  if (first === undefined) return;
  throw refuse("input", `no output is found for the call \`${first.slice(0, 80)}\``);
}

/**
 * What an assistant says between two others is several items, and one message: templates want turns, and the outputs of
 * calls right after the message that has the calls.
 */
interface Turn {
  content?: string;
  reasoning?: string;
  readonly calls: ChatToolCall[];
}

class MessageBuilder {
  readonly #messages: ChatMessage[] = [];
  #turn: Turn | undefined;

  add(item: ResponseItem): void {
    switch (item.type) {
      case "reasoning": {
        const parts = item.content.length > 0 ? item.content : item.summary;
        const said = parts.map(({ text }) => text).join("\n");
        const turn = this.#open();
        turn.reasoning = joined(turn.reasoning, said);
        return;
      }
      case "function_call": {
        const { call_id: id, name, arguments: said } = item;
        const args = toArguments(said);
        const call = { id, type: "function" as const, function: { name, arguments: args } };
        this.#open().calls.push(call);
        return;
      }
      case "function_call_output":
        this.#close();
        this.#messages.push({
          role: "tool",
          tool_call_id: item.call_id,
          content: typeof item.output === "string" ? item.output : toContent(item.output),
        });
        return;
      case "message":
        this.#message(item);
        return;
      default:
        item satisfies never;
    }
  }

  finish(): ChatMessage[] {
    this.#close();
    return this.#messages;
  }

  #message(item: Extract<ResponseItem, { type: "message" }>): void {
    if (item.role === "assistant") {
      const turn = this.#open();
      turn.content = joined(turn.content, textOf(item));
      return;
    }
    this.#close();
    // Templates know no developers.
    const role = item.role === "user" ? "user" : "system";
    this.#messages.push({ role, content: toContent(item.content) });
  }

  #open(): Turn {
    return (this.#turn ??= { calls: [] });
  }

  #close(): void {
    if (this.#turn === undefined) return;
    const { content, reasoning, calls } = this.#turn;
    this.#turn = undefined;
    this.#messages.push({
      role: "assistant",
      content: content ?? (calls.length > 0 ? null : ""),
      ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    });
  }
}

function joined(before: string | undefined, said: string): string {
  return before === undefined ? said : `${before}\n${said}`;
}

/** Templates read them as an object; what a model got wrong must not end its conversation. */
function toArguments(said: string): string {
  try {
    return isRecord(JSON.parse(said)) ? said : "{}";
  } catch {
    return "{}";
  }
}

function textOf({ content }: OutputMessage): string {
  return content.map(({ text }) => text).join("");
}

function toContent(parts: readonly InputPart[]): string | ChatPart[] {
  const [first] = parts;
  if (first === undefined) return "";
  if (parts.length === 1 && first.type === "input_text") return first.text;
  return parts.map((part): ChatPart => {
    if (part.type === "input_text") return { type: "text", text: part.text };
    if (part.type === "input_audio") return part;
    return { type: "image_url", image_url: { url: part.image_url } };
  });
}

/** Many templates take one system message, and only as the first. */
function withSystem(messages: readonly ChatMessage[], instructions: string | null): ChatMessage[] {
  const end = messages.findIndex(({ role }) => role !== "system");
  const leading = end < 0 ? messages : messages.slice(0, end);
  const texts = leading.map(({ content }) => systemText(content));
  const all = instructions === null || instructions === "" ? texts : [instructions, ...texts];
  if (all.length === 0) return [...messages];
  return [{ role: "system", content: all.join("\n\n") }, ...messages.slice(leading.length)];
}

function systemText(content: ChatMessage["content"]): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => (part.type === "text" ? part.text : "")).join("\n");
}
