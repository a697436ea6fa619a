/**
 * The small texts of an Ollama model, in the words of our requests: parameters, system prompt, first turns. Pure.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/modelfile.md#parameter
 */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import { isRecord } from "../oci/descriptor.ts";
import { type DefaultMessage, isDefaultParameter } from "../oci/model-defaults.ts";

/** The config of an artifact holds an int32. */
const MAX_CONTEXT = 2 ** 31 - 1;
/** Names in a warning: more are counted. */
const MAX_NAMED = 10;

export interface OllamaParameters {
  /** `num_ctx`. */
  readonly contextTokens: number | undefined;
  /** By the names that OpenAI's and llama.cpp's requests have for them. */
  readonly parameters: Readonly<Record<string, unknown>>;
  /** What has no counterpart, or a value that cannot be used; as Ollama calls it. */
  readonly ignored: readonly string[];
}

/** @throws invalid_model_file if it is not a JSON object */
export function readParameters(bytes: Uint8Array): OllamaParameters {
  const root = parseJson(bytes, "parameters");
  if (!isRecord(root)) throw malformed("parameters", "they are not an object");
  const parameters: Record<string, unknown> = {};
  const ignored: string[] = [];
  let contextTokens: number | undefined;
  for (const [name, value] of Object.entries(root)) {
    const taken = takeParameter(name, value);
    if (taken === undefined) ignored.push(name);
    else if (taken.kind === "context") contextTokens = taken.tokens;
    else if (taken.kind === "word") parameters[taken.word] = taken.value;
  }
  return { contextTokens, parameters, ignored };
}

/** One sentence, or none. */
export function ignoredWarning(ignored: readonly string[]): string[] {
  if (ignored.length === 0) return [];
  const named = ignored.slice(0, MAX_NAMED).map((name) => `\`${printable(name)}\``);
  const more = ignored.length > MAX_NAMED ? ` and ${ignored.length - MAX_NAMED} more` : "";
  return [`left out parameters that mean nothing here: ${named.join(", ")}${more}`];
}

/** @returns undefined if it says nothing @throws invalid_model_file if it is not UTF-8 */
export function readSystem(bytes: Uint8Array): string | undefined {
  const text = decode(bytes, "system prompt");
  return text.trim() === "" ? undefined : text;
}

/** @throws invalid_model_file unless it is an array of turns with a role and a text */
export function readMessages(bytes: Uint8Array): DefaultMessage[] {
  const root = parseJson(bytes, "messages");
  if (root === null) return [];
  if (!Array.isArray(root)) throw malformed("messages", "they are not a list");
  return root.map((value: unknown, index) => {
    if (!isRecord(value)) throw malformed("messages", `number ${index + 1} is not an object`);
    const { role, content } = value;
    if (typeof role !== "string" || !ROLES.has(role) || typeof content !== "string")
      throw malformed("messages", `number ${index + 1} has no known role or no text`);
    return { role, content };
  });
}

/** @throws invalid_model_file unless it is a JSON object */
export function readObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  const root = parseJson(bytes, what);
  if (!isRecord(root)) throw malformed(what, "it is not an object");
  return root;
}

// --- internal ---

type Taken =
  | { readonly kind: "context"; readonly tokens: number }
  | { readonly kind: "word"; readonly word: string; readonly value: unknown }
  /** It asks for what happens anyway. */
  | { readonly kind: "nothing" };

const ROLES: ReadonlySet<string> = new Set(["system", "user", "assistant"]);

/** Ollama's names that are others here. */
const WORDS: Readonly<Record<string, string>> = { num_keep: "n_keep", num_predict: "max_tokens" };

function takeParameter(name: string, value: unknown): Taken | undefined {
  if (name === "num_ctx") return takeContext(value);
  // -1 is no limit and -2 the rest of the context: both are what an answer has without a limit.
  if (name === "num_predict" && (value === -1 || value === -2)) return { kind: "nothing" };
  if (name === "stop") return takeStops(value);
  const word = Object.hasOwn(WORDS, name) ? WORDS[name] : name;
  if (word === undefined || !isDefaultParameter(word, value)) return undefined;
  return { kind: "word", word, value };
}

function takeContext(value: unknown): Taken | undefined {
  const isSize = Number.isSafeInteger(value) && (value as number) > 0;
  if (!isSize || (value as number) > MAX_CONTEXT) return undefined;
  return { kind: "context", tokens: value as number };
}

function takeStops(value: unknown): Taken | undefined {
  const stops: unknown[] = Array.isArray(value) ? value : [value];
  if (!isDefaultParameter("stop", stops)) return undefined;
  return stops.length === 0 ? { kind: "nothing" } : { kind: "word", word: "stop", value: stops };
}

function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(decode(bytes, what));
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw malformed(what, "the text is not JSON", cause);
  }
}

function decode(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw malformed(what, "the text is not UTF-8", cause);
  }
}

function malformed(what: string, reason: string, cause?: unknown): AppError {
  return new AppError("invalid_model_file", `cannot read the model's ${what}: ${reason}`, {
    hint: "The model is damaged at its source: try another tag.",
    cause,
  });
}
