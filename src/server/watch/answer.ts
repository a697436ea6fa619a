/**
 * An answer read back: what a stream of events adds up to, and its tokens. Knows OpenAI's chat, text and responses,
 * Anthropic's messages, Ollama's lines, and any plain JSON. Pure; nothing that an engine or a proxy wrote makes it throw.
 */
import { assembleAnthropic, isAnthropic } from "./assemble-anthropic.ts";
import { assembleOllama, isOllama } from "./assemble-ollama.ts";
import { assembleOpenai } from "./assemble-openai.ts";
import { asObject, asObjects, asText, type JsonObject } from "./json.ts";
import { readUsage, scanUsage, type TokenUsage } from "./usage.ts";

/** The bytes of an answer that were kept. */
export interface KeptAnswer {
  readonly contentType: string;
  /** From its beginning. */
  readonly head: Uint8Array;
  /** Its end, where there is more than `head`. */
  readonly tail: Uint8Array;
  /** Between both. */
  readonly lostBytes: number;
}

export interface ReadAnswer extends TokenUsage {
  /** One JSON value; undefined if it cannot be read as one. */
  readonly body: unknown;
  readonly finishReasons: readonly string[];
  /** What it says went wrong. Untrusted. */
  readonly error: string | null;
}

/** An error's message is a sentence or two. Characters. */
const MAX_ERROR = 1000;
/** No engine gives as many answers at once. */
const MAX_FINISH_REASONS = 16;

export function readAnswer(kept: KeptAnswer): ReadAnswer {
  const body = assemble(kept);
  const usage = readUsage(body);
  const isWhole = body !== undefined && kept.lostBytes === 0;
  const scanned = isWhole || usage.outputTokens !== null ? usage : scanUsage(textOf(kept));
  return {
    body,
    inputTokens: usage.inputTokens ?? scanned.inputTokens,
    outputTokens: usage.outputTokens ?? scanned.outputTokens,
    finishReasons: finishReasonsOf(body),
    error: errorOf(body),
  };
}

/** The `data` of Server-Sent Events. llama-server of old wrote `error:` instead, for what went wrong. */
export function* eventData(text: string): Iterable<string> {
  for (const event of text.split(/\r?\n\r?\n/)) {
    const lines = event.split(/\r?\n/).flatMap((line) => {
      const data = /^(?:data|error):(?: ?)(.*)$/.exec(line)?.[1];
      return data === undefined ? [] : [data];
    });
    if (lines.length > 0) yield lines.join("\n");
  }
}

// --- internal ---

function assemble(kept: KeptAnswer): unknown {
  const type = kept.contentType.toLowerCase();
  if (type.startsWith("text/event-stream")) return fromEvents(eventObjects(kept));
  if (type.startsWith("application/x-ndjson")) return fromLines(lineObjects(kept));
  return kept.lostBytes === 0 && kept.tail.byteLength === 0
    ? tryParse(decode(kept.head))
    : undefined;
}

/** Half an event at the cut is no JSON, and so is left out. */
function eventObjects(kept: KeptAnswer): JsonObject[] {
  return parts(kept).flatMap((text) => asObjects(Array.from(eventData(text), tryParse)));
}

function lineObjects(kept: KeptAnswer): JsonObject[] {
  return parts(kept).flatMap((text) => asObjects(text.split("\n").map(tryParse)));
}

function parts({ head, tail, lostBytes }: KeptAnswer): string[] {
  return lostBytes === 0 ? [decode(Buffer.concat([head, tail]))] : [decode(head), decode(tail)];
}

function textOf(kept: KeptAnswer): string {
  return parts(kept).join("\n");
}

function fromEvents(events: readonly JsonObject[]): unknown {
  if (events.length === 0) return undefined;
  if (events.some(isAnthropic)) return assembleAnthropic(events);
  // OpenAI's responses end with an event that holds all of it.
  const whole = events.findLast((event) => asObject(event["response"]) !== undefined);
  if (whole !== undefined) return whole["response"];
  return assembleOpenai(events);
}

function fromLines(lines: readonly JsonObject[]): unknown {
  if (lines.some(isOllama)) return assembleOllama(lines);
  return lines.at(-1);
}

function finishReasonsOf(body: unknown): string[] {
  const object = asObject(body);
  if (object === undefined) return [];
  const choices = Array.isArray(object["choices"]) ? object["choices"] : [];
  const reasons = [
    ...choices.map((choice) => asObject(choice)?.["finish_reason"]),
    object["stop_reason"],
    object["done_reason"],
  ];
  return reasons
    .filter((reason) => typeof reason === "string")
    .slice(0, MAX_FINISH_REASONS)
    .map((reason) => reason.slice(0, 40));
}

function errorOf(body: unknown): string | null {
  const error = asObject(body)?.["error"];
  const message = asText(error) ?? asText(asObject(error)?.["message"]);
  if (message !== undefined) return message.slice(0, MAX_ERROR);
  return error === undefined || error === null ? null : JSON.stringify(error).slice(0, MAX_ERROR);
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
