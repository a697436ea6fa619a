import { describe, expect, test } from "bun:test";
import { AppError } from "../../../src/errors.ts";
import type { InferenceFacts, InferenceTrace } from "../../../src/server/observer.ts";
import { Capture } from "../../../src/server/watch/capture.ts";
import type { Span } from "../../../src/server/watch/otlp.ts";
import { Traces } from "../../../src/server/watch/traces.ts";
import type { Sampler } from "../../../src/server/watch/trace-settings.ts";
import { answerStream, facts, lease, MODEL_ID } from "./facts.ts";

const START = 1_800_000_000_000;
const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED = TRACEPARENT.replace(/01$/, "00");
const WORKER = {
  workerId: 7,
  backend: "llama.cpp",
  modelName: "pebble",
  modelId: MODEL_ID,
  mode: "completion",
} as const;

function setUp(sampler: Sampler = { heedsParent: true, ratio: 1 }) {
  const spans: Span[] = [];
  const traces = new Traces({ sampler, sink: { add: (some) => void spans.push(...some) } });
  let nowMs = START;
  const capture = new Capture({ listeners: [traces], bodies: false, now: () => nowMs });
  return {
    traces,
    spans,
    at: (ms: number) => void (nowMs = START + ms),
    observe(work: (trace: InferenceTrace) => void, overrides: Partial<InferenceFacts> = {}) {
      const trace = capture.begin(facts({ startedMs: START, ...overrides }));
      work(trace);
      capture.flush();
    },
    span: (name: string) => spans.find((span) => span.name === name),
  };
}

const times = (span: Span | undefined) =>
  span === undefined ? undefined : [span.startMs - START, span.endMs - START];

describe("Traces", () => {
  test("tells a request that had to wait for a load: queue, load and generate under it", () => {
    const it = setUp();
    it.traces.onEvent({ kind: "loading", atMs: START + 300, worker: WORKER, reason: "request" });
    it.traces.onEvent({ kind: "ready", atMs: START + 900, worker: WORKER, loadMs: 600 });

    it.observe((trace) => {
      it.at(1000);
      trace.acquired(lease(), 1000);
      it.at(1200);
      answerStream(trace);
      it.at(1500);
      trace.ended();
    });

    const root = it.span("request");
    expect(it.spans.map(({ name }) => name)).toEqual(["request", "queue", "load", "generate"]);
    expect(times(root)).toEqual([0, 1500]);
    expect(times(it.span("queue"))).toEqual([0, 300]);
    expect(times(it.span("load"))).toEqual([300, 900]);
    expect(times(it.span("generate"))).toEqual([1000, 1500]);
    expect(it.span("generate")?.events).toEqual([{ name: "first_token", atMs: START + 1200 }]);
    expect(root?.parentSpanId).toBe("");
    expect(new Set(it.spans.map(({ traceId }) => traceId)).size).toBe(1);
    expect(new Set(it.spans.map(({ spanId }) => spanId)).size).toBe(4);
    expect(it.spans.slice(1).map(({ parentSpanId }) => parentSpanId)).toEqual(
      Array(3).fill(root?.spanId),
    );
  });

  test("has no load for a worker that was there", () => {
    const it = setUp();
    it.traces.onEvent({ kind: "loading", atMs: START - 900, worker: WORKER, reason: "preload" });
    it.traces.onEvent({ kind: "ready", atMs: START - 100, worker: WORKER, loadMs: 800 });

    it.observe((trace) => {
      it.at(5);
      trace.acquired(lease(), 5);
      trace.ended();
    });

    expect(it.spans.map(({ name }) => name)).toEqual(["request", "queue", "generate"]);
    expect(times(it.span("queue"))).toEqual([0, 5]);
  });

  test("counts of a load that had begun before only what the request waited for", () => {
    const it = setUp();
    it.traces.onEvent({ kind: "loading", atMs: START - 500, worker: WORKER, reason: "request" });
    it.traces.onEvent({ kind: "ready", atMs: START + 400, worker: WORKER, loadMs: 900 });

    it.observe((trace) => {
      it.at(400);
      trace.acquired(lease(), 400);
      trace.ended();
    });

    expect(times(it.span("queue"))).toEqual([0, 0]);
    expect(times(it.span("load"))).toEqual([0, 400]);
  });

  test("names model, operation, tokens and end in GenAI's words, and no text", () => {
    const it = setUp();

    it.observe((trace) => {
      trace.acquired(lease(), 0);
      answerStream(trace);
      trace.ended();
    });

    expect(it.span("request")?.attributes).toMatchObject({
      "gen_ai.operation.name": "chat",
      "gen_ai.provider.name": "llama.cpp",
      "gen_ai.request.model": "pebble",
      "gen_ai.response.model": "pebble",
      "gen_ai.usage.input_tokens": 5,
      "gen_ai.usage.output_tokens": 2,
      "gen_ai.response.finish_reasons": ["stop"],
      "http.request.method": "POST",
      "http.response.status_code": 200,
      "url.path": "/v1/chat/completions",
      "user_agent.original": "test/1",
    });
    expect(it.span("generate")?.attributes["server.address"]).toBe("/run/worker-7.sock");
    expect(JSON.stringify(it.spans)).not.toMatch(/Hello|world|secret|"hi"/);
  });

  test.each([
    ["/v1/chat/completions", "completion", "chat"],
    ["/engines/llama.cpp/v1/completions", "completion", "text_completion"],
    ["/api/generate", "completion", "text_completion"],
    ["/v1/messages", "completion", "chat"],
    ["/v1/embeddings", "embedding", "embeddings"],
    ["/rerank", "reranking", "rerank"],
  ] as const)("calls %s in mode %s %s", (path, mode, operation) => {
    const it = setUp();

    it.observe((trace) => trace.ended(), { path: `${path}?key=secret`, mode });

    expect(it.span("request")?.attributes["gen_ai.operation.name"]).toBe(operation);
    expect(it.span("request")?.attributes["url.path"]).toBe(path);
  });

  test("goes on with the client's trace", () => {
    const it = setUp();
    const headers = new Headers({ traceparent: TRACEPARENT, tracestate: "v=1" });

    it.observe((trace) => trace.ended(), { headers });

    expect(it.span("request")).toMatchObject({
      traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
      parentSpanId: "00f067aa0ba902b7",
      traceState: "v=1",
    });
  });

  test.each([
    [true, 0, TRACEPARENT, true],
    [true, 1, UNSAMPLED, false],
    [false, 1, UNSAMPLED, true],
    [false, 0, TRACEPARENT, false],
    [true, 0, "", false],
  ])("heeds the parent: %p, ratio %d, %s", (...[heedsParent, ratio, traceparent, isSent]) => {
    const it = setUp({ heedsParent, ratio });

    it.observe((trace) => trace.ended(), { headers: new Headers({ traceparent }) });

    expect(it.spans.length > 0).toBe(isSent);
  });

  test("marks what went wrong by its code, never by its words", () => {
    const it = setUp();

    it.observe((trace) => trace.ended(new AppError("insufficient_memory", "cannot load secret")));

    expect(it.span("request")).toMatchObject({ error: "insufficient_memory" });
    expect(it.spans.map(({ name }) => name)).toEqual(["request", "queue"]);
    expect(JSON.stringify(it.spans)).not.toContain("secret");
  });

  test("takes a client that left for no error of the server", () => {
    const it = setUp();

    it.observe((trace) => trace.ended(new AppError("cancelled", "cannot answer: the client left")));

    expect(it.span("request")?.error).toBeUndefined();
  });
});
