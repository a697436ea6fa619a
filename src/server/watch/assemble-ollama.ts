/**
 * Lines of Ollama's chat and generate become the one line that would have come unstreamed. Pure.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md
 */
import { asObject, asObjects, asText, type JsonObject } from "./json.ts";

export function isOllama(line: JsonObject): boolean {
  return typeof line["done"] === "boolean";
}

export function assembleOllama(lines: readonly JsonObject[]): JsonObject {
  const joined = (read: (line: JsonObject) => unknown): string =>
    lines.map((line) => asText(read(line)) ?? "").join("");
  const whole = lines.reduce<JsonObject>((all, line) => ({ ...all, ...line }), {});
  const messages = asObjects(lines.map((line) => line["message"]));
  if (messages.length === 0) {
    const thinking = joined((line) => line["thinking"]);
    const response = joined((line) => line["response"]);
    return { ...whole, response, ...(thinking === "" ? {} : { thinking }) };
  }
  const thinking = joined((line) => asObject(line["message"])?.["thinking"]);
  const calls = messages.flatMap((message) => asObjects(message["tool_calls"]));
  return {
    ...whole,
    message: {
      role: "assistant",
      content: joined((line) => asObject(line["message"])?.["content"]),
      ...(thinking === "" ? {} : { thinking }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    },
  };
}
