import { describe, expect, test } from "bun:test";
import { AppError } from "../../../src/errors.ts";
import type { RuntimeEvent, WorkerFacts } from "../../../src/runtime/events.ts";
import { Capture } from "../../../src/server/watch/capture.ts";
import { scrapeEngines } from "../../../src/server/watch/engine-metrics.ts";
import {
  Metrics,
  type MetricsDeps,
  type WatchedWorker,
} from "../../../src/server/watch/metrics.ts";
import { type CheckedSample, checkMetrics } from "../../helpers/strict-metrics.ts";
import { LLAMA_METRICS, serveMetrics } from "./engine.ts";
import { answerStream, facts, lease, MODEL_ID } from "./facts.ts";

type WithoutTime<Event> = Event extends unknown ? Omit<Event, "atMs"> : never;

const WORKER: WorkerFacts = {
  workerId: 7,
  backend: "llama.cpp",
  modelName: "pebble",
  modelId: MODEL_ID,
  mode: "completion",
};

function snapshot(overrides: Partial<WatchedWorker> = {}): WatchedWorker {
  const { workerId: id, ...worker } = WORKER;
  return { id, ...worker, state: "ready", inUse: 1, ...overrides };
}

function setUp(workers: readonly WatchedWorker[] = [], deps: Partial<MetricsDeps> = {}) {
  const metrics: Metrics = new Metrics({
    version: "1.2.3",
    listWorkers: () => workers,
    metricsPath: (backend) => (backend === "llama.cpp" ? "/metrics" : undefined),
    activeRequests: () => capture.active,
    droppedSpans: () => 3,
    readBudget: () => Promise.resolve({ ram: 8e9 }),
    ...deps,
  });
  const capture = new Capture({ listeners: [metrics], bodies: false });
  return {
    metrics,
    capture,
    emit: (...events: WithoutTime<RuntimeEvent>[]) => {
      for (const event of events) metrics.onEvent({ atMs: 0, ...event });
    },
    async read() {
      capture.flush();
      return checkMetrics(await metrics.render());
    },
  };
}

/** The value of the one series with this name and these labels; undefined if there is none. */
function valueOf(
  samples: readonly CheckedSample[],
  name: string,
  labels: Record<string, string> = {},
): number | undefined {
  const found = samples.filter(
    (sample) =>
      sample.name === name &&
      Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
  if (found.length > 1) throw new Error(`${found.length} series of ${name}`);
  return found[0]?.value;
}

describe("Metrics", () => {
  test("is valid before anything has happened", async () => {
    const samples = await setUp().read();

    expect(valueOf(samples, "tug_build_info", { version: "1.2.3" })).toBe(1);
    expect(valueOf(samples, "tug_queue_length")).toBe(0);
    expect(valueOf(samples, "tug_memory_budget_bytes", { device: "ram" })).toBe(8e9);
    expect(valueOf(samples, "tug_trace_spans_dropped")).toBe(3);
    expect(valueOf(samples, "process_resident_memory_bytes")).toBeGreaterThan(1e6);
  });

  test("counts requests, their tokens and times by model, mode, dialect and status", async () => {
    const it = setUp();

    const trace = it.capture.begin(facts({ startedMs: Date.now() - 1000 }));
    trace.acquired(lease(), 5);
    answerStream(trace);
    trace.ended();
    it.capture.begin(facts()).ended(new AppError("queue_full", "cannot wait"));
    it.capture.begin(facts());
    const samples = await it.read();

    const model = { model: "pebble", mode: "completion" };
    expect(valueOf(samples, "tug_requests_total", { ...model, status: "200" })).toBe(1);
    expect(valueOf(samples, "tug_requests_total", { ...model, status: "429" })).toBe(1);
    expect(valueOf(samples, "tug_requests_in_flight")).toBe(1);
    expect(valueOf(samples, "tug_tokens_total", { direction: "input" })).toBe(5);
    expect(valueOf(samples, "tug_tokens_total", { direction: "output" })).toBe(2);
    expect(valueOf(samples, "tug_time_to_first_token_seconds_count", model)).toBe(1);
    expect(valueOf(samples, "tug_time_to_first_token_seconds_sum", model)).toBeGreaterThan(0.9);
  });

  test("keeps what was seen before the first look, and counts on behind it", async () => {
    const it = setUp();

    it.capture.begin(facts()).ended();
    await it.read();
    it.capture.begin(facts()).ended();
    const samples = await it.read();

    expect(valueOf(samples, "tug_requests_total")).toBe(2);
  });

  test("follows the queue", async () => {
    const it = setUp();

    it.emit(
      { kind: "queued", ticketId: 1, modelName: "a" },
      { kind: "queued", ticketId: 2, modelName: "b" },
      { kind: "queued", ticketId: 3, modelName: "b" },
      { kind: "granted", ticketId: 1, worker: WORKER, waitedMs: 200 },
      { kind: "refused", ticketId: 2, modelName: "b", waitedMs: 9000, code: "insufficient_memory" },
    );
    const samples = await it.read();

    expect(valueOf(samples, "tug_queue_length")).toBe(1);
    expect(valueOf(samples, "tug_queue_wait_seconds_sum", { result: "granted" })).toBe(0.2);
    expect(valueOf(samples, "tug_queue_wait_seconds_sum", { result: "insufficient_memory" })).toBe(
      9,
    );
  });

  test("counts loads by reason and result, stops by reason, and deaths", async () => {
    const it = setUp();
    const other = { ...WORKER, workerId: 8 };
    const third = { ...WORKER, workerId: 9 };

    it.emit(
      { kind: "loading", worker: WORKER, reason: "preload" },
      { kind: "ready", worker: WORKER, loadMs: 1500 },
      { kind: "stopping", worker: WORKER, reason: "evicted" },
      { kind: "stopping", worker: WORKER, reason: "shutdown" },
      { kind: "exited", worker: WORKER },
      { kind: "loading", worker: other, reason: "retry" },
      { kind: "exited", worker: other, code: "worker_failed" },
      { kind: "loading", worker: third, reason: "request" },
      { kind: "stopping", worker: third, reason: "unloaded" },
      { kind: "exited", worker: third },
    );
    const samples = await it.read();

    const loads = samples.filter(({ name }) => name === "tug_loads_total");
    expect(loads.map(({ labels: { reason, result }, value }) => [reason, result, value])).toEqual([
      ["preload", "ok", 1],
      ["retry", "failed", 1],
      ["request", "stopped", 1],
    ]);
    expect(valueOf(samples, "tug_load_duration_seconds_sum")).toBe(1.5);
    expect(valueOf(samples, "tug_worker_stops_total", { reason: "evicted" })).toBe(1);
    expect(valueOf(samples, "tug_worker_stops_total", { reason: "shutdown" })).toBeUndefined();
    expect(valueOf(samples, "tug_worker_crashes_total", { code: "worker_failed" })).toBe(1);
  });

  test("shows memory and slots of the workers there are, and of no others", async () => {
    const workers = [
      snapshot({ slots: 4, demand: { ram: 100, "cuda:0": 50 }, measured: { ram: 90 } }),
    ];
    const it = setUp(workers);

    const before = await it.read();
    workers.pop();
    const after = await it.read();

    const memory = "tug_worker_memory_bytes";
    expect(valueOf(before, memory, { device: "ram", kind: "estimate" })).toBe(100);
    expect(valueOf(before, memory, { device: "cuda:0", kind: "estimate" })).toBe(50);
    expect(valueOf(before, memory, { device: "ram", kind: "actual" })).toBe(90);
    expect(valueOf(before, "tug_worker_busy_slots", { worker: "7" })).toBe(1);
    expect(valueOf(before, "tug_worker_slots")).toBe(4);
    expect(valueOf(before, "tug_workers", { state: "ready" })).toBe(1);
    expect(after.filter(({ name }) => name.startsWith("tug_worker_memory"))).toEqual([]);
  });

  test("adds the engines' own series of two workers, and leaves out what cannot be read", async () => {
    await using engine = await serveMetrics(() => new Response(LLAMA_METRICS));
    await using broken = await serveMetrics(() => new Response("<html>"));
    const it = setUp([
      snapshot({ address: engine.socket }),
      snapshot({ id: 8, address: engine.socket, modelName: 'm"x\\', modelId: "sha256:b" }),
      snapshot({ id: 9, address: broken.socket }),
      snapshot({ id: 10, address: "/nowhere.sock" }),
      snapshot({ id: 11, address: engine.socket, backend: "without" }),
      snapshot({ id: 12, address: "/nowhere.sock", state: "starting" }),
    ]);

    const samples = await it.read();

    const own = samples.filter(({ name }) => name === "llamacpp:prompt_tokens_total");
    expect(own.map(({ labels }) => labels)).toEqual([
      { backend: "llama.cpp", model: "pebble", mode: "completion", worker: "7" },
      { backend: "llama.cpp", model: String.raw`m\"x\\`, mode: "completion", worker: "8" },
    ]);
    expect(valueOf(samples, "tug_engine_scrape_failures_total", { backend: "llama.cpp" })).toBe(2);
  });

  test("does without a budget that cannot be read", async () => {
    const it = setUp([], { readBudget: () => Promise.reject(new Error("no driver")) });

    const samples = await it.read();

    expect(valueOf(samples, "tug_memory_budget_bytes")).toBeUndefined();
    expect(valueOf(samples, "tug_queue_length")).toBe(0);
  });

  test("calls a model by its shortest name, however a client wrote it", async () => {
    const it = setUp();

    it.capture.begin(facts({ modelName: "docker.io/ai/pebble:latest" })).ended();

    expect(valueOf(await it.read(), "tug_requests_total", { model: "pebble" })).toBe(1);
  });

  test("makes one text for all who ask at once", async () => {
    let asked = 0;
    await using engine = await serveMetrics(() => {
      asked += 1;
      return new Response(LLAMA_METRICS);
    });
    const { metrics } = setUp([snapshot({ address: engine.socket })]);

    const [one, other] = await Promise.all([metrics.render(), metrics.render()]);

    expect(asked).toBe(1);
    expect(other).toBe(one);
  });

  test("gives one model one label, whatever it is called, and bounds their number", async () => {
    const it = setUp();

    for (const modelName of ["pebble", "ai/pebble:latest"]) {
      it.capture.begin(facts({ modelName })).ended();
    }
    for (let index = 0; index < 300; index += 1) {
      it.capture.begin(facts({ modelId: `sha256:${index}`, modelName: `m${index}` })).ended();
    }
    const samples = (await it.read()).filter(({ name }) => name === "tug_requests_total");

    expect(valueOf(samples, "tug_requests_total", { model: "pebble" })).toBe(2);
    expect(valueOf(samples, "tug_requests_total", { model: "other" })).toBe(101);
    expect(samples).toHaveLength(201);
  });

  test("counts on when more happened than can wait for the first look", async () => {
    const it = setUp();

    for (let index = 0; index < 5000; index += 1) it.capture.begin(facts()).ended();
    it.capture.flush();
    const samples = await it.read();

    expect(valueOf(samples, "tug_requests_total")).toBe(5000);
  });
});

describe("scrapeEngines", () => {
  const target = {
    workerId: 1,
    backend: "b",
    modelName: "m",
    mode: "completion",
    metricsPath: "/metrics",
  };

  test.each([
    ["another status", () => new Response(LLAMA_METRICS, { status: 501 }), "status 501"],
    ["a text without end", () => new Response("a 1\n".repeat(400_000)), "more than 1048576 bytes"],
    ["no metrics", () => Response.json({}), "line 1"],
  ])("leaves out an engine that answers with %s", async (_, answer, reason) => {
    await using engine = await serveMetrics(answer);

    const { families, failures } = await scrapeEngines([{ ...target, address: engine.socket }]);

    expect(families).toEqual([]);
    expect(failures[0]?.error.message).toContain(reason);
  });

  test("waits for no engine for long", async () => {
    await using engine = await serveMetrics(() => new Promise<Response>(() => undefined));

    const scraping = scrapeEngines([{ ...target, address: engine.socket }], { timeoutMs: 20 });

    expect((await scraping).failures).toHaveLength(1);
  });
});
