/**
 * Where traces go, from the environment that every OpenTelemetry program reads. Pure.
 *
 * @see https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */

export interface TraceSettings {
  /** Of the collector, with `/v1/traces`. */
  readonly url: string;
  /** May hold credentials: never shown. */
  readonly headers: Readonly<Record<string, string>>;
  /** Of the resource; `service.name` is among them. */
  readonly resource: Readonly<Record<string, string>>;
  readonly sampler: Sampler;
  /** Milliseconds for one export. */
  readonly timeoutMs: number;
}

export interface Sampler {
  /** Whether a client's own decision holds. */
  readonly heedsParent: boolean;
  /** Of the traces that begin here, 0 to 1. */
  readonly ratio: number;
}

type Env = Readonly<Record<string, string | undefined>>;

/** A version of ff is not allowed, and ids of zeros are none. */
const TRACEPARENT =
  /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const DEFAULT_TIMEOUT_MS = 10_000;
/** A collector that takes longer holds up what comes behind. */
const MAX_TIMEOUT_MS = 60_000;

/** @returns undefined if nobody asked for traces; text if they cannot be sent, for the log */
export function readTraceSettings(env: Env): TraceSettings | string | undefined {
  const url = endpointOf(env);
  if (url === undefined || isOff(env)) return undefined;
  const parsed = URL.parse(url);
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    return "OTEL_EXPORTER_OTLP_ENDPOINT is no http address";
  }
  const sampler = readSampler(env);
  if (sampler === undefined) return "OTEL_TRACES_SAMPLER is not known";
  if (sampler.ratio === 0 && !sampler.heedsParent) return undefined;
  const timeoutMs = Number(env["OTEL_EXPORTER_OTLP_TIMEOUT"] ?? DEFAULT_TIMEOUT_MS);
  return {
    url,
    headers: {
      ...parsePairs(env["OTEL_EXPORTER_OTLP_HEADERS"]),
      ...parsePairs(env["OTEL_EXPORTER_OTLP_TRACES_HEADERS"]),
    },
    resource: {
      "service.name": "tug",
      ...parsePairs(env["OTEL_RESOURCE_ATTRIBUTES"]),
      ...(env["OTEL_SERVICE_NAME"] ? { "service.name": env["OTEL_SERVICE_NAME"] } : {}),
    },
    sampler,
    timeoutMs: timeoutMs > 0 ? Math.min(timeoutMs, MAX_TIMEOUT_MS) : DEFAULT_TIMEOUT_MS,
  };
}

/** The identity that a client's `traceparent` gives a trace. */
export interface ParentContext {
  readonly traceId: string;
  readonly spanId: string;
  readonly isSampled: boolean;
}

/** @see https://www.w3.org/TR/trace-context/#traceparent-header */
export function parseTraceparent(header: string | null): ParentContext | undefined {
  const [, version, traceId, spanId, flags, rest] = TRACEPARENT.exec(header?.trim() ?? "") ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  // Only later versions may add to it.
  if (version === "00" && rest !== undefined) return undefined;
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

// --- internal ---

function endpointOf(env: Env): string | undefined {
  const exact = env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
  if (exact) return exact;
  const base = env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  return base ? `${base.replace(/\/+$/, "")}/v1/traces` : undefined;
}

function isOff(env: Env): boolean {
  const exporter = env["OTEL_TRACES_EXPORTER"]?.trim().toLowerCase();
  return env["OTEL_SDK_DISABLED"]?.trim().toLowerCase() === "true" || exporter === "none";
}

function readSampler(env: Env): Sampler | undefined {
  const name = env["OTEL_TRACES_SAMPLER"]?.trim().toLowerCase() || "parentbased_always_on";
  const heedsParent = name.startsWith("parentbased_");
  switch (name.replace(/^parentbased_/, "")) {
    case "always_on":
      return { heedsParent, ratio: 1 };
    case "always_off":
      return { heedsParent, ratio: 0 };
    case "traceidratio": {
      const ratio = Number(env["OTEL_TRACES_SAMPLER_ARG"] || "1");
      return ratio >= 0 && ratio <= 1 ? { heedsParent, ratio } : undefined;
    }
    default:
      return undefined;
  }
}

/** `key=value,key=value`, as in W3C Baggage: values are percent-encoded. What is no pair is left out. */
function parsePairs(text: string | undefined): Record<string, string> {
  const pairs: [string, string][] = [];
  for (const item of (text ?? "").split(",")) {
    const at = item.indexOf("=");
    const key = item.slice(0, Math.max(at, 0)).trim();
    if (/^[\w.!#$%&'*+^`|~-]+$/.test(key)) pairs.push([key, decoded(item.slice(at + 1).trim())]);
  }
  return Object.fromEntries(pairs);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
