/**
 * What requests to a model get where they say nothing themselves, packaged in its manifest. Readers that do not know the
 * annotation lose nothing but the defaults.
 */
import { isRecord } from "./descriptor.ts";
import type { Manifest } from "./manifest.ts";

/** JSON of a `PackagedDefaults`. */
const DEFAULTS = "org.tug.model.defaults+json";

/** A system prompt, and as many turns as a person writes. Characters. */
const MAX_LENGTH = 1024 * 1024;
/** llama.cpp compares every token with each of them; no known model has more than a dozen. */
const MAX_STOPS = 64;
/** llama.cpp reserves memory for so many tokens: more than any context has would only take it away. */
const MAX_TOKENS = 2 ** 24;

/** In the words of OpenAI's and llama.cpp's requests: `temperature`, `top_p`, `stop`, … and a system prompt. */
export interface PackagedDefaults {
  readonly system?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Turns that every conversation begins with. */
  readonly messages?: readonly DefaultMessage[];
}

export interface DefaultMessage {
  readonly role: string;
  readonly content: string;
}

/** As annotations of a manifest; none where there is nothing to say. */
export function encodeDefaults(defaults: PackagedDefaults | undefined): Record<string, string> {
  if (defaults === undefined) return {};
  const { system, parameters, messages } = defaults;
  const said = {
    ...(system === undefined ? {} : { system }),
    ...(parameters === undefined || Object.keys(parameters).length === 0 ? {} : { parameters }),
    ...(messages === undefined || messages.length === 0 ? {} : { messages }),
  };
  return Object.keys(said).length === 0 ? {} : { [DEFAULTS]: JSON.stringify(said) };
}

/**
 * Whether a package may say this of requests. What is sampled is a matter of the model; what is asked for (`messages`,
 * `tools`, `response_format`), how it is answered (`stream`, `n`) and by whom (`model`) are the client's.
 */
export function isDefaultParameter(name: string, value: unknown): boolean {
  return Object.hasOwn(PARAMETERS, name) && PARAMETERS[name]?.(value) === true;
}

/** What is malformed counts as not said: a default is never a reason not to run a model. */
export function readDefaults({ annotations }: Manifest): PackagedDefaults | undefined {
  const text = annotations?.[DEFAULTS];
  if (text === undefined || text.length > MAX_LENGTH) return undefined;
  const value = tryParse(text);
  if (!isRecord(value)) return undefined;
  const { system, parameters, messages } = value;
  return {
    ...(typeof system === "string" ? { system } : {}),
    ...(isRecord(parameters) ? { parameters: knownOf(parameters) } : {}),
    ...(Array.isArray(messages) ? { messages: messages.flatMap(toMessage) } : {}),
  };
}

// --- internal ---

const PARAMETERS: Readonly<Record<string, (value: unknown) => boolean>> = {
  temperature: isNotNegative,
  top_p: isShare,
  top_k: isCount,
  min_p: isShare,
  typical_p: isShare,
  repeat_penalty: isNotNegative,
  repeat_last_n: (value) => value === -1 || isCount(value),
  presence_penalty: Number.isFinite,
  frequency_penalty: Number.isFinite,
  mirostat: (value) => value === 0 || value === 1 || value === 2,
  mirostat_tau: isNotNegative,
  mirostat_eta: isNotNegative,
  n_keep: (value) => value === -1 || isCount(value),
  seed: Number.isSafeInteger,
  max_tokens: (value) => value !== 0 && isCount(value),
  stop: isStops,
};

/** Of turns that a package may bring along: those of tools belong to a client that has tools. */
const ROLES: ReadonlySet<unknown> = new Set(["system", "user", "assistant"]);

function knownOf(parameters: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(parameters).filter(([name, value]) => isDefaultParameter(name, value)),
  );
}

function toMessage(value: unknown): DefaultMessage[] {
  if (!isRecord(value)) return [];
  const { role, content } = value;
  if (typeof role !== "string" || !ROLES.has(role) || typeof content !== "string") return [];
  return [{ role, content }];
}

function isNotNegative(value: unknown): boolean {
  return Number.isFinite(value) && (value as number) >= 0;
}

function isShare(value: unknown): boolean {
  return isNotNegative(value) && (value as number) <= 1;
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && isNotNegative(value) && (value as number) <= MAX_TOKENS;
}

function isStops(value: unknown): boolean {
  return Array.isArray(value) ? value.length <= MAX_STOPS && value.every(isText) : isText(value);
}

function isText(value: unknown): boolean {
  return typeof value === "string" && value !== "";
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
