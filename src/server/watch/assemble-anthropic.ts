/**
 * Events of a streamed message become the message. Pure.
 *
 * @see https://docs.anthropic.com/en/api/messages-streaming
 */
import { asIndex, asObject, asText, type JsonObject } from "./json.ts";

/** Text, thinking and calls of tools of one message. */
const MAX_BLOCKS = 512;

export function isAnthropic(event: JsonObject): boolean {
  const type = asText(event["type"]) ?? "";
  return /^(?:message_(?:start|delta|stop)|content_block_(?:start|delta|stop))$/.test(type);
}

export function assembleAnthropic(events: readonly JsonObject[]): JsonObject {
  let message: JsonObject = { type: "message", role: "assistant" };
  const blocks: Block[] = [];
  for (const event of events) {
    switch (event["type"]) {
      case "message_start":
        message = { ...message, ...asObject(event["message"]) };
        break;
      case "content_block_start":
      case "content_block_delta":
        addToBlock(blocks, event);
        break;
      case "message_delta":
        message = withDelta(message, event);
        break;
      case "error":
        message = { ...message, error: event["error"] };
        break;
      default:
        break;
    }
  }
  const content = blocks.filter((block) => block !== undefined).map(toBlock);
  return { ...message, content };
}

// --- internal ---

interface Block {
  start: JsonObject;
  readonly text: string[];
  readonly thinking: string[];
  readonly signature: string[];
  readonly input: string[];
}

function addToBlock(blocks: Block[], event: JsonObject): void {
  const index = asIndex(event["index"], MAX_BLOCKS);
  if (index === undefined) return;
  const block = (blocks[index] ??= { start: {}, text: [], thinking: [], signature: [], input: [] });
  block.start = asObject(event["content_block"]) ?? block.start;
  const delta = asObject(event["delta"]) ?? {};
  block.text.push(asText(delta["text"]) ?? "");
  block.thinking.push(asText(delta["thinking"]) ?? "");
  block.signature.push(asText(delta["signature"]) ?? "");
  block.input.push(asText(delta["partial_json"]) ?? "");
}

/** Its usage counts all so far. */
function withDelta(message: JsonObject, event: JsonObject): JsonObject {
  const usage = { ...asObject(message["usage"]), ...asObject(event["usage"]) };
  return { ...message, ...asObject(event["delta"]), usage };
}

function toBlock(block: Block): JsonObject {
  const { start } = block;
  const text = block.text.join("");
  const thinking = block.thinking.join("");
  const signature = block.signature.join("");
  const input = block.input.join("");
  return {
    ...start,
    ...(text === "" ? {} : { text: (asText(start["text"]) ?? "") + text }),
    ...(thinking === "" ? {} : { thinking: (asText(start["thinking"]) ?? "") + thinking }),
    ...(signature === "" ? {} : { signature }),
    ...(input === "" ? {} : { input: parsed(input) }),
  };
}

/** What was cut off stays the text it is. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return json;
  }
}
