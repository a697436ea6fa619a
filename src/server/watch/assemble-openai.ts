/**
 * Chunks of a streamed chat or text completion become the completion that would have come unstreamed. Pure.
 *
 * @see https://platform.openai.com/docs/api-reference/chat/streaming
 */
import { asIndex, asObject, asObjects, asText, type JsonObject } from "./json.ts";

/** Of one answer; a model calls a few tools at once. */
const MAX_CHOICES = 128;
const MAX_TOOL_CALLS = 256;

/** Members of a chunk that hold for the whole. */
const WHOLE = ["id", "created", "model", "system_fingerprint", "usage", "timings", "error"];

export function assembleOpenai(chunks: readonly JsonObject[]): JsonObject {
  const choices: (Choice | undefined)[] = [];
  const whole: Record<string, unknown> = {};
  for (const chunk of chunks) {
    for (const name of WHOLE) {
      if (chunk[name] !== undefined && chunk[name] !== null) whole[name] = chunk[name];
    }
    for (const piece of asObjects(chunk["choices"])) {
      const index = asIndex(piece["index"] ?? 0, MAX_CHOICES);
      if (index !== undefined) addPiece((choices[index] ??= emptyChoice(index)), piece);
    }
  }
  const isText = choices.some((choice) => choice?.isText);
  return {
    object: isText ? "text_completion" : "chat.completion",
    ...whole,
    // A hole where an index was left out.
    choices: choices.filter((choice) => choice !== undefined).map(toChoice),
  };
}

// --- internal ---

interface ToolCall {
  id: string | undefined;
  name: string;
  arguments: string[];
}

interface Choice {
  readonly index: number;
  isText: boolean;
  readonly content: string[];
  readonly reasoning: string[];
  readonly refusal: string[];
  readonly toolCalls: (ToolCall | undefined)[];
  finishReason: string | null;
}

function emptyChoice(index: number): Choice {
  const lists = { content: [], reasoning: [], refusal: [], toolCalls: [] };
  return { index, isText: false, ...lists, finishReason: null };
}

function addPiece(choice: Choice, piece: JsonObject): void {
  choice.finishReason = asText(piece["finish_reason"]) ?? choice.finishReason;
  const text = asText(piece["text"]);
  if (text !== undefined) {
    choice.isText = true;
    choice.content.push(text);
  }
  const delta = asObject(piece["delta"]) ?? asObject(piece["message"]);
  if (delta === undefined) return;
  choice.content.push(asText(delta["content"]) ?? "");
  choice.reasoning.push(asText(delta["reasoning_content"]) ?? asText(delta["reasoning"]) ?? "");
  choice.refusal.push(asText(delta["refusal"]) ?? "");
  asObjects(delta["tool_calls"]).forEach((call, position) => {
    const index = asIndex(call["index"] ?? position, MAX_TOOL_CALLS);
    if (index !== undefined) addToolCall(choice.toolCalls, index, call);
  });
}

/** The id and the name come once, the arguments in pieces. */
function addToolCall(calls: (ToolCall | undefined)[], index: number, piece: JsonObject): void {
  const call = (calls[index] ??= { id: undefined, name: "", arguments: [] });
  const called = asObject(piece["function"]);
  call.id ??= asText(piece["id"]);
  call.name += asText(called?.["name"]) ?? "";
  call.arguments.push(asText(called?.["arguments"]) ?? "");
}

function toChoice(choice: Choice): JsonObject {
  const content = choice.content.join("");
  const finish = { index: choice.index, finish_reason: choice.finishReason };
  if (choice.isText) return { ...finish, text: content };
  const reasoning = choice.reasoning.join("");
  const refusal = choice.refusal.join("");
  const calls = choice.toolCalls.filter((call) => call !== undefined);
  return {
    ...finish,
    message: {
      role: "assistant",
      content: content === "" && calls.length > 0 ? null : content,
      ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
      ...(refusal === "" ? {} : { refusal }),
      ...(calls.length === 0 ? {} : { tool_calls: calls.map(toToolCall) }),
    },
  };
}

function toToolCall(call: ToolCall): JsonObject {
  return {
    ...(call.id === undefined ? {} : { id: call.id }),
    type: "function",
    function: { name: call.name, arguments: call.arguments.join("") },
  };
}
