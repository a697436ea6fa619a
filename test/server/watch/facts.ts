/** Requests for whoever watches them. */
import type { Lease } from "../../../src/runtime/lease.ts";
import type { InferenceFacts, InferenceTrace } from "../../../src/server/observer.ts";
import type { FinishedListener, FinishedRequest } from "../../../src/server/watch/capture.ts";

export const MODEL_ID = `sha256:${"a".repeat(64)}`;

export function facts(overrides: Partial<InferenceFacts> = {}): InferenceFacts {
  return {
    id: "r1",
    dialect: "openai",
    method: "POST",
    path: "/v1/chat/completions",
    mode: "completion",
    modelName: "pebble",
    modelId: MODEL_ID,
    isStream: true,
    headers: new Headers({ "user-agent": "test/1", authorization: "Bearer secret" }),
    body: bytes('{"model":"pebble","messages":[{"role":"user","content":"hi"}]}'),
    startedMs: 1_800_000_000_000,
    ...overrides,
  };
}

/** As far as watchers look at it. */
export function lease(overrides: Partial<Lease> = {}): Lease {
  return {
    address: "/run/worker-7.sock",
    backend: "llama.cpp",
    modelId: MODEL_ID,
    modelName: "pebble",
    workerId: 7,
    failure: () => Promise.resolve(undefined),
    [Symbol.dispose]: () => undefined,
    ...overrides,
  } as Lease;
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** A whole streamed answer of two words, `Hello world`, 5 tokens read and 2 written. */
export function answerStream(trace: InferenceTrace): void {
  trace.responded(200, new Headers({ "content-type": "text/event-stream" }));
  for (const event of STREAM) trace.chunk(bytes(event));
}

export const STREAM = [
  'data: {"id":"c1","model":"pebble","choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}\n\n',
  'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Hello "}}]}\n\n',
  'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"world"},"finish_reason":null}]}\n\n',
  'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"timings":{"prompt_n":2,"cache_n":3,"predicted_n":2}}\n\n',
  "data: [DONE]\n\n",
];

/** Keeps what it is told. */
export function keeper(): FinishedListener & { readonly all: FinishedRequest[] } {
  const all: FinishedRequest[] = [];
  return {
    all,
    finished(request) {
      // Read now: its bytes are another's later.
      void request.answer;
      all.push(request);
    },
  };
}
