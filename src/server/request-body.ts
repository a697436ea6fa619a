/** JSON request bodies: bounded, parsed and checked once. */
import * as v from "valibot";
import { AppError } from "../errors.ts";
import { closestIssue } from "./closest-issue.ts";
import { checkJsonShape } from "./json-shape.ts";

/** Several images or minutes of audio as base64 fit; it is held in memory while the request waits. Bytes. */
export const DEFAULT_MAX_BODY_BYTES = 256 * 1024 * 1024;
/** Names, paths and settings. Bytes. */
const MAX_BODY_BYTES = 1024 * 1024;

/** A body comes at once from this machine and in seconds from elsewhere; one that does not come is let go. */
const BODY_TIMEOUT_MS = 300_000;

/** What a field was given is shown this far. Characters. */
const MAX_SHOWN = 80;

export type Schema = v.BaseSchema<unknown, unknown, v.BaseIssue<unknown>>;

export interface ParsedBody<Value> {
  readonly value: Value;
  /** As it came, for passing on. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export interface BodyOptions {
  /** Default: 1 MiB. */
  readonly maxBytes?: number;
  /** Told of the bytes as they come; what it throws ends the reading. */
  readonly take?: (bytes: number) => void;
  /** Default: 5 minutes. */
  readonly timeoutMs?: number;
}

/**
 * @throws invalid_request (no JSON, or a field is missing or wrong: the message names it), request_too_large, timed_out
 */
export async function parseBody<S extends Schema>(
  request: Request,
  schema: S,
  options: BodyOptions = {},
): Promise<ParsedBody<v.InferOutput<S>>> {
  const bytes = await readBody(request, options);
  const json = parseJson(bytes);
  // To a schema whose every field is optional a list would be an object without them.
  if (Array.isArray(json)) throw invalid("the body must be a JSON object");
  return { value: parseValue(schema, json), bytes };
}

/** @throws invalid_request, with the field in `details.param` */
export function parseValue<S extends Schema>(schema: S, value: unknown): v.InferOutput<S> {
  // The first issue is told: millions of them would fill the memory.
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  throw invalidField(closestIssue(result.issues[0]));
}

/** Like `parseBody`, for requests whose every field has a default: no body at all is an empty object. */
export async function parseOptionalBody<S extends Schema>(
  request: Request,
  schema: S,
): Promise<v.InferOutput<S>> {
  if (request.body === null) return v.parse(schema, {});
  return (await parseBody(request, schema)).value;
}

/** @throws request_too_large, timed_out, cancelled (the client left), and what `take` throws */
export async function readBody(
  request: Request,
  { maxBytes = MAX_BODY_BYTES, take, timeoutMs = BODY_TIMEOUT_MS }: BodyOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const declared = Number(request.headers.get("content-length") ?? Number.NaN);
  if (declared > maxBytes) throw tooLarge(maxBytes);
  const reader = request.body?.getReader();
  if (reader === undefined) return new Uint8Array();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(tooSlow(timeoutMs)), timeoutMs);
  try {
    return await Promise.race([readChunks(reader, maxBytes, take), late.promise]);
  } catch (thrown) {
    // Whatever is still to come is not kept.
    reader.cancel().catch(() => undefined);
    throw asReadFailure(thrown, request.signal);
  } finally {
    clearTimeout(timer);
  }
}

// --- internal ---

async function readChunks(
  reader: Pick<ReadableStreamDefaultReader<Uint8Array>, "read">,
  maxBytes: number,
  take: BodyOptions["take"],
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { value } = await reader.read();
    if (value === undefined) return join(chunks, size);
    size += value.byteLength;
    if (size > maxBytes) throw tooLarge(maxBytes);
    take?.(value.byteLength);
    chunks.push(value);
  }
}

function join(chunks: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return whole;
}

/** A connection that ends in the middle of its body is a client that left. */
function asReadFailure(thrown: unknown, signal: AbortSignal): unknown {
  if (thrown instanceof AppError && !signal.aborted) return thrown;
  const message = "cannot read the request: the client left before its end";
  return new AppError("cancelled", message, { cause: thrown });
}

function parseJson(bytes: Uint8Array): unknown {
  if (bytes.byteLength === 0) throw invalid("the body is empty, it must be JSON");
  checkJsonShape(bytes);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw invalid(`the body is not JSON (${(cause as Error).message})`, cause);
  }
}

/** @returns an error that names the field, in `details.param` too */
function invalidField(issue: v.BaseIssue<unknown>): AppError {
  const path = v.getDotPath(issue)?.slice(0, MAX_SHOWN);
  if (path === undefined) return invalid("the body must be a JSON object");
  return new AppError("invalid_request", `cannot read the request: ${describe(path, issue)}`, {
    details: { param: path },
  });
}

function describe(path: string, issue: v.BaseIssue<unknown>): string {
  if (issue.received === "undefined") return `\`${path}\` is required`;
  if (issue.kind !== "schema" || issue.expected === null) return `\`${path}\` ${issue.message}`;
  return `\`${path}\` must be ${issue.expected.slice(0, MAX_SHOWN)}, not ${issue.received.slice(0, MAX_SHOWN)}`;
}

function invalid(reason: string, cause?: unknown): AppError {
  return new AppError("invalid_request", `cannot read the request: ${reason}`, { cause });
}

function tooLarge(maxBytes: number): AppError {
  return new AppError(
    "request_too_large",
    `cannot read the request: the body exceeds ${maxBytes} bytes`,
    { hint: "Send smaller images, or fewer of them; `max_body_size` in config.toml is the limit." },
  );
}

function tooSlow(timeoutMs: number): AppError {
  const seconds = timeoutMs / 1000;
  const message = `cannot read the request: its body did not come in ${seconds} seconds`;
  return new AppError("timed_out", message);
}
