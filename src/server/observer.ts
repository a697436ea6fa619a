/** Watching inference requests: the recorder, metrics and traces each see the same. */
import type { AppError } from "../errors.ts";
import type { Mode } from "../runtime/backend.ts";
import type { Lease } from "../runtime/lease.ts";

export interface InferenceFacts {
  /** Unique in this runner; answered as `x-request-id`. */
  readonly id: string;
  readonly dialect: "openai" | "anthropic" | "ollama";
  readonly method: string;
  /** As the client asked. */
  readonly path: string;
  readonly mode: Mode;
  /** As the client wrote it. */
  readonly modelName: string;
  /** Digest of the manifest. */
  readonly modelId: string;
  readonly isStream: boolean;
  /** The client's: `traceparent`, `user-agent`, `origin`. */
  readonly headers: Headers;
  readonly body: Uint8Array;
  /** Milliseconds since 1970. */
  readonly startedMs: number;
}

/** The life of one request, in this order; `ended` comes exactly once, whatever happens, and last. None may throw or wait. */
export interface InferenceTrace {
  /** A worker is there. Again after a retry. */
  acquired(lease: Lease, waitedMs: number): void;
  /** The head of the answer, as the client gets it. */
  responded(status: number, headers: Headers): void;
  /** A piece of the answer, as the client gets it. It is not copied: whoever keeps it copies it. */
  chunk(bytes: Uint8Array): void;
  /** @param error why there is no (whole) answer; `cancelled` if the client went */
  ended(error?: AppError): void;
}

export interface InferenceObserver {
  /** Undefined: it does not want to know. */
  begin(facts: InferenceFacts): InferenceTrace | undefined;
}

/** One trace for all; undefined if none wants to know. */
export function beginAll(
  observers: readonly InferenceObserver[],
  facts: InferenceFacts,
): InferenceTrace | undefined {
  const traces = observers.flatMap((observer) => observer.begin(facts) ?? []);
  if (traces.length === 0) return undefined;
  return {
    acquired: (lease, waitedMs) => traces.forEach((trace) => trace.acquired(lease, waitedMs)),
    responded: (status, headers) => traces.forEach((trace) => trace.responded(status, headers)),
    chunk: (bytes) => traces.forEach((trace) => trace.chunk(bytes)),
    ended: (error) => traces.forEach((trace) => trace.ended(error)),
  };
}
