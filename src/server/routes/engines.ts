/** `/engines`: engines on this machine, and what they and the models occupy. The workers are in `workers.ts`. */
import { Hono } from "hono";
import * as v from "valibot";
import type { EngineInstallation } from "../../api/engines.ts";
import type { DiskUsage } from "../../api/models.ts";
import { AppError } from "../../errors.ts";
import type { Installation } from "../../runtime/backend.ts";
import type { AppDeps, AppEnv, WorkOptions } from "../deps.ts";
import { readsProgress } from "../docker-progress.ts";
import { progressResponse } from "../progress-response.ts";
import { parseBody, parseOptionalBody } from "../request-body.ts";
import { knownBackends, requireBackend } from "../worker-request.ts";
import { addEventRoute } from "./events.ts";
import { addWorkerRoutes } from "./workers.ts";

/** `""` and null say nothing, as in Docker Model Runner. */
export const InstallBody = v.object({
  backend: v.nullish(v.string()),
  gpu: v.optional(v.picklist(["auto", "none", "cuda", "rocm", "vulkan", "metal"]), "auto"),
  source: v.optional(v.string()),
  version: v.nullish(v.string()),
});

export const UninstallBody = v.object({ backend: v.string(), version: v.nullish(v.string()) });

export function engineRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/", async (c) => c.json(await listEngines(deps)));
  app.get("/status", async (c) => c.json(await describeBackends(deps)));
  app.get("/df", async (c) => c.json(await measureDisk(deps)));
  addWorkerRoutes(app, deps);
  addEventRoute(app, deps);
  app.post("/install-backend", async (c) => {
    const request = await parseOptionalBody(c.req.raw, InstallBody);
    const backend = await requireBackend(request.backend || (await defaultBackend()));
    const installer = await deps.installer();
    const work = async (options: WorkOptions): Promise<EngineInstallation> => {
      const version = request.version || undefined;
      const installation = await installer.install({ ...request, backend, version }, options);
      return toEngineInstallation({ ...installation, active: true });
    };
    const { signal } = c.req.raw;
    if (readsProgress(c.req.raw)) return progressResponse(signal, work);
    // Docker Model Runner's way: nothing until it is done, then a status without a body.
    await work({ signal, onProgress: () => undefined });
    return c.body(null, 200);
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

async function uninstall(
  deps: AppDeps,
  { backend, version }: v.InferOutput<typeof UninstallBody>,
): Promise<EngineInstallation[]> {
  await requireBackend(backend);
  if (deps.runtime?.list().some((worker) => worker.backend === backend) === true) {
    throw new AppError("conflict", `cannot uninstall \`${backend}\`: it is running a model`, {
      hint: "Stop it with `tug unload --all` first.",
    });
  }
  const installer = await deps.installer();
  const removed = await installer.uninstall({ backend, version: version || undefined });
  return removed.map((installation) => toEngineInstallation({ ...installation, active: false }));
}

async function defaultBackend(): Promise<string> {
  const [first] = await knownBackends();
  return first ?? "";
}
