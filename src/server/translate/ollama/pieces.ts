/**
 * What the routes of an engine answer, read into one form: chats, completions of a bare prompt, and llama-server's
 * answers that fill in the middle. Pure.
 */
import { isRecord } from "../../../oci/descriptor.ts";
import type { ChatTimings, ChatUsage, ToolCallDelta } from "../chat.ts";
import type { OllamaLogprob, OllamaTokenLogprob } from "./answers.ts";

type Json = Readonly<Record<string, unknown>>;

/** Of a stream, or all of a whole answer. */
export interface Piece {
  readonly content: string;
  readonly thinking: string;
  readonly calls: readonly ToolCallDelta[];
  readonly logprobs: readonly OllamaLogprob[];
  /** Undefined: it goes on. */
  readonly finish?: "stop" | "length" | undefined;
  readonly usage?: ChatUsage | undefined;
  readonly timings?: ChatTimings | undefined;
}

/** Members that are missing or wrong are taken for empty: engines differ. */
export type ReadPiece = (answer: Json) => Piece;

/** `/v1/chat/completions`, whole or a chunk. */
export const readChat: ReadPiece = (answer) => {
  const choice = firstChoice(answer);
  const said = record(choice["delta"] ?? choice["message"]);
  return {
    content: text(said["content"]),
    thinking: text(said["reasoning_content"]),
    calls: callsOf(said["tool_calls"], isRecord(choice["delta"])),
    ...endOf(answer, choice),
  };
};

/** `/v1/completions`, whole or a chunk. */
export const readCompletion: ReadPiece = (answer) => {
  const choice = firstChoice(answer);
  return { content: text(choice["text"]), thinking: "", calls: [], ...endOf(answer, choice) };
};

/** `/infill`, whole or a chunk. @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md */
export const readInfill: ReadPiece = (answer) => {
  const isOver = answer["stop"] === true;
  const evaluated = answer["tokens_evaluated"];
  const predicted = answer["tokens_predicted"];
  return {
    content: text(answer["content"]),
    thinking: "",
    calls: [],
    logprobs: [],
    finish: isOver ? (answer["stop_type"] === "limit" ? "length" : "stop") : undefined,
    usage: isOver
      ? { ...count("prompt_tokens", evaluated), ...count("completion_tokens", predicted) }
      : undefined,
    timings: timingsOf(answer),
  };
};

// --- internal ---

const NOTHING: Json = {};

function firstChoice(answer: Json): Json {
  const choices = answer["choices"];
  return Array.isArray(choices) ? record(choices[0]) : NOTHING;
}

function endOf(answer: Json, choice: Json): Omit<Piece, "content" | "thinking" | "calls"> {
  const finish = choice["finish_reason"];
  const isOver = typeof finish === "string" && finish !== "";
  return {
    logprobs: readLogprobs(choice["logprobs"]),
    finish: isOver ? (finish === "length" ? "length" : "stop") : undefined,
    usage: isRecord(answer["usage"]) ? answer["usage"] : undefined,
    timings: timingsOf(answer),
  };
}

/** In a whole answer each is one of its own. */
function callsOf(value: unknown, isChunk: boolean): ToolCallDelta[] {
  if (!Array.isArray(value)) return [];
  const calls: ToolCallDelta[] = value.filter(isRecord);
  return isChunk ? calls : calls.map((call, index) => ({ ...call, index }));
}

function timingsOf(answer: Json): ChatTimings | undefined {
  return isRecord(answer["timings"]) ? answer["timings"] : undefined;
}

/** @see https://platform.openai.com/docs/api-reference/chat/object (`choices[].logprobs.content`) */
function readLogprobs(value: unknown): OllamaLogprob[] {
  const content = record(value)["content"];
  if (!Array.isArray(content)) return [];
  return content.filter(isRecord).map((entry) => {
    const top = entry["top_logprobs"];
    const others = Array.isArray(top) ? top.filter(isRecord).map(readTokenLogprob) : [];
    return { ...readTokenLogprob(entry), ...(others.length === 0 ? {} : { top_logprobs: others }) };
  });
}

function readTokenLogprob(entry: Json): OllamaTokenLogprob {
  const { token, logprob, bytes } = entry;
  return {
    token: text(token),
    logprob: typeof logprob === "number" ? logprob : 0,
    ...(Array.isArray(bytes) ? { bytes: bytes as number[] } : {}),
  };
}

function count(name: string, value: unknown): ChatUsage {
  return typeof value === "number" ? { [name]: value } : {};
}

function record(value: unknown): Json {
  return isRecord(value) ? value : NOTHING;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
