/**
 * A request on its way to a worker, and the answer on its way back.
 *
 * The first chunk is awaited before the answer begins: until then a failure is still an honest 502, and the listener
 * would hold the headers back for it anyway. After that chunks pass as they come. Reading them here costs 1 to 3 µs
 * each over handing the engine's body to the listener, which would hide when the answer ends and how.
 */
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Lease } from "../runtime/lease.ts";
import { toErrorBody } from "./error-response.ts";
import { EventFramer } from "./event-framer.ts";

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

/**
 * Sends the request to the lease's worker. Takes the lease: it is released when the answer has ended, has failed, or
 * is not wanted any more, exactly once.
 *
 * @throws worker_failed (nothing was answered; with the engine's reason), cancelled
 */
export async function proxyToWorker(request: WorkerRequest, lease: Lease): Promise<Response> {
  try {
    const upstream = await fetch(`http://localhost${request.path}`, {
      method: request.method,
      headers: requestHeaders(request.headers),
      body: request.body ?? null,
      signal: request.signal,
      unix: lease.socket,
      // A pooled connection that the engine has just closed would fail a POST.
      keepalive: false,
      decompress: false,
      redirect: "manual",
      // A long prompt may take longer than fetch's five idle minutes. Bun knows it, its types do not.
      ...({ timeout: false } as object),
    });
    return await answer(upstream, request, lease);
  } catch (error) {
    const failure = await toFailure(error, request, lease);
    lease[Symbol.dispose]();
    throw failure;
  }
}

/** What of a client's header fields an engine gets. */
export function requestHeaders(from: Headers): Headers {
  return without(from, NOT_FORWARDED);
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

async function answer(
  upstream: Response,
  { signal, path }: WorkerRequest,
  lease: Lease,
): Promise<Response> {
  const init = { status: upstream.status, headers: responseHeaders(upstream.headers) };
  const reader = upstream.body?.getReader();
  const first = await reader?.read();
  if (reader === undefined || first === undefined || first.done) {
    lease[Symbol.dispose]();
    return new Response(null, init);
  }
  const isEvents = isEventStream(upstream.headers);
  const relay = new Relay({
    reader,
    lease,
    signal,
    path,
    framer: isEvents ? new EventFramer() : undefined,
  });
  return new Response(relay.stream(first.value), init);
}

function isEventStream(headers: Headers): boolean {
  // A compressed stream cannot be read, and so not be ended with an event of ours.
  if (headers.has("content-encoding")) return false;
  return headers.get("content-type")?.startsWith("text/event-stream") === true;
}

interface RelayOptions {
  readonly reader: Pick<ReadableStreamDefaultReader<Uint8Array>, "read" | "cancel">;
  readonly lease: Lease;
  readonly signal: AbortSignal;
  readonly path: string;
  /** For streams that can carry an error event. */
  readonly framer: EventFramer | undefined;
}

type Controller = ReadableStreamDefaultController<Uint8Array>;

/** Passes chunks on as the client takes them, and lets go of the worker at the end, whichever end it is. */
class Relay {
  readonly #options: RelayOptions;
  #isHeld = true;

  constructor(options: RelayOptions) {
    this.#options = options;
    // A client that leaves between the first chunk and the listener's first read cancels nothing.
    options.signal.addEventListener("abort", this.#release, { once: true });
    if (options.signal.aborted) this.#release();
  }

  stream(first: Uint8Array): ReadableStream<Uint8Array> {
    const { reader } = this.#options;
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => void this.#forward(controller, first),
        // No async function: it is called for every token.
        pull: (controller) => this.#next(controller),
        cancel: async (reason) => {
          this.#release();
          await reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
  }

  #next(controller: Controller): Promise<void> {
    return this.#options.reader.read().then(
      ({ value }) => {
        if (value === undefined) return this.#end(controller);
        return this.#forward(controller, value) ? undefined : this.#next(controller);
      },
      (error: unknown) => this.#fail(controller, error),
    );
  }

  /** @returns false if there is nothing to send yet */
  #forward(controller: Controller, chunk: Uint8Array): boolean {
    const { framer } = this.#options;
    const ready = framer === undefined ? chunk : framer.push(chunk);
    if (ready.byteLength > 0) controller.enqueue(ready);
    return ready.byteLength > 0;
  }

  #end(controller: Controller): void {
    const rest = this.#options.framer?.rest();
    if (rest !== undefined && rest.byteLength > 0) controller.enqueue(rest);
    controller.close();
    this.#release();
  }

  /** The status is spent: an event stream ends with an error event, any other body is visibly cut off. */
  async #fail(controller: Controller, thrown: unknown): Promise<void> {
    const { lease, framer } = this.#options;
    const error = await toFailure(thrown, this.#options, lease);
    log.debug(`server: answer broke off model=${lease.modelName} reason=${error.message}`);
    this.#release();
    if (framer === undefined || error.code === "cancelled") return controller.error(error);
    const event = `data: ${JSON.stringify(toErrorBody(error))}\n\n`;
    controller.enqueue(new TextEncoder().encode(event));
    return controller.close();
  }

  readonly #release = (): void => {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#options.signal.removeEventListener("abort", this.#release);
    this.#options.lease[Symbol.dispose]();
  };
}

async function toFailure(
  thrown: unknown,
  { signal, path }: { readonly signal: AbortSignal; readonly path: string },
  lease: Lease,
): Promise<AppError> {
  if (signal.aborted) {
    return new AppError("cancelled", `cannot answer ${path}: the client left`, { cause: thrown });
  }
  const failure = await lease.failure();
  if (failure !== undefined) return failure;
  const reason = (thrown as Error).message;
  return new AppError(
    "worker_failed",
    `cannot answer with \`${lease.modelName}\`: the connection to the engine broke (${reason})`,
    { hint: "Try again; see `tug logs` if it happens again.", cause: thrown },
  );
}
