/**
 * `/metrics`: what Tug counts itself and what the engines count, in one text. prom-client is loaded when somebody looks for
 * the first time; until then observations wait, because most runners are never scraped.
 */
import type { Counter, Gauge, Histogram, Registry } from "prom-client";
import { toAppError } from "../../errors.ts";
import { log } from "../../log.ts";
import { displayReference } from "../../oci/reference.ts";
import type { Mode } from "../../runtime/backend.ts";
import type { Demand } from "../../runtime/demand.ts";
import type { EngineAddress } from "../../runtime/engine-address.ts";
import type { RuntimeEvent, WorkerFacts } from "../../runtime/events.ts";
import type { FinishedListener, FinishedRequest } from "./capture.ts";
import { type EngineTarget, scrapeEngines } from "./engine-metrics.ts";
import { mergeFamilies, parseMetrics, renderMetrics } from "./prometheus-text.ts";

/** A worker as far as it is measured. */
export interface WatchedWorker {
  readonly id: number;
  readonly backend: string;
  readonly modelName: string;
  readonly modelId: string;
  readonly mode: Mode;
  readonly state: "starting" | "ready" | "asleep" | "draining";
  /** Leases held. */
  readonly inUse: number;
  /** Where its engine listens. */
  readonly address?: EngineAddress | undefined;
  /** Requests it serves at once; unknown to some engines. */
  readonly slots?: number | null | undefined;
  /** Bytes by device that are set aside for it. */
  readonly demand?: Demand | null | undefined;
  /** Bytes by device that it was seen to use. */
  readonly measured?: Demand | null | undefined;
}

export interface MetricsDeps {
  readonly version: string;
  listWorkers(): readonly WatchedWorker[];
  /** Of an engine's own metrics; undefined if it has none. */
  metricsPath(backend: string): string | undefined;
  activeRequests(): number;
  /** Spans that no collector took. */
  droppedSpans?(): number;
  /** What workers may hold, bytes by device. */
  readBudget?(): Promise<Demand>;
}

/** Observations that wait for prom-client; some 100 bytes each. */
const MAX_WAITING = 2000;
/** Models that get a label of their own: whoever renames models all day must not fill the memory. */
const MAX_MODELS = 200;
/** Characters of a name in a label. */
const MAX_LABEL = 200;

/** Seconds: from an idle machine's answer to a model of 100 GB on a slow disk. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

type Observation = (instruments: Instruments) => void;

export class Metrics implements FinishedListener {
  readonly #deps: MetricsDeps;
  readonly #labels = new Map<string, string>();
  readonly #queue = new Set<number>();
  /** Why each worker that loads is loaded. */
  readonly #loading = new Map<number, string>();
  readonly #stopping = new Set<number>();
  #waiting: Observation[] = [];
  #instruments: Instruments | undefined;
  #creating: Promise<Instruments> | undefined;
  #rendering: Promise<string> | undefined;

  constructor(deps: MetricsDeps) {
    this.#deps = deps;
  }

  onEvent(event: RuntimeEvent): void {
    switch (event.kind) {
      case "queued":
        this.#queue.add(event.ticketId);
        break;
      case "granted":
        this.#leaveQueue(event, "granted");
        break;
      case "refused":
        this.#leaveQueue(event, event.code);
        break;
      case "loading":
        this.#loading.set(event.worker.workerId, event.reason);
        break;
      case "ready":
        this.#onLoaded(event.worker, "ok", event.loadMs);
        break;
      case "stopping":
        this.#onStopping(event.worker, event.reason);
        break;
      case "exited":
        this.#onExited(event);
        break;
      case "asleep":
      case "progress":
      case "released":
        break;
    }
  }

  finished(request: FinishedRequest): void {
    const { mode, dialect, startedMs, endedMs, firstChunkMs, isStream } = request;
    const model = this.#labelOf(request.modelId, request.worker?.modelName ?? request.modelName);
    const { inputTokens, outputTokens } = request.answer;
    const status = String(request.status);
    this.#observe(({ requests, duration, firstToken, tokens }) => {
      requests.inc({ model, mode, dialect, status });
      duration.observe({ model, mode }, (endedMs - startedMs) / 1000);
      if (isStream && firstChunkMs !== undefined && request.status === 200) {
        firstToken.observe({ model, mode }, (firstChunkMs - startedMs) / 1000);
      }
      if (inputTokens !== null) tokens.inc({ model, mode, direction: "input" }, inputTokens);
      if (outputTokens !== null) tokens.inc({ model, mode, direction: "output" }, outputTokens);
    });
  }

  /** Prometheus's text format. Whoever asks while it is made gets the same. */
  async render(): Promise<string> {
    this.#rendering ??= this.#render().finally(() => (this.#rendering = undefined));
    return this.#rendering;
  }

  // --- internal ---

  async #render(): Promise<string> {
    const instruments = await this.#load();
    const workers = this.#deps.listWorkers();
    const engines = await scrapeEngines(workers.flatMap((worker) => this.#target(worker)));
    for (const { target, error } of engines.failures) {
      log.debug(`server: engine's metrics left out worker=${target.workerId} ${error.message}`);
      instruments.scrapeFailures.inc({ backend: target.backend });
    }
    await this.#measure(instruments, workers);
    const own = parseMetrics(await instruments.registry.metrics());
    return renderMetrics(mergeFamilies([own, ...engines.families]));
  }

  #target(worker: WatchedWorker): EngineTarget[] {
    const { id: workerId, backend, mode, address } = worker;
    const metricsPath = this.#deps.metricsPath(backend);
    if (worker.state === "starting" || address === undefined || metricsPath === undefined)
      return [];
    const modelName = this.#labelOf(worker.modelId, worker.modelName);
    return [{ workerId, backend, mode, modelName, address, metricsPath }];
  }

  /** What is so now; nothing of it is kept up to date in between. */
  async #measure(all: Instruments, workers: readonly WatchedWorker[]): Promise<void> {
    all.buildInfo.set({ version: this.#deps.version }, 1);
    all.startTime.set(Math.round(performance.timeOrigin) / 1000);
    all.residentMemory.set(process.memoryUsage.rss());
    all.queueLength.set(this.#queue.size);
    all.activeRequests.set(this.#deps.activeRequests());
    all.droppedSpans.set(this.#deps.droppedSpans?.() ?? 0);
    for (const gauge of [all.workers, all.busySlots, all.slots, all.memory, all.budget]) {
      gauge.reset();
    }
    for (const worker of workers) this.#measureWorker(all, worker);
    for (const [device, bytes] of Object.entries(await this.#readBudget())) {
      all.budget.set({ device }, bytes);
    }
  }

  /** Without it the rest is still worth reading. */
  async #readBudget(): Promise<Demand> {
    try {
      return (await this.#deps.readBudget?.()) ?? {};
    } catch (thrown) {
      log.debug(`server: budget left out of the metrics reason=${toAppError(thrown).message}`);
      return {};
    }
  }

  #measureWorker(all: Instruments, worker: WatchedWorker): void {
    const { id, backend, mode, state, inUse, slots, demand, measured } = worker;
    const model = this.#labelOf(worker.modelId, worker.modelName);
    const labels = { backend, model, mode, worker: String(id) };
    all.workers.inc({ state });
    all.busySlots.set(labels, inUse);
    if (typeof slots === "number") all.slots.set(labels, slots);
    for (const [device, bytes] of Object.entries(demand ?? {})) {
      all.memory.set({ ...labels, device, kind: "estimate" }, bytes);
    }
    for (const [device, bytes] of Object.entries(measured ?? {})) {
      all.memory.set({ ...labels, device, kind: "actual" }, bytes);
    }
  }

  #leaveQueue(event: RuntimeEvent & { kind: "granted" | "refused" }, result: string): void {
    this.#queue.delete(event.ticketId);
    this.#observe(({ queueWait }) => queueWait.observe({ result }, event.waitedMs / 1000));
  }

  #onLoaded(worker: WorkerFacts, result: string, loadMs?: number): void {
    const reason = this.#loading.get(worker.workerId) ?? "request";
    this.#loading.delete(worker.workerId);
    const labels = this.#workerLabels(worker);
    this.#observe(({ loads, loadDuration }) => {
      loads.inc({ ...labels, reason, result });
      if (loadMs !== undefined) loadDuration.observe(labels, loadMs / 1000);
    });
  }

  #onStopping(worker: WorkerFacts, reason: string): void {
    // It may be told twice: first to finish its work, then to go.
    if (this.#stopping.has(worker.workerId)) return;
    this.#stopping.add(worker.workerId);
    const labels = this.#workerLabels(worker);
    this.#observe(({ stops }) => stops.inc({ ...labels, reason }));
  }

  #onExited({ worker, code }: RuntimeEvent & { kind: "exited" }): void {
    const wasTold = this.#stopping.delete(worker.workerId);
    if (this.#loading.has(worker.workerId)) {
      this.#onLoaded(worker, code === undefined ? "stopped" : "failed");
    }
    if (wasTold || code === undefined) return;
    const labels = this.#workerLabels(worker);
    this.#observe(({ crashes }) => crashes.inc({ ...labels, code }));
  }

  #workerLabels({ backend, modelId, modelName, mode }: WorkerFacts) {
    return { backend, model: this.#labelOf(modelId, modelName), mode };
  }

  /** One name a model, the first it was asked for by, and that as short as it can be: clients write it in several ways. */
  #labelOf(modelId: string, name: string): string {
    const known = this.#labels.get(modelId);
    if (known !== undefined) return known;
    if (this.#labels.size >= MAX_MODELS) return "other";
    const label = displayReference(name).slice(0, MAX_LABEL);
    this.#labels.set(modelId, label);
    return label;
  }

  #observe(observation: Observation): void {
    if (this.#instruments !== undefined) {
      observation(this.#instruments);
      return;
    }
    this.#waiting.push(observation);
    if (this.#waiting.length === MAX_WAITING) {
      this.#load().catch((thrown: unknown) => {
        log.warn(`server: metrics not loaded reason=${String(thrown)}`);
      });
    }
  }

  async #load(): Promise<Instruments> {
    const instruments = await (this.#creating ??= createInstruments());
    this.#instruments = instruments;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const observation of waiting) observation(instruments);
    return instruments;
  }
}

// --- internal ---

interface Instruments {
  readonly registry: Registry;
  readonly requests: Counter<"model" | "mode" | "dialect" | "status">;
  readonly duration: Histogram<"model" | "mode">;
  readonly firstToken: Histogram<"model" | "mode">;
  readonly tokens: Counter<"model" | "mode" | "direction">;
  readonly activeRequests: Gauge;
  readonly queueLength: Gauge;
  readonly queueWait: Histogram<"result">;
  readonly loads: Counter<"backend" | "model" | "mode" | "reason" | "result">;
  readonly loadDuration: Histogram<"backend" | "model" | "mode">;
  readonly stops: Counter<"backend" | "model" | "mode" | "reason">;
  readonly crashes: Counter<"backend" | "model" | "mode" | "code">;
  readonly workers: Gauge<"state">;
  readonly busySlots: Gauge<"backend" | "model" | "mode" | "worker">;
  readonly slots: Gauge<"backend" | "model" | "mode" | "worker">;
  readonly memory: Gauge<"backend" | "model" | "mode" | "worker" | "device" | "kind">;
  readonly budget: Gauge<"device">;
  readonly scrapeFailures: Counter<"backend">;
  readonly droppedSpans: Gauge;
  readonly buildInfo: Gauge<"version">;
  readonly startTime: Gauge;
  readonly residentMemory: Gauge;
}

/** Without prom-client's default metrics: they run timers. */
async function createInstruments(): Promise<Instruments> {
  const prometheus = await import("prom-client");
  const registry = new prometheus.Registry();
  const registers = [registry];
  const counter = <T extends string>(name: string, help: string, ...labelNames: T[]) =>
    new prometheus.Counter({ name, help, labelNames, registers });
  const gauge = <T extends string>(name: string, help: string, ...labelNames: T[]) =>
    new prometheus.Gauge({ name, help, labelNames, registers });
  const histogram = <T extends string>(name: string, help: string, ...labelNames: T[]) =>
    new prometheus.Histogram({ name, help, labelNames, registers, buckets: BUCKETS });
  const worker = ["backend", "model", "mode"] as const;
  return {
    registry,
    ...requestInstruments({ counter, gauge, histogram }),
    queueLength: gauge("tug_queue_length", "Requests that wait for a worker."),
    queueWait: histogram("tug_queue_wait_seconds", "Time until a worker was there.", "result"),
    loads: counter("tug_loads_total", "Workers that were started.", ...worker, "reason", "result"),
    loadDuration: histogram("tug_load_duration_seconds", "From start to ready.", ...worker),
    stops: counter("tug_worker_stops_total", "Workers told to leave.", ...worker, "reason"),
    crashes: counter("tug_worker_crashes_total", "Workers that died.", ...worker, "code"),
    workers: gauge("tug_workers", "Workers by state.", "state"),
    busySlots: gauge("tug_worker_busy_slots", "Requests it serves now.", ...worker, "worker"),
    slots: gauge("tug_worker_slots", "Requests it can serve at once.", ...worker, "worker"),
    memory: gauge(
      "tug_worker_memory_bytes",
      "Memory set aside for a worker (estimate) and seen in use (actual).",
      ...worker,
      "worker",
      "device",
      "kind",
    ),
    budget: gauge("tug_memory_budget_bytes", "Memory that workers may hold.", "device"),
    scrapeFailures: counter(
      "tug_engine_scrape_failures_total",
      "Engines whose own metrics could not be read.",
      "backend",
    ),
    droppedSpans: gauge("tug_trace_spans_dropped", "Spans that no collector took."),
    buildInfo: gauge("tug_build_info", "Tug's version.", "version"),
    startTime: gauge("process_start_time_seconds", "When the runner was started, Unix time."),
    residentMemory: gauge("process_resident_memory_bytes", "Resident memory of the runner."),
  };
}

interface Factories {
  readonly counter: <T extends string>(name: string, help: string, ...labels: T[]) => Counter<T>;
  readonly gauge: <T extends string>(name: string, help: string, ...labels: T[]) => Gauge<T>;
  readonly histogram: <T extends string>(
    name: string,
    help: string,
    ...labels: T[]
  ) => Histogram<T>;
}

function requestInstruments({ counter, gauge, histogram }: Factories) {
  const of = ["model", "mode"] as const;
  return {
    requests: counter("tug_requests_total", "Requests answered.", ...of, "dialect", "status"),
    duration: histogram("tug_request_duration_seconds", "From request to the last byte.", ...of),
    firstToken: histogram(
      "tug_time_to_first_token_seconds",
      "From a request for a stream to the first piece of its answer.",
      ...of,
    ),
    tokens: counter("tug_tokens_total", "Tokens read and written.", ...of, "direction"),
    activeRequests: gauge("tug_requests_in_flight", "Requests that are being answered."),
  };
}
