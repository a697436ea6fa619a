/**
 * The words in an answer, or in a piece of a streamed one, in any of the dialects: OpenAI's chat, text and responses,
 * Anthropic's messages, Ollama's chat and generate. Pure.
 */

type Json = Readonly<Record<string, unknown>>;

/** Empty for what has no words: an embedding, the end of a stream. */
export function answerText(value: unknown): string {
  const answer = toObject(value);
  return (
    list(answer["choices"]).map(choiceText).join("\n") ||
    contentText(answer["content"]) ||
    messageText(answer["message"]) ||
    text(answer["response"]) ||
    text(toObject(answer["delta"])["text"]) ||
    (answer["type"] === "response.output_text.delta" ? text(answer["delta"]) : "") ||
    list(answer["output"])
      .map((item) => contentText(toObject(item)["content"]))
      .join("")
  );
}

/** What a piece of a stream, or a whole answer, says went wrong. */
export function answerError(value: unknown): string | undefined {
  const { error } = toObject(value);
  if (error === undefined || error === null) return undefined;
  return text(error) || text(toObject(error)["message"]) || JSON.stringify(error).slice(0, 200);
}

/** What the client said last, as far as it is text. */
export function promptText(request: string): string {
  const body = toObject(tryParse(request));
  const last = toObject(list(body["messages"]).at(-1));
  return (
    contentText(last["content"]) ||
    text(body["prompt"]) ||
    text(body["input"]) ||
    text(body["query"])
  );
}

// --- internal ---

function choiceText(value: unknown): string {
  const choice = toObject(value);
  return text(choice["text"]) || messageText(choice["message"]) || messageText(choice["delta"]);
}

/** With the tools it calls. */
function messageText(value: unknown): string {
  const message = toObject(value);
  const calls = list(message["tool_calls"]).map((call) => {
    const called = toObject(toObject(call)["function"]);
    const given = called["arguments"];
    return text(called["name"]) + (text(given) || (given === undefined ? "" : json(given)));
  });
  return contentText(message["content"]) + calls.join("\n");
}

/** A text, or parts of which some are text. */
function contentText(value: unknown): string {
  if (typeof value === "string") return value;
  return list(value)
    .map((part) => {
      const { type, text: words, name, input } = toObject(part);
      return type === "tool_use" ? `${text(name)}${json(input)}` : text(words);
    })
    .join("");
}

function toObject(value: unknown): Json {
  return typeof value === "object" && value !== null ? (value as Json) : {};
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function json(value: unknown): string {
  return JSON.stringify(value) ?? "";
}

function tryParse(source: string): unknown {
  try {
    return JSON.parse(source);
  } catch {
    return undefined;
  }
}
