/** What is said of a route that its code does not say: the row of a table, from which its description is made. */
import type { RequestName } from "./requests.ts";

export type Tag = "OpenAI" | "Anthropic" | "Ollama" | "Models" | "Engines" | "Runner";

/** JSON Schema of a parameter, with its description. */
export interface ParameterSchema {
  readonly type: "string" | "boolean" | "integer";
  readonly description?: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
}

export interface Answer {
  /** Default: 200. */
  readonly status?: number;
  readonly description: string;
  /** Media types, the usual one first; none: no body. Default: JSON. */
  readonly types?: readonly string[];
  /** Of the JSON. Default: an object. */
  readonly shape?: "object" | "array";
}

export interface Operation {
  readonly method: "get" | "post" | "delete";
  /** Behind the prefix, with parameters as OpenAPI writes them. */
  readonly path: string;
  /** The same route under several; the first is the usual one. */
  readonly prefixes?: readonly string[];
  /** Unique; with another prefix, words of that are added. */
  readonly name: string;
  readonly tag: Tag;
  /** One line, without a full stop. */
  readonly summary: string;
  readonly description?: string;
  /** A JSON body. */
  readonly request?: RequestName;
  /** A body of another kind: its media type. */
  readonly upload?: string;
  /** The body may be left out. */
  readonly isBodyOptional?: boolean;
  /** Takes the headers of requests that need a worker. */
  readonly isInference?: boolean;
  readonly query?: Readonly<Record<string, ParameterSchema>>;
  /** None: it always fails, as `failures` says. */
  readonly answers: readonly Answer[];
  /** Failures that clients of this route meet in ordinary use, beside those of all routes. */
  readonly failures?: Readonly<Record<number, string>>;
}

export const EVENTS = "text/event-stream";
export const LINES = "application/x-ndjson";
export const JSON_TYPE = "application/json";
export const TEXT = "text/plain";
export const TAR = "application/x-tar";
export const BYTES = "application/octet-stream";

/** Long work, line by line. */
export const PROGRESS: Answer = { description: "Progress, a JSON value a line", types: [LINES] };

/** A status is all there is. */
export const NO_BODY: Answer = { description: "Done", types: [] };

export function flag(description: string): ParameterSchema {
  return { type: "boolean", description };
}

export function text(description: string): ParameterSchema {
  return { type: "string", description };
}
