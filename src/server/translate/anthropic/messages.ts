/** Turns of the Messages API as those of an engine. Pure. */
import type { AppError } from "../../../errors.ts";
import type { ChatMessage, ChatPart, ChatToolCall } from "../chat.ts";
import type { Block, BlockOf } from "./blocks.ts";
import { invalid } from "./members.ts";
import type { Conversation } from "./request.ts";

type Message = Conversation["messages"][number];

/** Claude Code's first block of its system prompt, another one in each request: no engine could reuse what it has read. */
const ACCOUNTING = /^x-anthropic-billing-header:/i;

/** What is shown of a client's text. Characters. */
const MAX_SHOWN = 80;

/** Which blocks a role has. */
const BLOCKS: Readonly<Record<Message["role"], readonly Block["type"][]>> = {
  system: ["text"],
  user: ["text", "image", "document", "search_result", "tool_result"],
  assistant: ["text", "thinking", "redacted_thinking", "tool_use"],
};

/**
 * Consecutive turns of one role become one, as the API has it: templates want them to alternate.
 *
 * @throws invalid_request (a result of a call that was not made, or a block where its role has none)
 */
export function toChatMessages({ system, messages }: Conversation): ChatMessage[] {
  requireBlocks(messages);
  const text = toSystemText(system);
  const first: readonly Message[] = text === "" ? [] : [{ role: "system", content: text }];
  return runsOf([...first, ...messages]).flatMap(({ role, blocks }) => {
    if (role === "assistant") return [toAssistantTurn(blocks)];
    return role === "user" ? toUserTurns(blocks) : [{ role, content: flat(toParts(blocks)) }];
  });
}

/** The words that an answer is to go on from: those of a last turn that is the assistant's. Empty if there is none. */
export function prefillOf(messages: readonly ChatMessage[]): string {
  const last = messages.at(-1);
  return last?.role === "assistant" && typeof last.content === "string" ? last.content : "";
}

// --- internal ---

function toSystemText(system: Conversation["system"]): string {
  if (system === undefined || system === null) return "";
  if (typeof system === "string") return system;
  return system
    .map(({ text }) => text)
    .filter((text) => !ACCOUNTING.test(text))
    .join("\n");
}

/** @throws invalid_request */
function requireBlocks(messages: readonly Message[]): void {
  const calls = new Set<string>();
  for (const [index, { role, content }] of messages.entries()) {
    for (const block of toBlocks(content)) {
      if (!BLOCKS[role].includes(block.type)) throw misplaced(block, index);
      if (block.type === "tool_use") calls.add(block.id);
      if (block.type !== "tool_result" || calls.has(block.tool_use_id)) continue;
      throw unasked(block.tool_use_id, index);
    }
  }
}

interface Run {
  readonly role: Message["role"];
  readonly blocks: Block[];
}

/** Messages of one role that stand together. */
function runsOf(messages: readonly Message[]): Run[] {
  const runs: Run[] = [];
  for (const { role, content } of messages) {
    let run = runs.at(-1);
    if (run?.role !== role) runs.push((run = { role, blocks: [] }));
    for (const block of toBlocks(content)) run.blocks.push(block);
  }
  return runs;
}

function toBlocks(content: Message["content"]): readonly Block[] {
  return typeof content === "string" ? [{ type: "text", text: content }] : content;
}

/** Results of calls are turns of their own; images in them come with the next words: few templates have room there. */
function toUserTurns(blocks: readonly Block[]): ChatMessage[] {
  const turns: ChatMessage[] = [];
  const parts: ChatPart[] = [];
  for (const block of blocks) {
    if (block.type !== "tool_result") {
      parts.push(...toParts([block]));
      continue;
    }
    const { text, images } = toResult(block);
    turns.push({ role: "tool", tool_call_id: block.tool_use_id, content: text });
    parts.push(...images);
  }
  if (parts.length > 0 || turns.length === 0) turns.push({ role: "user", content: flat(parts) });
  return turns;
}

function toResult({ content, is_error }: BlockOf<"tool_result">): {
  readonly text: string;
  readonly images: readonly ChatPart[];
} {
  const blocks = typeof content === "string" ? [{ type: "text" as const, text: content }] : content;
  const parts = toParts(blocks ?? []);
  const images = parts.filter(({ type }) => type !== "text");
  const text = parts.map((part) => (part.type === "text" ? part.text : "[image]")).join("\n");
  // The engine's turn has no mark for it, and what is no error to a model will be taken for the result.
  const isTold = is_error !== true || /^\W*error/i.test(text);
  return { text: isTold ? text : `Error: ${text}`, images };
}

function toAssistantTurn(blocks: readonly Block[]): ChatMessage {
  const text: string[] = [];
  const thinking: string[] = [];
  const made: ChatToolCall[] = [];
  for (const block of blocks) {
    if (block.type === "text") text.push(block.text);
    else if (block.type === "thinking") thinking.push(block.thinking);
    else if (block.type === "tool_use") made.push(toCall(block));
  }
  return {
    role: "assistant",
    content: text.join("\n"),
    ...(thinking.length === 0 ? {} : { reasoning_content: thinking.join("\n") }),
    ...(made.length === 0 ? {} : { tool_calls: made }),
  };
}

function toCall({ id, name, input }: BlockOf<"tool_use">): ChatToolCall {
  return { id, type: "function", function: { name, arguments: JSON.stringify(input) } };
}

function toParts(blocks: readonly Block[]): ChatPart[] {
  return blocks.flatMap((block) => {
    if (block.type === "text") return [textPart(block.text)];
    if (block.type === "image") return [toImage(block)];
    if (block.type === "search_result") return [toSearchResult(block)];
    return block.type === "document" ? toDocument(block) : [];
  });
}

function toSearchResult({ title, source, content }: BlockOf<"search_result">): ChatPart {
  return textPart([title, source, ...content.map(({ text }) => text)].join("\n"));
}

function toImage({ source }: BlockOf<"image">): ChatPart {
  const url =
    source.type === "url" ? source.url : `data:${source.media_type};base64,${source.data}`;
  return { type: "image_url", image_url: { url } };
}

function toDocument({ source, title, context }: BlockOf<"document">): ChatPart[] {
  const head = [title ?? "", context ?? ""].filter((line) => line !== "").map(textPart);
  if (source.type === "text") return [...head, textPart(source.data)];
  if (typeof source.content === "string") return [...head, textPart(source.content)];
  return [...head, ...toParts(source.content)];
}

function textPart(text: string): ChatPart {
  return { type: "text", text };
}

/** Words alone are one string: not every engine and template takes parts. */
function flat(parts: readonly ChatPart[]): string | readonly ChatPart[] {
  const texts = parts.flatMap((part) => (part.type === "text" ? [part.text] : []));
  return texts.length === parts.length ? texts.join("\n") : parts;
}

function misplaced({ type }: Block, index: number): AppError {
  return invalid(`\`messages.${index}.content\` cannot have a block of type \`${type}\``);
}

function unasked(id: string, index: number): AppError {
  return invalid(
    `\`messages.${index}.content\` has a result of \`${id.slice(0, MAX_SHOWN)}\`, which no turn before it called`,
  );
}
