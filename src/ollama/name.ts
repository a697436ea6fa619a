/** Names of models in the Ollama library, in all the ways in which people have them at hand. Pure. */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import { type Reference, parseReference } from "../oci/reference.ts";

/** Where the library's manifests and blobs are. */
export const OLLAMA_REGISTRY = "registry.ollama.ai";

/** What a name without a namespace is in: the models that Ollama itself publishes. */
const DEFAULT_NAMESPACE = "library";
const DEFAULT_TAG = "latest";
const HOSTS: ReadonlySet<string> = new Set([
  OLLAMA_REGISTRY,
  "ollama.com",
  "www.ollama.com",
  "ollama.ai",
]);
/** What follows a model's name in the address of one of its pages: `/tags`, `/blobs/<digest>`. */
const PAGES: ReadonlySet<string> = new Set(["tags", "blobs"]);
const HINT = "Give it as `ollama.com/library/MODEL:TAG`, or as `ollama.com/USER/MODEL:TAG`.";

export interface OllamaName {
  /** As typed: the registry tells upper from lower case. */
  readonly namespace: string;
  readonly model: string;
  readonly tag: string;
}

/**
 * Reads what names a model of the Ollama library.
 *
 * ```
 * name    := "ollama://" [host "/"] path | ["https://"] host "/" path ["/" page]
 * host    := "ollama.com" | "registry.ollama.ai" | …
 * path    := [namespace "/"] model [":" tag]         ; namespace "library", tag "latest"
 * ```
 *
 * @returns undefined for what is not addressed to Ollama
 * @throws invalid_reference for what is, and names no model
 */
export function parseOllamaName(text: string): OllamaName | undefined {
  const trimmed = text.trim();
  const path = pathAtOllama(trimmed);
  if (path === undefined) return undefined;
  if (path.includes("@")) {
    throw invalid(
      trimmed,
      "models of the Ollama library have no digests to be named by",
      "Leave out what follows `@`.",
    );
  }
  const [first, second, ...others] = path.split("/");
  if (first === undefined || first === "")
    throw invalid(trimmed, "it does not say which model", HINT);
  if (others.length > 0) throw invalid(trimmed, "it has too many parts", HINT);
  const [namespace, last] = second === undefined ? [DEFAULT_NAMESPACE, first] : [first, second];
  const colon = last.indexOf(":");
  const model = colon === -1 ? last : last.slice(0, colon);
  const tag = colon === -1 ? "" : last.slice(colon + 1);
  const name = { namespace, model, tag: tag === "" ? DEFAULT_TAG : tag };
  // The grammar of references is the one that names on this machine obey.
  ollamaReference(name);
  return name;
}

/** The name that the model gets on this machine. @throws invalid_reference */
export function ollamaReference({ namespace, model, tag }: OllamaName): Reference {
  return parseReference(`${OLLAMA_REGISTRY}/${namespace}/${model}:${tag}`);
}

/** Where people read about the model; all its tags share the page. */
export function ollamaPage({ namespace, model }: OllamaName): string {
  return `https://ollama.com/${namespace}/${model}`;
}

/** The short form, for messages. */
export function formatOllamaName({ namespace, model, tag }: OllamaName): string {
  return `ollama.com/${namespace}/${model}:${tag}`;
}

// --- internal ---

/** What follows the host, without pages, query and fragment; undefined if it is another host's. */
function pathAtOllama(text: string): string | undefined {
  const [, scheme = "", rest = ""] = /^(?:(ollama|https?):\/\/)?(.*)$/is.exec(text) ?? [];
  const [first = "", ...others] = rest.split("/");
  const path = others.join("/");
  const isOllamaScheme = scheme.toLowerCase() === "ollama";
  if (HOSTS.has(first.toLowerCase()))
    return scheme === "" || isOllamaScheme ? path : withoutPage(path);
  if (!isOllamaScheme) return undefined;
  if (others.length === 0 || !/[.:]/.test(first)) return rest;
  throw invalid(
    text,
    "it names another registry than Ollama's",
    "Give the name without `ollama://`.",
  );
}

/** A pasted address has a query, escapes, and may be the page of a model's tags. */
function withoutPage(path: string): string {
  const [address = ""] = path.split(/[?#]/, 1);
  const parts = address.replace(/\/+$/, "").replaceAll(/%3a/gi, ":").split("/");
  const page = parts.findIndex((part, index) => index >= 2 && PAGES.has(part.toLowerCase()));
  return (page === -1 ? parts : parts.slice(0, page)).join("/");
}

function invalid(text: string, reason: string, hint: string): AppError {
  return new AppError(
    "invalid_reference",
    `cannot read model name \`${printable(text)}\`: ${reason}`,
    {
      hint,
    },
  );
}
