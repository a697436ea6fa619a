/**
 * One observer for all who watch requests: it keeps what they need while the answer passes, as cheaply as can be, and
 * hands it to them when the answer has ended and its client has had the last byte.
 */
import { type AppError, toAppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { Mode } from "../../runtime/backend.ts";
import type { EngineAddress } from "../../runtime/engine-address.ts";
import type { Lease } from "../../runtime/lease.ts";
import type { InferenceFacts, InferenceObserver, InferenceTrace } from "../observer.ts";
import { readAnswer, type ReadAnswer } from "./answer.ts";
import { type CutText, cutMedia } from "./cut-media.ts";
import { AnswerBuffer, AnswerPool } from "./answer-buffer.ts";

/** A request that has ended. Times are milliseconds since 1970. */
export interface FinishedRequest {
  readonly id: string;
  readonly dialect: InferenceFacts["dialect"];
  readonly method: string;
  readonly path: string;
  readonly mode: Mode;
  readonly modelName: string;
  readonly modelId: string;
  readonly isStream: boolean;
  readonly userAgent: string | null;
  readonly origin: string | null;
  readonly traceparent: string | null;
  readonly tracestate: string | null;
  /** Undefined unless somebody asked for bodies. */
  readonly request: CutText | undefined;
  readonly worker: UsedWorker | undefined;
  readonly startedMs: number;
  readonly endedMs: number;
  /** The first piece of the answer itself, keep-alive comments apart. */
  readonly firstChunkMs: number | undefined;
  /** What the client was told, or would have been. */
  readonly status: number;
  readonly contentType: string;
  readonly error: AppError | undefined;
  /** Read once, when first asked for, which must be while the listener is told: its bytes are not kept longer. */
  readonly answer: ReadAnswer;
  /** As long. */
  readonly answerBytes: AnswerBuffer;
}

/** The worker that answered. */
export interface UsedWorker {
  readonly id: number;
  readonly backend: string;
  readonly modelName: string;
  readonly address: EngineAddress;
  readonly acquiredMs: number;
  /** In the queue, loading included. */
  readonly waitedMs: number;
}

export interface FinishedListener {
  finished(request: FinishedRequest): void;
  /** All have been told of, and nobody is being answered: what takes milliseconds is done now. */
  idle?(): void;
}

/** Of each side of a request. Bytes. */
export const MAX_KEPT_BODY = 1024 * 1024;
/** Where no body is recorded: enough for the short answers whose usage stands anywhere. Bytes. */
const MAX_READ_BODY = 64 * 1024;
/** A body up to this is kept as it is until the answer has ended; a longer one is cut at once, and let go. Bytes. */
const MAX_HELD_BODY = 256 * 1024;
/** Shown or stored of a header field. Characters. */
const MAX_FIELD = 256;
/** As the specification of Trace Context wants propagated. Characters. */
const MAX_TRACESTATE = 512;

/** What has ended waits so long for a moment in which nobody is answered. */
const PATIENCE_MS = 250;
/** More than this does not wait: each may hold two megabytes. */
const MAX_PENDING = 32;

const COLON = 0x3a;

export interface CaptureOptions {
  readonly listeners: readonly FinishedListener[];
  /** Whether bodies are kept. */
  readonly bodies: boolean;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

export class Capture implements InferenceObserver {
  readonly #options: CaptureOptions;
  readonly #now: () => number;
  readonly #pending: (() => FinishedRequest)[] = [];
  readonly #pool = new AnswerPool();
  #active = 0;
  /** Runs while something ended and other answers are being given, at most `PATIENCE_MS`. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isTelling = false;
  #isClosed = false;

  constructor(options: CaptureOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Requests that have begun and not ended. */
  get active(): number {
    return this.#active;
  }

  begin(facts: InferenceFacts): InferenceTrace {
    this.#active += 1;
    const keptBytes = this.#options.bodies ? MAX_KEPT_BODY : MAX_READ_BODY;
    const request = this.#options.bodies ? holdBody(facts.body) : () => undefined;
    const trace = new Trace(facts, {
      request,
      buffer: new AnswerBuffer(keptBytes, this.#pool),
      now: this.#now,
    });
    return {
      acquired: (lease, waitedMs) => trace.acquired(lease, waitedMs),
      responded: (status, headers) => trace.responded(status, headers),
      chunk: (bytes) => trace.chunk(bytes),
      ended: (error) => {
        this.#active -= 1;
        const endedMs = this.#now();
        this.#later(() => trace.finish(endedMs, error));
      },
    };
  }

  /** Tells the listeners of all that has ended. */
  flush(): void {
    for (const finish of this.#pending.splice(0)) this.#tell(finish);
  }

  /** Tells of what has ended, and of nothing that ends later: the listeners are about to go. */
  close(): void {
    this.flush();
    clearTimeout(this.#timer);
    this.#isClosed = true;
  }

  // --- internal ---

  /** Not now: the answer's last bytes are about to leave, and others' first ones are worth more than a record. */
  #later(finish: () => FinishedRequest): void {
    if (this.#isClosed) return;
    this.#pending.push(finish);
    if (this.#active === 0 || this.#pending.length >= MAX_PENDING) this.#start();
    else this.#timer ??= setTimeout(this.#start, PATIENCE_MS);
  }

  readonly #start = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#isTelling) return;
    this.#isTelling = true;
    setImmediate(this.#next);
  };

  /** One a turn: tokens of others pass in between. */
  readonly #next = (): void => {
    const finish = this.#pending.shift();
    if (finish !== undefined) this.#tell(finish);
    if (this.#pending.length > 0) return void setImmediate(this.#next);
    this.#isTelling = false;
    if (this.#active === 0 && !this.#isClosed) this.#rest();
  };

  #tell(finish: () => FinishedRequest): void {
    try {
      const request = finish();
      using _kept = request.answerBytes;
      for (const listener of this.#options.listeners) tell(listener, request);
    } catch (thrown) {
      log.warn(`server: request not watched reason=${toAppError(thrown).message}`);
    }
  }

  #rest(): void {
    for (const listener of this.#options.listeners) listener.idle?.();
  }
}

// --- internal ---

interface TraceParts {
  readonly request: () => CutText | undefined;
  readonly buffer: AnswerBuffer;
  readonly now: () => number;
}

type KeptFacts = Omit<InferenceFacts, "body" | "headers">;

class Trace {
  readonly #facts: KeptFacts;
  readonly #fields: Pick<FinishedRequest, "userAgent" | "origin" | "traceparent" | "tracestate">;
  readonly #parts: TraceParts;
  #worker: UsedWorker | undefined;
  #status: number | undefined;
  #contentType = "";
  #isCompressed = false;
  #firstChunkMs: number | undefined;

  constructor({ body: _body, headers, ...facts }: InferenceFacts, parts: TraceParts) {
    this.#facts = facts;
    this.#fields = {
      userAgent: field(headers, "user-agent"),
      origin: field(headers, "origin"),
      traceparent: field(headers, "traceparent"),
      tracestate: field(headers, "tracestate", MAX_TRACESTATE),
    };
    this.#parts = parts;
  }

  acquired(lease: Lease, waitedMs: number): void {
    const { workerId: id, backend, modelName, address } = lease;
    this.#worker = { id, backend, modelName, address, acquiredMs: this.#parts.now(), waitedMs };
  }

  responded(status: number, headers: Headers): void {
    this.#status = status;
    this.#contentType = headers.get("content-type") ?? "";
    this.#isCompressed = headers.has("content-encoding");
  }

  /** Called for each token. */
  chunk(bytes: Uint8Array): void {
    // A comment of an event stream says that there is no answer yet.
    if (this.#firstChunkMs === undefined && bytes[0] !== COLON) {
      this.#firstChunkMs = this.#parts.now();
    }
    this.#parts.buffer.add(bytes);
  }

  finish(endedMs: number, error: AppError | undefined): FinishedRequest {
    const { request, buffer } = this.#parts;
    const contentType = this.#isCompressed ? "" : this.#contentType;
    let answer: ReadAnswer | undefined;
    return {
      ...this.#facts,
      ...this.#fields,
      request: request(),
      worker: this.#worker,
      endedMs,
      firstChunkMs: this.#firstChunkMs,
      status: error?.status ?? this.#status ?? 500,
      contentType,
      error,
      get answer() {
        return (answer ??= readAnswer({ contentType, ...buffer.kept() }));
      },
      answerBytes: buffer,
    };
  }
}

/** The body's bytes must not be kept if they are many: they are counted, and let go once the engine has them. */
function holdBody(body: Uint8Array): () => CutText {
  if (body.byteLength <= MAX_HELD_BODY) return () => cutMedia(body, MAX_KEPT_BODY);
  const cut = cutMedia(body, MAX_KEPT_BODY);
  return () => cut;
}

function field(headers: Headers, name: string, max = MAX_FIELD): string | null {
  return headers.get(name)?.slice(0, max) ?? null;
}

function tell(listener: FinishedListener, request: FinishedRequest): void {
  try {
    listener.finished(request);
  } catch (thrown) {
    log.warn(`server: request not taken by a watcher reason=${toAppError(thrown).message}`);
  }
}
