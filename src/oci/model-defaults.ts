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

/** What is malformed counts as not said: a default is never a reason not to run a model. */
export function readDefaults({ annotations }: Manifest): PackagedDefaults | undefined {
  const text = annotations?.[DEFAULTS];
  if (text === undefined || text.length > MAX_LENGTH) return undefined;
  const value = tryParse(text);
  if (!isRecord(value)) return undefined;
  const { system, parameters, messages } = value;
  return {
    ...(typeof system === "string" ? { system } : {}),
    ...(isRecord(parameters) ? { parameters } : {}),
    ...(Array.isArray(messages) ? { messages: messages.filter(isMessage) } : {}),
  };
}

// --- internal ---

function isMessage(value: unknown): value is DefaultMessage {
  return (
    isRecord(value) && typeof value["role"] === "string" && typeof value["content"] === "string"
  );
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
