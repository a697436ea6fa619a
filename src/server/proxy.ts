/**
 * A request on its way to a worker, and the answer on its way back.
 *
 * The first chunk is awaited before the answer begins: until then a failure is still an honest 502, or another worker
 * may be tried, and the listener would hold the headers back for it anyway. After that chunks pass as they come. Reading
 * them here costs 1 to 3 µs each over handing the engine's body to the listener, which would hide when the answer ends
 * and how.
 */
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { engineTarget } from "../runtime/engine-address.ts";
import type { Lease } from "../runtime/lease.ts";
import type { SilenceWatch } from "../runtime/silence.ts";
import type { Dialect } from "./dialect.ts";
import { exhaustion, readRefusal, toRefusal } from "./engine-refusal.ts";
import { EventFramer } from "./event-framer.ts";
import type { InferenceTrace } from "./observer.ts";
import type { StreamTranslator } from "./translate/translation.ts";
import { readWhole } from "./whole-answer.ts";

export interface WorkerRequest {
  readonly method: string;
  /** Path and query as the engine knows them, such as `/v1/chat/completions`. */
  readonly path: string;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer> | undefined;
  /** Aborted when the client leaves; the engine then stops. */
  readonly signal: AbortSignal;
}

/** Connection-level fields, RFC 9110 §7.6.1, and those that Connection names. */
const HOP_BY_HOP = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/**
 * Not for the engine: the body's length and the host are set anew, an answer must not be compressed on the way within
 * one machine, Expect has been answered, and credentials and origins concern Tug alone.
 */
const NOT_FORWARDED = [
  ...HOP_BY_HOP,
  "accept-encoding",
  "authorization",
  "content-length",
  "cookie",
  "expect",
  "host",
  "origin",
  "referer",
  "x-api-key",
];

/** The beginning of an answer: nothing of it has been sent yet. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Absent: it has no body. Bytes: it is whole, such as an engine's refusal, as a JSON object. */
  readonly body: Relay | Uint8Array<ArrayBuffer> | undefined;
}

export interface ProxyOptions {
  readonly dialect: Dialect;
  /** Told of the pieces and of the end, once there is an answer. */
  readonly trace?: InferenceTrace | undefined;
  /** Undefined: the client gets what the engine sends. */
  readonly translation?: AnswerTranslation | undefined;
}

/** Makes another answer of an engine's. */
export interface AnswerTranslation {
  /** @returns the body of a 200 */
  readonly whole: (answer: object) => object;
  /** Undefined: a stream was not asked for. */
  readonly stream?: Pick<StreamTranslator, "push" | "end" | "left" | "over" | "isOver"> | undefined;
}

/**
 * Sends the request to the lease's worker and waits for the first bytes of the answer. Takes the lease: it is released
 * when the answer has ended, has failed, or is not wanted any more, exactly once.
 *
 * @throws worker_failed or insufficient_memory (nothing was answered; with the engine's reason), cancelled,
 *   shutting_down (the worker was told to leave), context_length_exceeded
 */
export async function proxyToWorker(
  request: WorkerRequest,
  lease: Lease,
  options: ProxyOptions,
): Promise<Answer> {
  // Ends with the lease.
  const silence = lease.watch();
  try {
    const { url, init } = engineTarget(lease.address, request.path);
    const upstream = await fetch(url, {
      ...init,
      method: request.method,
      headers: requestHeaders(request.headers),
      body: request.body ?? null,
      signal: request.signal,
      // A pooled connection that the engine has just closed would fail a POST.
      keepalive: false,
      decompress: false,
      redirect: "manual",
      // A long prompt may take longer than fetch's five idle minutes. Bun knows it, its types do not.
      ...({ timeout: false } as object),
    });
    if (upstream.status >= 400) return await refused(upstream, lease, options.dialect);
    silence.heard();
    return await begin(upstream, { ...request, ...options, lease, silence });
  } catch (error) {
    const failure = await toFailure(error, request, lease);
    if (failure.code === "insufficient_memory" && lease.isAlive) lease.giveUp(failure);
    lease[Symbol.dispose]();
    throw failure;
  }
}

/** As a response: from here on its pieces are told to the trace, and its end. */
export function toResponse(
  { status, headers, body }: Answer,
  trace: InferenceTrace | undefined,
): Response {
  trace?.responded(status, headers);
  if (body instanceof Relay) {
    return new Response(new ReadableStream(body, { highWaterMark: 0 }), { status, headers });
  }
  if (body !== undefined) trace?.chunk(body);
  trace?.ended();
  return new Response(body ?? null, { status, headers });
}

/** What of a client's header fields an engine gets. Whatever a client calls its body, it has been read as JSON. */
export function requestHeaders(from: Headers): Headers {
  const headers = without(from, NOT_FORWARDED);
  headers.set("content-type", "application/json");
  return headers;
}

/** What of an engine's header fields a client gets: CORS is decided here, not there. */
export function responseHeaders(from: Headers): Headers {
  const headers = without(from, [...HOP_BY_HOP, "server"]);
  for (const name of Array.from(headers.keys())) {
    if (name.startsWith("access-control-")) headers.delete(name);
  }
  return headers;
}

// --- internal ---

function without(from: Headers, names: readonly string[]): Headers {
  const headers = new Headers(from);
  const connection = from.get("connection");
  for (const name of connection?.split(",") ?? []) {
    if (/^[\w!#$%&'*+.^`|~-]+$/.test(name.trim())) headers.delete(name.trim());
  }
  for (const name of names) headers.delete(name);
  return headers;
}

interface Exchange extends ProxyOptions {
  readonly lease: Lease;
  readonly silence: Pick<SilenceWatch, "heard">;
  readonly signal: AbortSignal;
  readonly path: string;
}

/** What the engine says is all there is: the worker is free before the client has read it. */
async function refused(upstream: Response, lease: Lease, dialect: Dialect): Promise<Answer> {
  const bytes = await readRefusal(upstream);
  const { modelName } = lease;
  const { status, body } = toRefusal({ status: upstream.status, bytes }, { modelName, dialect });
  const headers = responseHeaders(upstream.headers);
  headers.delete("content-length");
  headers.delete("content-encoding");
  headers.set("content-type", "application/json");
  lease[Symbol.dispose]();
  return { status, headers, body: new TextEncoder().encode(JSON.stringify(body)) };
}

async function begin(upstream: Response, exchange: Exchange): Promise<Answer> {
  const init = { status: upstream.status, headers: responseHeaders(upstream.headers) };
  const { translation, dialect } = exchange;
  if (translation !== undefined) {
    init.headers.delete("content-length");
    if (translation.stream === undefined) return translated(upstream, exchange, init);
    if (!isEventStream(upstream.headers)) throw notStreamed();
    init.headers.set("content-type", dialect.streamType);
  }
  const reader = upstream.body?.getReader();
  const framer = isEventStream(upstream.headers) ? new EventFramer() : undefined;
  const first = reader && (await firstPiece(reader, framer));
  if (reader !== undefined && first !== undefined) {
    return { ...init, body: new Relay({ ...exchange, reader, framer, first }) };
  }
  exchange.lease[Symbol.dispose]();
  return { ...init, body: undefined };
}

/** An answer that is translated is read to its end first; then the worker is free. */
async function translated(
  upstream: Response,
  { lease, silence, translation }: Exchange,
  { status, headers }: Pick<Answer, "status" | "headers">,
): Promise<Answer> {
  const answer = await readWhole(upstream, () => silence.heard());
  headers.set("content-type", "application/json");
  const text = JSON.stringify(translation?.whole(answer) ?? answer);
  lease[Symbol.dispose]();
  return { status, headers, body: new TextEncoder().encode(text) };
}

/** Half an event is not sent, so until then the request may still go to another worker. */
async function firstPiece(
  reader: Reader,
  framer: EventFramer | undefined,
): Promise<Uint8Array | undefined> {
  for (;;) {
    const { value } = await reader.read();
    const ready = value === undefined ? framer?.rest() : (framer?.push(value) ?? value);
    if (ready !== undefined && ready.byteLength > 0) return ready;
    if (value === undefined) return undefined;
  }
}

function isEventStream(headers: Headers): boolean {
  // A compressed stream cannot be read, and so not be ended with an event of ours.
  if (headers.has("content-encoding")) return false;
  return headers.get("content-type")?.startsWith("text/event-stream") === true;
}

type Reader = Pick<ReadableStreamDefaultReader<Uint8Array>, "read" | "cancel">;

interface RelayOptions extends Exchange {
  readonly reader: Reader;
  /** For streams that can carry an error event. */
  readonly framer: EventFramer | undefined;
  readonly first: Uint8Array;
}

type Controller = ReadableStreamDefaultController<Uint8Array>;

/** Passes chunks on as the client takes them, and lets go of the worker at the end, whichever end it is. */
export class Relay {
  readonly #options: RelayOptions;
  readonly #trace: InferenceTrace | undefined;
  #isHeld = true;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#trace = options.trace;
    // A client that leaves between the first chunk and the listener's first read cancels nothing.
    options.signal.addEventListener("abort", this.#abandon, { once: true });
    if (options.signal.aborted) this.#abandon();
  }

  /** Whether it can carry comments and an error event. */
  get isEventStream(): boolean {
    return this.#options.framer !== undefined;
  }

  readonly start = (controller: Controller): Promise<void> | undefined => {
    // What means nothing to the client is followed by what does: nobody pulls while this has not been sent.
    return this.#send(controller, this.#options.first) ? undefined : this.pull(controller);
  };

  // No async function: it is called for every token.
  readonly pull = (controller: Controller): Promise<void> => {
    if (this.#isHeld && this.#translator?.isOver === true) return this.#cutOff(controller);
    return this.#options.reader.read().then(
      ({ value }) => {
        if (value === undefined) return this.#end(controller);
        return this.#forward(controller, value) ? undefined : this.pull(controller);
      },
      (error: unknown) => this.#fail(controller, error),
    );
  };

  readonly cancel = async (reason?: unknown): Promise<void> => {
    this.#abandon();
    await this.#options.reader.cancel(reason);
  };

  /** @returns false if there is nothing to send yet */
  #forward(controller: Controller, chunk: Uint8Array): boolean {
    const { framer, silence } = this.#options;
    silence.heard();
    const ready = framer === undefined ? chunk : framer.push(chunk);
    return ready.byteLength > 0 && this.#send(controller, ready);
  }

  /** @returns false if there was nothing in it for the client */
  #send(controller: Controller, bytes: Uint8Array): boolean {
    if (hasErrorEvent(bytes)) this.#giveUpIfExhausted(bytes);
    return this.#enqueue(controller, this.#translator?.push(bytes) ?? bytes);
  }

  #enqueue(controller: Controller, bytes: Uint8Array): boolean {
    if (bytes.byteLength === 0) return false;
    this.#trace?.chunk(bytes);
    controller.enqueue(bytes);
    return true;
  }

  /** The client gets what the engine said; others get another engine. */
  #giveUpIfExhausted(event: Uint8Array): void {
    const { lease } = this.#options;
    const error = exhaustion(new TextDecoder().decode(event), lease.modelName);
    if (error !== undefined) lease.giveUp(error);
  }

  #end(controller: Controller): void {
    const rest = this.#options.framer?.rest();
    if (rest !== undefined && rest.byteLength > 0) this.#send(controller, rest);
    if (this.#translator !== undefined) this.#enqueue(controller, this.#translator.end());
    controller.close();
    this.#release();
  }

  /** The client has been told that it failed: what the engine still says is for nobody. */
  async #cutOff(controller: Controller): Promise<void> {
    controller.close();
    this.#release();
    await this.#options.reader.cancel();
  }

  /** The status is spent: an event stream ends with an error event, any other body is visibly cut off. */
  async #fail(controller: Controller, thrown: unknown): Promise<void> {
    const { lease, framer, dialect } = this.#options;
    const error = await toFailure(thrown, this.#options, lease);
    log.debug(`server: answer broke off model=${lease.modelName} reason=${error.message}`);
    this.#release(error);
    this.#translator?.over();
    if (framer === undefined || error.code === "cancelled") return controller.error(error);
    controller.enqueue(new TextEncoder().encode(dialect.errorEvent(dialect.errorBody(error))));
    return controller.close();
  }

  readonly #abandon = (): void => {
    if (!this.#isHeld) return;
    this.#translator?.left();
    this.#release(clientLeft(this.#options.path));
  };

  get #translator(): AnswerTranslation["stream"] {
    return this.#options.translation?.stream;
  }

  #release(error?: AppError): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#options.signal.removeEventListener("abort", this.#abandon);
    this.#options.lease[Symbol.dispose]();
    this.#trace?.ended(error);
  }
}

/** A client that asked for a stream cannot read anything else. */
export function notStreamed(): AppError {
  return new AppError("worker_failed", "cannot stream the answer: the engine sent it as a whole", {
    hint: "Ask without `stream`.",
  });
}

const ERROR_EVENT = 'data: {"error"';

/** What a model says has its quotes escaped, and is never taken for one. */
function hasErrorEvent(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).includes(ERROR_EVENT);
}

function clientLeft(path: string, cause?: unknown): AppError {
  return new AppError("cancelled", `cannot answer ${path}: the client left`, { cause });
}

async function toFailure(
  thrown: unknown,
  { signal, path }: { readonly signal: AbortSignal; readonly path: string },
  lease: Lease,
): Promise<AppError> {
  if (signal.aborted) return clientLeft(path, thrown);
  if (thrown instanceof AppError) return thrown;
  const failure = await lease.failure();
  if (failure !== undefined) return failure;
  const reason = (thrown as Error).message;
  return new AppError(
    "worker_failed",
    `cannot answer with \`${lease.modelName}\`: the connection to the engine broke (${reason})`,
    { hint: "Try again; see `tug logs` if it happens again.", cause: thrown },
  );
}
