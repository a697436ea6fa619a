/** JSON request bodies: bounded, parsed and checked once. */
import * as v from "valibot";
import { AppError } from "../errors.ts";

/** Several images or minutes of audio as base64 fit; it is held in memory while the request waits. Bytes. */
export const MAX_INFERENCE_BODY_BYTES = 512 * 1024 * 1024;
/** Names, paths and settings. Bytes. */
const MAX_BODY_BYTES = 1024 * 1024;

/** A body comes at once from this machine and in seconds from elsewhere; one that does not come is let go. */
const BODY_TIMEOUT_MS = 300_000;

/** What a field was given is shown this far. Characters. */
const MAX_SHOWN = 80;

type Schema = v.BaseSchema<unknown, unknown, v.BaseIssue<unknown>>;

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
}

/**
 * @throws invalid_request (no JSON, or a field is missing or wrong: the message names it), request_too_large, timed_out
 */
export async function parseBody<S extends Schema>(
  request: Request,
  schema: S,
  options: BodyOptions = {},
): Promise<ParsedBody<v.InferOutput<S>>> {
  const bytes = await inTime(readBody(request, options));
  const result = v.safeParse(schema, parseJson(bytes));
  if (result.success) return { value: result.output, bytes };
  throw invalid(describeIssue(result.issues[0]));
}

/** Like `parseBody`, for requests whose every field has a default: no body at all is an empty object. */
export async function parseOptionalBody<S extends Schema>(
  request: Request,
  schema: S,
): Promise<v.InferOutput<S>> {
  if (request.body === null) return v.parse(schema, {});
  return (await parseBody(request, schema)).value;
}

/** @throws request_too_large */
export async function readBody(
  request: Request,
  { maxBytes = MAX_BODY_BYTES, take }: BodyOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const declared = Number(request.headers.get("content-length") ?? Number.NaN);
  if (declared > maxBytes) throw tooLarge(maxBytes);
  // Transfer-Encoding overrides Content-Length (RFC 9112 §6.3): only without it the declared length is a bound.
  const isBounded = declared <= MAX_BODY_BYTES && !request.headers.has("transfer-encoding");
  if (!isBounded) return readChunks(request, maxBytes, take);
  const bytes = new Uint8Array(await request.arrayBuffer());
  take?.(bytes.byteLength);
  return bytes;
}

// --- internal ---

async function inTime<T>(reading: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const minutes = BODY_TIMEOUT_MS / 60_000;
    reject(
      new AppError(
        "timed_out",
        `cannot read the request: its body did not come in ${minutes} minutes`,
      ),
    );
  }, BODY_TIMEOUT_MS);
  try {
    return await Promise.race([reading, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function readChunks(
  request: Request,
  maxBytes: number,
  take: BodyOptions["take"],
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) throw tooLarge(maxBytes);
    take?.(chunk.byteLength);
    chunks.push(chunk);
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return whole;
}

function parseJson(bytes: Uint8Array): unknown {
  if (bytes.byteLength === 0) throw invalid("the body is empty, it must be JSON");
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw invalid(`the body is not JSON (${(cause as Error).message})`, cause);
  }
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const path = v.getDotPath(issue);
  if (path === null) return "the body must be a JSON object";
  if (issue.received === "undefined") return `\`${path}\` is required`;
  if (issue.kind !== "schema" || issue.expected === null) return `\`${path}\` ${issue.message}`;
  return `\`${path}\` must be ${issue.expected}, not ${issue.received.slice(0, MAX_SHOWN)}`;
}

function invalid(reason: string, cause?: unknown): AppError {
  return new AppError("invalid_request", `cannot read the request: ${reason}`, { cause });
}

function tooLarge(maxBytes: number): AppError {
  return new AppError(
    "request_too_large",
    `cannot read the request: the body exceeds ${maxBytes} bytes`,
    { hint: "Send smaller images, or fewer of them." },
  );
}
