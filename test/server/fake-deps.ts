/** Small honest stand-ins for what the server needs. */
import { Hono } from "hono";
import type { Model } from "../../src/api/models.ts";
import { AppError } from "../../src/errors.ts";
import type { RunnableModel } from "../../src/runtime/backend.ts";
import type { ListedInstallation } from "../../src/runtime/installer/installer.ts";
import type { Lease } from "../../src/runtime/lease.ts";
import { RuntimeEvents } from "../../src/runtime/events.ts";
import type { PlanRequest, WorkerPlan } from "../../src/runtime/planner.ts";
import type { WorkerSnapshot } from "../../src/runtime/snapshot.ts";
import { parseDigest } from "../../src/oci/digest.ts";
import type { AcquireRequest, UnloadOutcome } from "../../src/runtime/supervisor.ts";
import type { AppDeps, AppEnv, EngineInstaller, Runtime } from "../../src/server/deps.ts";

export const PEBBLE_ID = parseDigest(`sha256:${"a".repeat(64)}`);

const PEBBLE: Model = {
  id: PEBBLE_ID,
  tags: ["docker.io/ai/pebble:latest"],
  created: 1_700_000_000,
  size_bytes: 3_000_000,
  config: {
    format: "gguf",
    quantization: "Q8_0",
    parameters: "2.9M",
    architecture: "llama",
    size: "2.86MiB",
    context_size: null,
    gguf: null,
  },
};

export const INSTALLED: ListedInstallation = {
  backend: "llama.cpp",
  version: "0.7.0",
  variant: "cpu",
  source: "apt",
  directory: "/engines/llama.cpp/0.7.0-cpu",
  command: ["/engines/llama.cpp/0.7.0-cpu/llama-server"],
  installedAt: "2026-01-01T00:00:00Z",
  active: true,
  sizeBytes: 46_000_000,
};

/** A worker as `ps` shows it, ready and idle. */
export const IDLE_WORKER: WorkerSnapshot = {
  id: 1,
  key: "one",
  backend: "llama.cpp",
  modelName: "me/gone",
  modelId: `sha256:${"b".repeat(64)}`,
  draftModelId: null,
  mode: "completion",
  state: "ready",
  inUse: 0,
  slots: 4,
  contextTokens: 4096,
  lastUsed: new Date("2026-01-02T03:04:05Z"),
  keepAliveMs: 300_000,
  expiresAt: new Date("2026-01-02T03:09:05Z"),
  pinned: false,
  pid: 42,
  demand: { ram: 20_000_000 },
  measured: { ram: 18_000_000 },
  devices: ["ram"],
  sandbox: "bubblewrap",
  mismatches: [],
  report: null,
  progress: null,
};

/** What a planner would say that changes nothing. */
export function fakePlan(request: Pick<PlanRequest, "model"> & Partial<PlanRequest>): WorkerPlan {
  return {
    model: request.model,
    backend: request.backend ?? "llama.cpp",
    mode: request.mode ?? "completion",
    settings: { contextTokens: request.request?.context_size, runtimeFlags: [] },
    demand: { ram: 1000 },
    ledgerKey: undefined,
    keepAliveMs: 300_000,
    pinned: false,
    defaults: { parameters: {} },
    explained: [],
  };
}

/** A lease that counts how often it was released. */
export interface CountedLease extends Lease {
  readonly releases: number;
  /** How often its engine was heard of. */
  readonly heard: number;
  /** Why its engine was ended. */
  readonly givenUp: readonly AppError[];
}

export function countedLease(socket: string, failure?: AppError): CountedLease {
  let releases = 0;
  let heard = 0;
  const givenUp: AppError[] = [];
  return {
    givenUp,
    address: socket,
    backend: "llama.cpp",
    modelId: PEBBLE_ID,
    modelName: "pebble",
    workerId: 1,
    plan: fakePlan({ model: runnable() }),
    report: undefined,
    isAlive: failure === undefined,
    failure: () => Promise.resolve(failure),
    giveUp: (reason) => void givenUp.push(reason),
    watch: () => ({
      heard: () => void (heard += 1),
      [Symbol.dispose]: () => undefined,
    }),
    get releases() {
      return releases;
    },
    get heard() {
      return heard;
    },
    [Symbol.dispose]: () => void (releases += 1),
  };
}

export interface FakeRuntime extends Runtime {
  readonly acquired: AcquireRequest[];
  readonly leases: CountedLease[];
  readonly unloads: Parameters<Runtime["unload"]>[0][];
  readonly pins: { readonly modelId: string; readonly pinned: boolean }[];
  readonly events: RuntimeEvents;
}

/** Waits for the worker until it resolves; what it rejects with is the refusal. */
export type Gate = (request: AcquireRequest) => Promise<unknown>;

/** @param options.acquire replaces the grant */
export function fakeRuntime(options: {
  socket?: string;
  failure?: AppError;
  gate?: Gate;
  workers?: WorkerSnapshot[];
  acquire?: (request: AcquireRequest) => Promise<Lease>;
  unload?: UnloadOutcome;
}): FakeRuntime {
  const acquired: AcquireRequest[] = [];
  const leases: CountedLease[] = [];
  const unloads: FakeRuntime["unloads"] = [];
  const pins: { modelId: string; pinned: boolean }[] = [];
  return {
    acquired,
    leases,
    unloads,
    pins,
    events: new RuntimeEvents(),
    async acquire(request) {
      acquired.push(request);
      if (options.acquire !== undefined) return options.acquire(request);
      await options.gate?.(request);
      const lease = countedLease(options.socket ?? "/nowhere.sock", options.failure);
      leases.push(lease);
      return lease;
    },
    list: () => options.workers ?? [],
    unload(filter) {
      unloads.push(filter);
      return Promise.resolve(options.unload ?? { unloaded: 1, skipped: [] });
    },
    pin(modelId, pinned) {
      pins.push({ modelId, pinned });
      return (options.workers ?? []).filter((worker) => worker.modelId === modelId).length;
    },
  };
}

export function fakeInstaller(overrides: Partial<EngineInstaller> = {}): EngineInstaller {
  return {
    list: () => Promise.resolve([INSTALLED]),
    install: () => Promise.resolve(INSTALLED),
    uninstall: () => Promise.resolve([INSTALLED]),
    describe: () => Promise.resolve([]),
    use: () => Promise.resolve(INSTALLED),
    rollback: () => Promise.resolve(INSTALLED),
    ...overrides,
  };
}

export function fakeDeps(overrides: Partial<AppDeps> = {}): AppDeps {
  return {
    store: {
      usage: () =>
        Promise.resolve({
          models: [
            { digest: PEBBLE_ID, tags: PEBBLE.tags, sizeBytes: 3_000_000, sharedBytes: 1000 },
          ],
          totalBytes: 3_000_000,
          reclaimableBytes: 500,
        }),
    },
    models: new Hono<AppEnv>(),
    installer: () => fakeInstaller(),
    planner: () => ({ plan: (request) => Promise.resolve(fakePlan(request)) }),
    settings: () => ({ set: () => undefined }),
    resolve: (name) =>
      name === "pebble" ? Promise.resolve(runnable()) : Promise.reject(unknown(name)),
    listModels: () => Promise.resolve([PEBBLE]),
    inspectModel: (name) =>
      name.includes("pebble")
        ? Promise.resolve({
            ...PEBBLE,
            media_type: "application/vnd.oci.image.manifest.v1+json",
            artifact_type: null,
            annotations: {},
            layers: [],
          })
        : Promise.reject(unknown(name)),
    version: "1.2.3",
    allowedOrigins: [],
    ...overrides,
  };
}

/** What the promise rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not reject");
}

export function runnable(): RunnableModel {
  return {
    id: PEBBLE_ID,
    name: "pebble",
    format: "gguf",
    weightBytes: 3_000_000,
    openBundle: () => Promise.reject(new Error("the server opens no bundles")),
  };
}

// --- internal ---

function unknown(name: string): AppError {
  return new AppError("model_not_found", `cannot find \`${name}\`: no such model`, {
    hint: "See `tug list`.",
  });
}
