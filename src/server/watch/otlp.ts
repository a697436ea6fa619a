/**
 * Spans on their way to a collector: collected for two seconds, sent as OTLP over HTTP in JSON, dropped and counted where
 * nobody takes them.
 *
 * @see https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
 */
import { toAppError } from "../../errors.ts";
import { log } from "../../log.ts";
import type { TraceSettings } from "./trace-settings.ts";

export type SpanAttributes = Readonly<Record<string, string | number | readonly string[]>>;

export interface Span {
  /** 32 and 16 hexadecimal digits. */
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for the first of a trace. */
  readonly parentSpanId: string;
  readonly traceState: string;
  readonly name: string;
  /** 1 internal, 2 server, 3 client. */
  readonly kind: number;
  /** Milliseconds since 1970. */
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: SpanAttributes;
  readonly events: readonly { readonly name: string; readonly atMs: number }[];
  /** A code, not a sentence. */
  readonly error: string | undefined;
}

/** `Http.send`, as far as it is needed. */
export type SendHttp = (
  url: string,
  request: {
    readonly method: "POST";
    readonly headers: Readonly<Record<string, string>>;
    readonly body: () => string;
    readonly signal: AbortSignal;
    readonly redirect: "manual";
  },
) => Promise<Response>;

export interface ExporterOptions {
  readonly settings: Pick<TraceSettings, "url" | "headers" | "resource" | "timeoutMs">;
  readonly version: string;
  readonly send: SendHttp;
  /** From the first span of a batch until it is sent; 2 s unless given. Milliseconds. */
  readonly delayMs?: number;
}

/** Spans that wait; some kB each at most. */
const MAX_SPANS = 512;
const DELAY_MS = 2000;
/** A runner that leaves does not wait longer for a collector. Milliseconds. */
const CLOSE_MS = 2000;

export class Exporter {
  readonly #options: ExporterOptions;
  #spans: Span[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> | undefined;
  #dropped = 0;
  #isFailing = false;

  constructor(options: ExporterOptions) {
    this.#options = options;
  }

  /** Spans that no collector took. */
  get dropped(): number {
    return this.#dropped;
  }

  add(spans: readonly Span[]): void {
    const room = MAX_SPANS - this.#spans.length;
    this.#dropped += Math.max(0, spans.length - room);
    this.#spans.push(...spans.slice(0, Math.max(0, room)));
    this.#timer ??= setTimeout(() => this.#flush(), this.#options.delayMs ?? DELAY_MS).unref();
  }

  /** Sends what is left, within two seconds. */
  async close(): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, CLOSE_MS);
    await Promise.race([this.#drain(), late]);
    clearTimeout(timer);
  }

  // --- internal ---

  async #drain(): Promise<void> {
    await this.#sending;
    this.#flush();
    await this.#sending;
  }

  /** One batch at a time; what comes meanwhile is the next. */
  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#sending !== undefined || this.#spans.length === 0) return;
    const batch = this.#spans;
    this.#spans = [];
    this.#sending = this.#send(batch).finally(() => {
      this.#sending = undefined;
      if (this.#spans.length > 0) this.add([]);
    });
  }

  async #send(batch: readonly Span[]): Promise<void> {
    const { settings, send, version } = this.#options;
    try {
      const body = JSON.stringify(toOtlp(batch, { resource: settings.resource, version }));
      const response = await send(settings.url, {
        method: "POST",
        headers: { ...settings.headers, "content-type": "application/json" },
        body: () => body,
        signal: AbortSignal.timeout(settings.timeoutMs),
        redirect: "manual",
      });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`status ${response.status}`);
      this.#isFailing = false;
    } catch (thrown) {
      this.#dropped += batch.length;
      // Once an outage: a collector may be down for days.
      if (!this.#isFailing) {
        log.warn(
          `server: traces not taken spans=${batch.length} reason=${toAppError(thrown).message}`,
        );
      }
      this.#isFailing = true;
    }
  }
}

// --- internal ---

/** `ExportTraceServiceRequest` in the JSON that Protocol Buffers give it. */
function toOtlp(
  spans: readonly Span[],
  { resource, version }: { readonly resource: SpanAttributes; readonly version: string },
): unknown {
  const attributes = toAttributes({ ...resource, "service.version": version });
  const scope = { name: "tug", version };
  return {
    resourceSpans: [
      { resource: { attributes }, scopeSpans: [{ scope, spans: spans.map(toOtlpSpan) }] },
    ],
  };
}

const STATUS_ERROR = 2;

function toOtlpSpan(span: Span): unknown {
  const { error } = span;
  const attributes = error === undefined ? {} : { "error.type": error };
  return {
    traceId: span.traceId,
    spanId: span.spanId,
    ...(span.parentSpanId === "" ? {} : { parentSpanId: span.parentSpanId }),
    ...(span.traceState === "" ? {} : { traceState: span.traceState }),
    name: span.name,
    kind: span.kind,
    startTimeUnixNano: toNano(span.startMs),
    endTimeUnixNano: toNano(span.endMs),
    attributes: toAttributes({ ...span.attributes, ...attributes }),
    events: span.events.map(({ name, atMs }) => ({ name, timeUnixNano: toNano(atMs) })),
    status: error === undefined ? {} : { code: STATUS_ERROR, message: error },
  };
}

/** 64-bit numbers are text in this JSON. */
function toNano(ms: number): string {
  return String(BigInt(Math.round(ms * 1000)) * 1000n);
}

function toAttributes(attributes: SpanAttributes): unknown[] {
  return Object.entries(attributes).map(([key, value]) => ({ key, value: toValue(value) }));
}

function toValue(value: string | number | readonly string[]): unknown {
  if (typeof value === "string") return { stringValue: value };
  if (typeof value === "number") {
    return Number.isSafeInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  }
  return { arrayValue: { values: value.map((item) => ({ stringValue: item })) } };
}
