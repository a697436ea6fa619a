/** Everything that watches requests and workers, put together: metrics, traces, recorded requests. */
import type { Config } from "../../config.ts";
import { log } from "../../log.ts";
import type { RuntimeEvents } from "../../runtime/events.ts";
import type { StateDatabase } from "../../state/database.ts";
import { RequestRecords } from "../../state/request-records.ts";
import type { InferenceObserver } from "../observer.ts";
import type { MetricsSource } from "../routes/metrics.ts";
import type { RequestLog } from "../routes/requests.ts";
import { Capture, type FinishedListener } from "./capture.ts";
import { Metrics, type MetricsDeps } from "./metrics.ts";
import type { Exporter, SendHttp } from "./otlp.ts";
import { Recorder } from "./recorder.ts";
import { readTraceSettings, type TraceSettings } from "./trace-settings.ts";

export interface WatchingOptions {
  readonly config: Pick<Config, "metrics" | "recordRequests">;
  readonly state: StateDatabase;
  readonly events: Pick<RuntimeEvents, "subscribe">;
  readonly version: string;
  readonly listWorkers: MetricsDeps["listWorkers"];
  readonly metricsPath: MetricsDeps["metricsPath"];
  readonly readBudget?: MetricsDeps["readBudget"];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `Http.send`; asked for only where traces are sent. */
  readonly http: () => Promise<{ readonly send: SendHttp }>;
}

export interface Watching {
  readonly observers: readonly InferenceObserver[];
  /** Undefined where they are turned off. */
  readonly metrics: MetricsSource | undefined;
  readonly requests: RequestLog;
  /** Records what has ended, sends what is left. At most two seconds. */
  close(): Promise<void>;
}

export async function createWatching(options: WatchingOptions): Promise<Watching> {
  const { config, events, env } = options;
  const records = new RequestRecords(options.state);
  const recorder = config.recordRequests.value ? new Recorder(records) : undefined;
  const traces = await createTraces(options);
  // It counts what the capture sees, which is made of it.
  const active = { requests: () => 0 };
  const metrics = areMetricsOn(options.config, env)
    ? new Metrics({
        version: options.version,
        listWorkers: options.listWorkers,
        metricsPath: options.metricsPath,
        activeRequests: () => active.requests(),
        droppedSpans: () => traces?.exporter.dropped ?? 0,
        ...(options.readBudget === undefined ? {} : { readBudget: options.readBudget }),
      })
    : undefined;
  const listeners: FinishedListener[] = [metrics, traces?.traces, recorder].filter(
    (listener) => listener !== undefined,
  );
  const capture = new Capture({ listeners, bodies: recorder !== undefined });
  active.requests = () => capture.active;
  const unsubscribe = [metrics, traces?.traces].flatMap((listener) =>
    listener === undefined ? [] : [events.subscribe((event) => listener.onEvent(event))],
  );
  return {
    observers: listeners.length === 0 ? [] : [capture],
    metrics,
    requests: toRequestLog(records, recorder),
    async close() {
      for (const stop of unsubscribe) stop();
      capture.close();
      await traces?.exporter.close();
    },
  };
}

/** What was recorded, for a process that records nothing itself. */
export function openRequestLog(state: StateDatabase): RequestLog {
  return toRequestLog(new RequestRecords(state), undefined);
}

// --- internal ---

function toRequestLog(records: RequestRecords, recorder: Recorder | undefined): RequestLog {
  return {
    isRecording: recorder !== undefined,
    list: (query) => records.list(query),
    find: (id) => records.find(id),
    clear: () => records.clear(),
    follow: (listener) => recorder?.follow(listener),
  };
}

/** Docker Model Runner's `DISABLE_METRICS`, unless Tug's own setting says something. */
function areMetricsOn({ metrics }: Pick<Config, "metrics">, env: WatchingOptions["env"]): boolean {
  const isDisabled = /^(?:1|true|yes|on)$/i.test(env["DISABLE_METRICS"]?.trim() ?? "");
  return metrics.source === "default" && isDisabled ? false : metrics.value;
}

async function createTraces(options: WatchingOptions) {
  const settings = readTraceSettings(options.env);
  if (settings === undefined) return undefined;
  if (typeof settings === "string") {
    log.warn(`server: traces not sent reason=${settings}`);
    return undefined;
  }
  return loadTraces(settings, options);
}

async function loadTraces(
  settings: TraceSettings,
  { http, version }: Pick<WatchingOptions, "http" | "version">,
) {
  const [{ Exporter: ExporterClass }, { Traces }] = await Promise.all([
    import("./otlp.ts"),
    import("./traces.ts"),
  ]);
  let sender: ReturnType<typeof http> | undefined;
  const send: SendHttp = async (url, request) => {
    sender ??= http();
    return (await sender).send(url, request);
  };
  const exporter: Exporter = new ExporterClass({ settings, version, send });
  return { exporter, traces: new Traces({ sampler: settings.sampler, sink: exporter }) };
}
