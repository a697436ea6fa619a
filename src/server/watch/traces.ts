/**
 * Traces in OpenTelemetry's terms: a span a request, and under it its time in the queue, the load it waited for, and the
 * answer. Names and counts only, never what was asked or answered.
 *
 * @see https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
 */
import { addressAttributes } from "../../runtime/engine-address.ts";
import type { RuntimeEvent } from "../../runtime/events.ts";
import type { FinishedListener, FinishedRequest } from "./capture.ts";
import type { Span, SpanAttributes } from "./otlp.ts";
import { parseTraceparent, type Sampler } from "./trace-settings.ts";

/** Where spans go. */
export interface SpanSink {
  add(spans: readonly Span[]): void;
}

export interface TracesOptions {
  readonly sampler: Sampler;
  readonly sink: SpanSink;
  /** Bytes for ids and sampling. */
  readonly random?: (bytes: Uint8Array) => Uint8Array;
}

/** OpenTelemetry's numbers. */
const KIND_INTERNAL = 1;
const KIND_SERVER = 2;
const KIND_CLIENT = 3;

/** Characters of a value that comes from a client or an engine. */
const MAX_VALUE = 256;

interface Load {
  readonly startMs: number;
  readonly endMs: number | undefined;
  readonly reason: string;
}

export class Traces implements FinishedListener {
  readonly #options: TracesOptions;
  readonly #loads = new Map<number, Load>();

  constructor(options: TracesOptions) {
    this.#options = options;
  }

  onEvent(event: RuntimeEvent): void {
    if (event.kind === "loading") {
      const { atMs: startMs, reason } = event;
      this.#loads.set(event.worker.workerId, { startMs, endMs: undefined, reason });
    }
    if (event.kind === "ready") {
      const load = this.#loads.get(event.worker.workerId);
      const startMs = load?.startMs ?? event.atMs - event.loadMs;
      const reason = load?.reason ?? "request";
      this.#loads.set(event.worker.workerId, { startMs, endMs: event.atMs, reason });
    }
    if (event.kind === "exited") this.#loads.delete(event.worker.workerId);
  }

  finished(request: FinishedRequest): void {
    const parent = parseTraceparent(request.traceparent);
    const traceId = parent?.traceId ?? this.#id(16);
    if (!this.#isSampled(traceId, parent?.isSampled)) return;
    const root = this.#id(8);
    const child = (span: Omit<Span, "traceId" | "spanId" | "parentSpanId">): Span => ({
      traceId,
      spanId: this.#id(8),
      parentSpanId: root,
      ...span,
    });
    const spans = this.#childrenOf(request).map(child);
    const whole = { traceId, spanId: root, parentSpanId: parent?.spanId ?? "", ...toRoot(request) };
    this.#options.sink.add([whole, ...spans]);
  }

  // --- internal ---

  #childrenOf(request: FinishedRequest) {
    const { worker, startedMs, endedMs } = request;
    if (worker === undefined) {
      return [interval("queue", { startMs: startedMs, endMs: endedMs })];
    }
    const load = this.#loads.get(worker.id);
    const waitStartMs = Math.max(startedMs, worker.acquiredMs - worker.waitedMs);
    const isLoaded = load?.endMs !== undefined && load.endMs > waitStartMs;
    const loadEndMs = Math.min(load?.endMs ?? 0, worker.acquiredMs);
    const loadStartMs = Math.min(Math.max(load?.startMs ?? 0, waitStartMs), loadEndMs);
    const queueEndMs = isLoaded ? loadStartMs : worker.acquiredMs;
    const attributes = { "gen_ai.provider.name": worker.backend, "tug.worker.id": worker.id };
    return [
      interval("queue", { startMs: waitStartMs, endMs: queueEndMs }),
      ...(isLoaded
        ? [
            interval("load", {
              startMs: loadStartMs,
              endMs: loadEndMs,
              attributes: { ...attributes, "tug.load.reason": load.reason },
            }),
          ]
        : []),
      {
        ...interval("generate", { startMs: worker.acquiredMs, endMs: endedMs }),
        kind: KIND_CLIENT,
        attributes: {
          ...genAiAttributes(request),
          ...addressAttributes(worker.address),
          "tug.worker.id": worker.id,
        },
        events: firstTokenEvent(request),
        error: errorOf(request),
      },
    ];
  }

  /** The same traces by everybody who decides by the same ratio: by the end of the id, as OpenTelemetry does. */
  #isSampled(traceId: string, isParentSampled: boolean | undefined): boolean {
    const { heedsParent, ratio } = this.#options.sampler;
    if (heedsParent && isParentSampled !== undefined) return isParentSampled;
    return Number.parseInt(traceId.slice(-13), 16) / 2 ** 52 < ratio;
  }

  #id(bytes: number): string {
    const fill = this.#options.random ?? ((array) => crypto.getRandomValues(array));
    return Buffer.from(fill(new Uint8Array(bytes))).toString("hex");
  }
}

// --- internal ---

function toRoot(request: FinishedRequest): Omit<Span, "traceId" | "spanId" | "parentSpanId"> {
  return {
    name: "request",
    kind: KIND_SERVER,
    traceState: request.tracestate ?? "",
    startMs: request.startedMs,
    endMs: Math.max(request.startedMs, request.endedMs),
    attributes: {
      ...genAiAttributes(request),
      "http.request.method": request.method,
      "url.path": (request.path.split("?")[0] ?? "").slice(0, MAX_VALUE),
      "http.response.status_code": request.status,
      ...(request.userAgent === null ? {} : { "user_agent.original": request.userAgent }),
      "tug.request.id": request.id.slice(0, MAX_VALUE),
      "tug.dialect": request.dialect,
    },
    events: [],
    // What a client did wrong is no error of the server's span.
    error: request.status >= 500 ? errorOf(request) : undefined,
  };
}

function genAiAttributes(request: FinishedRequest): SpanAttributes {
  const { answer, worker } = request;
  return {
    "gen_ai.operation.name": operationOf(request),
    "gen_ai.request.model": request.modelName.slice(0, MAX_VALUE),
    ...(worker === undefined
      ? {}
      : {
          "gen_ai.provider.name": worker.backend,
          "gen_ai.response.model": worker.modelName.slice(0, MAX_VALUE),
        }),
    ...(answer.inputTokens === null ? {} : { "gen_ai.usage.input_tokens": answer.inputTokens }),
    ...(answer.outputTokens === null ? {} : { "gen_ai.usage.output_tokens": answer.outputTokens }),
    ...(answer.finishReasons.length === 0
      ? {}
      : { "gen_ai.response.finish_reasons": answer.finishReasons }),
  };
}

function operationOf({ mode, path }: FinishedRequest): string {
  if (mode === "embedding") return "embeddings";
  if (mode === "reranking") return "rerank";
  if (mode === "image-generation") return "image_generation";
  return /(?<!chat)\/(?:completions?|generate)(?:\?|$)/.test(path) ? "text_completion" : "chat";
}

function interval(
  name: string,
  {
    startMs,
    endMs,
    attributes = {},
  }: { startMs: number; endMs: number; attributes?: SpanAttributes },
) {
  return {
    name,
    kind: KIND_INTERNAL,
    traceState: "",
    startMs,
    endMs: Math.max(startMs, endMs),
    attributes,
    events: [] as Span["events"],
    error: undefined as Span["error"],
  };
}

function firstTokenEvent({ firstChunkMs }: FinishedRequest): Span["events"] {
  return firstChunkMs === undefined ? [] : [{ name: "first_token", atMs: firstChunkMs }];
}

/** The message of an error is a sentence of ours, or an engine's, which may repeat a prompt: only the class is told. */
function errorOf({ error, status }: FinishedRequest): string | undefined {
  if (error !== undefined) return error.code;
  return status >= 400 ? String(status) : undefined;
}
