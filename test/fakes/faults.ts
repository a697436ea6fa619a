/** What a registry can do wrong, on command and counted. */
import type { RawAnswer, RawRequest, RequestRecord } from "./raw-http.ts";
import { ConnectionCut } from "./raw-http.ts";

/** Which requests a fault befalls. */
export interface FaultScope {
  readonly method?: string;
  /** A part of the path, or a pattern for it. */
  readonly path?: string | RegExp;
  /** The first so many that match; all unless given. */
  readonly times?: number;
  /** So many that match are left in peace first. */
  readonly skip?: number;
}

export type FaultKind =
  /** An answer of its own. `retry-after` and the like go into the headers. */
  | {
      readonly kind: "status";
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
    }
  /** 307 to the same path below another base URL, or wherever the function says. */
  | { readonly kind: "redirect"; readonly to: string | ((record: RequestRecord) => string) }
  /** All tokens so far are void, and the answer is a 401. */
  | { readonly kind: "expire" }
  /** Range is ignored: 200 and everything. */
  | { readonly kind: "no_range" }
  /** 206 with a range that begins so many bytes later than asked. */
  | { readonly kind: "wrong_range"; readonly shift: number }
  /** The byte at this offset of the blob is another one. Befalls only answers that hold it. */
  | { readonly kind: "flip"; readonly at: number }
  /** The connection ends after so many bytes of the answer's body. */
  | { readonly kind: "cut"; readonly after: number }
  /** Nothing comes after so many bytes of the answer's body, until the client leaves. */
  | { readonly kind: "stall"; readonly after: number }
  | { readonly kind: "slow"; readonly bytesPerSecond: number }
  /** The connection ends after so many bytes of the request's body; they are kept. */
  | { readonly kind: "cut_upload"; readonly after: number }
  /** Headers of the answer replaced, added or (undefined) left out. */
  | { readonly kind: "headers"; readonly set: Readonly<Record<string, string | undefined>> }
  | { readonly kind: "body"; readonly body: string | Uint8Array }
  /** Nothing happens before it resolves. */
  | { readonly kind: "wait"; readonly until: Promise<unknown> };

export type Fault = FaultScope & FaultKind;

export interface ActiveFault {
  readonly fault: Fault;
  /** How many requests it has befallen. */
  hits: number;
}

/** The faults of one server, in the order in which they were commanded. */
export class Faults {
  readonly #active: (ActiveFault & { seen: number })[] = [];

  add(fault: Fault): ActiveFault {
    const active = { fault, hits: 0, seen: 0 };
    this.#active.push(active);
    return active;
  }

  clear(): void {
    this.#active.length = 0;
  }

  /** The faults that befall this request; they count as hit. */
  take(record: RequestRecord): readonly Fault[] {
    const taken: Fault[] = [];
    for (const active of this.#active) {
      if (!matches(active.fault, record)) continue;
      active.seen += 1;
      const isDue = active.seen > (active.fault.skip ?? 0);
      if (!isDue || active.hits >= (active.fault.times ?? Number.POSITIVE_INFINITY)) continue;
      active.hits += 1;
      taken.push(active.fault);
    }
    return taken;
  }
}

/** What is done to an answer that is right otherwise. */
export function spoil(answer: RawAnswer, faults: readonly Fault[], request: RawRequest): RawAnswer {
  let spoilt = answer;
  for (const fault of faults) {
    if (fault.kind === "headers") spoilt = { ...spoilt, headers: changed(spoilt, fault.set) };
    else if (fault.kind === "body") spoilt = withBody(spoilt, bytesOf(fault.body));
    else if (spoilt.body !== undefined)
      spoilt = { ...spoilt, body: spoilBody(spoilt.body, fault, { answer, request }) };
  }
  return spoilt;
}

/** The body as it comes, until the fault ends the connection. */
export async function* cutUpload(
  body: AsyncIterable<Uint8Array>,
  after: number,
): AsyncGenerator<Uint8Array> {
  let left = after;
  for await (const chunk of body) {
    const part = chunk.subarray(0, left);
    left -= part.length;
    yield part;
    if (left === 0) throw new ConnectionCut();
  }
}

// --- internal ---

type Body = Uint8Array | AsyncIterable<Uint8Array>;

/** Small, so that it is smooth; a slow answer of a few bytes still takes its time. */
const SLOW_CHUNK_BYTES = 16 * 1024;

function matches({ method, path, ...fault }: Fault, record: RequestRecord): boolean {
  if (method !== undefined && method !== record.method) return false;
  if (typeof path === "string" && !record.path.includes(path)) return false;
  if (path instanceof RegExp && !path.test(record.path)) return false;
  return fault.kind !== "flip" || holds(record, fault.at);
}

function holds({ method, headers }: RequestRecord, offset: number): boolean {
  const range = /^bytes=(\d+)-(\d*)$/.exec(headers["range"] ?? "");
  if (method !== "GET") return false;
  if (range === null) return true;
  const end = range[2] === "" ? Number.POSITIVE_INFINITY : Number(range[2]);
  return offset >= Number(range[1]) && offset <= end;
}

function changed(
  { headers = {} }: RawAnswer,
  set: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const all = Object.entries({ ...headers, ...set });
  return Object.fromEntries(
    all.filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

function bytesOf(body: string | Uint8Array): Uint8Array {
  return typeof body === "string" ? new TextEncoder().encode(body) : body;
}

function withBody(answer: RawAnswer, body: Uint8Array): RawAnswer {
  const length = { "content-length": String(body.length) };
  return { ...answer, headers: changed(answer, length), body };
}

function spoilBody(
  body: Body,
  fault: Fault,
  { answer, request }: { answer: RawAnswer; request: RawRequest },
): Body {
  if (fault.kind === "flip") return flip(body, fault.at - startOf(answer));
  if (fault.kind === "cut") return cut(body, fault.after);
  if (fault.kind === "stall") return stall(body, fault.after, request.closed);
  return fault.kind === "slow" ? slow(body, fault.bytesPerSecond) : body;
}

/** Where the body of a 206 begins; 0 for others. */
function startOf({ headers }: RawAnswer): number {
  return Number(/^bytes (\d+)-/.exec(headers?.["content-range"] ?? "")?.[1] ?? 0);
}

async function* chunks(body: Body): AsyncGenerator<Uint8Array> {
  if (body instanceof Uint8Array) yield body;
  else yield* body;
}

async function* flip(body: Body, at: number): AsyncGenerator<Uint8Array> {
  let offset = 0;
  for await (const chunk of chunks(body)) {
    const index = at - offset;
    offset += chunk.length;
    if (index < 0 || index >= chunk.length) yield chunk;
    else yield Uint8Array.from(chunk, (byte, i) => (i === index ? byte ^ 0xff : byte));
  }
}

async function* upTo(body: Body, count: number): AsyncGenerator<Uint8Array> {
  let left = count;
  for await (const chunk of chunks(body)) {
    if (left > 0) yield chunk.subarray(0, left);
    left -= chunk.length;
    if (left <= 0) return;
  }
}

async function* cut(body: Body, after: number): AsyncGenerator<Uint8Array> {
  yield* upTo(body, after);
  throw new ConnectionCut();
}

async function* stall(
  body: Body,
  after: number,
  closed: Promise<void>,
): AsyncGenerator<Uint8Array> {
  yield* upTo(body, after);
  await closed;
  throw new ConnectionCut();
}

async function* slow(body: Body, bytesPerSecond: number): AsyncGenerator<Uint8Array> {
  const startedAt = performance.now();
  let sent = 0;
  for await (const chunk of chunks(body)) {
    for (let offset = 0; offset < chunk.length; offset += SLOW_CHUNK_BYTES) {
      const part = chunk.subarray(offset, offset + SLOW_CHUNK_BYTES);
      sent += part.length;
      const dueMs = (sent / bytesPerSecond) * 1000 - (performance.now() - startedAt);
      if (dueMs > 0) await Bun.sleep(dueMs);
      yield part;
    }
  }
}
