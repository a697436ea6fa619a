/** `/engines`: engines on this machine, the workers that run, and what they occupy. */
import { Hono } from "hono";
import * as v from "valibot";
import type {
  EngineInstallation,
  LoadResult,
  UnloadResult,
  WorkerStatus,
} from "../../api/engines.ts";
import type { DiskUsage } from "../../api/models.ts";
import { AppError } from "../../errors.ts";
import type { Installation } from "../../runtime/backend.ts";
import type { WorkerSnapshot } from "../../runtime/snapshot.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { progressResponse } from "../progress-response.ts";
import { parseBody, parseOptionalBody } from "../request-body.ts";
import {
  knownBackends,
  requireBackend,
  requireRuntime,
  toKeepAliveMs,
  toWorkerSettings,
  WORKER_FIELDS,
} from "../worker-request.ts";

const UnloadBody = v.object({
  all: v.optional(v.boolean()),
  backend: v.optional(v.string()),
  models: v.optional(v.array(v.string())),
});

const LoadBody = v.object({
  ...WORKER_FIELDS,
  backend: v.optional(v.string()),
  mode: v.optional(v.picklist(["completion", "embedding", "reranking"]), "completion"),
});

const InstallBody = v.object({
  backend: v.optional(v.string()),
  gpu: v.optional(v.picklist(["auto", "none", "cuda", "rocm", "vulkan", "metal"]), "auto"),
  source: v.optional(v.string()),
  version: v.optional(v.string()),
});

const UninstallBody = v.object({ backend: v.string(), version: v.optional(v.string()) });

export function engineRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/", async (c) => c.json(await listEngines(deps)));
  app.get("/status", async (c) => c.json(await describeBackends(deps)));
  app.get("/ps", (c) => c.json((deps.runtime?.list() ?? []).map(toWorkerStatus)));
  app.get("/df", async (c) => c.json(await measureDisk(deps)));
  app.post("/unload", async (c) => {
    const { value } = await parseBody(c.req.raw, UnloadBody);
    const unloaded = await unload(deps, value, c.env?.trusted === true);
    return c.json<UnloadResult>({ unloaded_runners: unloaded });
  });
  app.post("/load", async (c) => {
    const { value } = await parseBody(c.req.raw, LoadBody);
    return load(deps, value, { signal: c.req.raw.signal, trusted: c.env?.trusted === true });
  });
  app.post("/install-backend", async (c) => {
    const request = await parseOptionalBody(c.req.raw, InstallBody);
    const backend = await requireBackend(request.backend ?? (await defaultBackend()));
    const installer = await deps.installer();
    return progressResponse<EngineInstallation>(c.req.raw.signal, async (options) => {
      const installation = await installer.install({ ...request, backend }, options);
      return toEngineInstallation({ ...installation, active: true });
    });
  });
  app.post("/uninstall-backend", async (c) => {
    const { value } = await parseBody(c.req.raw, UninstallBody);
    return c.json(await uninstall(deps, value));
  });
  return app;
}

export function toEngineInstallation(
  installation: Installation & { readonly active: boolean },
): EngineInstallation {
  const { backend, version, variant, source, directory, active } = installation;
  return { backend, version, variant, source, directory, active };
}

// --- internal ---

async function listEngines(deps: AppDeps): Promise<EngineInstallation[]> {
  const installer = await deps.installer();
  return (await installer.list()).map(toEngineInstallation);
}

/** Docker Model Runner's grammar: `Running: <detail>` or `Not Installed`. */
async function describeBackends(deps: AppDeps): Promise<Record<string, string>> {
  const engines = await listEngines(deps);
  const entries = (await knownBackends()).map((name) => {
    const active = engines.find((engine) => engine.backend === name && engine.active);
    if (active === undefined) return [name, "Not Installed"];
    return [name, `Running: ${name} ${active.version} (${active.variant}, from ${active.source})`];
  });
  return Object.fromEntries(entries);
}

function toWorkerStatus(worker: WorkerSnapshot): WorkerStatus {
  return {
    backend_name: worker.backend,
    model_name: worker.modelName,
    model_id: worker.modelId,
    mode: worker.mode,
    state: worker.state,
    loading: worker.state === "starting",
    in_use: worker.inUse,
    last_used: worker.lastUsed?.toISOString() ?? null,
    keep_alive_ms: worker.keepAliveMs,
    expires_at: worker.expiresAt?.toISOString() ?? null,
    pid: worker.pid,
  };
}

async function measureDisk(deps: AppDeps): Promise<DiskUsage> {
  const installer = await deps.installer();
  const [usage, engines] = await Promise.all([deps.store.usage(), installer.list()]);
  return {
    models_disk_usage: usage.totalBytes,
    default_backend_disk_usage: engines.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    models: usage.models.map(({ digest, tags, sizeBytes, sharedBytes }) => ({
      id: digest,
      tags,
      size_bytes: sizeBytes,
      shared_bytes: sharedBytes,
    })),
    reclaimable: usage.reclaimableBytes,
    engines: engines.map(({ backend, version, variant, sizeBytes }) => ({
      backend,
      version,
      variant,
      size_bytes: sizeBytes,
    })),
  };
}

async function unload(
  { runtime, resolve }: AppDeps,
  { all, backend, models }: v.InferOutput<typeof UnloadBody>,
  trusted: boolean,
): Promise<number> {
  if (all !== true && backend === undefined && models === undefined) {
    throw new AppError("invalid_request", "cannot unload: the request names nothing", {
      hint: "Give `models`, `backend`, or `all: true`.",
    });
  }
  if (runtime === undefined) return 0;
  const workers = runtime.list();
  const ids = models?.map(async (name) => {
    // A worker outlives its model's name: what is loaded can be unloaded by the name it was loaded under.
    const loaded = workers.find(({ modelName, modelId }) => modelName === name || modelId === name);
    return loaded?.modelId ?? (await resolve(name, { trusted })).id;
  });
  return runtime.unload({ all, backend, models: ids && (await Promise.all(ids)) });
}

async function load(
  deps: AppDeps,
  body: v.InferOutput<typeof LoadBody>,
  { signal, trusted }: { readonly signal: AbortSignal; readonly trusted: boolean },
): Promise<Response> {
  const runtime = requireRuntime(deps);
  const request = {
    backend: body.backend === undefined ? undefined : await requireBackend(body.backend),
    mode: body.mode,
    settings: toWorkerSettings(body.context_size),
    keepAliveMs: toKeepAliveMs(body.keep_alive),
    model: await deps.resolve(body.model, { trusted }),
  };
  return progressResponse<LoadResult>(signal, async (options) => {
    const start = performance.now();
    using lease = await runtime.acquire({ ...request, ...options });
    const loadMs = Math.round(performance.now() - start);
    return { model_id: lease.modelId, backend: lease.backend, load_ms: loadMs };
  });
}

async function uninstall(
  deps: AppDeps,
  request: v.InferOutput<typeof UninstallBody>,
): Promise<EngineInstallation[]> {
  await requireBackend(request.backend);
  if (deps.runtime?.list().some(({ backend }) => backend === request.backend) === true) {
    throw new AppError(
      "conflict",
      `cannot uninstall \`${request.backend}\`: it is running a model`,
      {
        hint: "Stop it with `tug unload --all` first.",
      },
    );
  }
  const installer = await deps.installer();
  const removed = await installer.uninstall(request);
  return removed.map((installation) => toEngineInstallation({ ...installation, active: false }));
}

async function defaultBackend(): Promise<string> {
  const [first] = await knownBackends();
  return first ?? "";
}
