/** `/engines`: engines on this machine, and what they and the models occupy. The workers are in `workers.ts`. */
import { Hono } from "hono";
import * as v from "valibot";
import { isAbsolute } from "node:path";
import { type AvailableEngine, ENGINE_GPUS, type EngineInstallation } from "../../api/engines.ts";
import type { DiskUsage } from "../../api/models.ts";
import { AppError } from "../../errors.ts";
import type { Installation } from "../../runtime/backend.ts";
import type { AvailableEngine as EngineFacts } from "../../runtime/installer/available.ts";
import { labelOf, matching } from "../../runtime/installer/installed.ts";
import type { AppDeps, AppEnv, WorkOptions } from "../deps.ts";
import { readsProgress } from "../docker-progress.ts";
import { progressResponse } from "../progress-response.ts";
import { parseBody, parseOptionalBody } from "../request-body.ts";
import { knownBackends, requireBackend } from "../worker-request.ts";
import { addEventRoute } from "./events.ts";
import { addWorkerRoutes } from "./workers.ts";

/** Tags of releases and images are much shorter. */
const MAX_VERSION = 200;
/** Linux's PATH_MAX. */
const MAX_PATH = 4096;

const Version = v.pipe(v.string(), v.maxLength(MAX_VERSION, "is too long"));

/** `""` and null say nothing, as in Docker Model Runner. */
export const InstallBody = v.object({
  backend: v.nullish(v.string()),
  gpu: v.optional(v.picklist(ENGINE_GPUS), "auto"),
  source: v.optional(v.string()),
  version: v.nullish(Version),
  python: v.pipe(
    v.nullish(v.pipe(v.string(), v.maxLength(MAX_PATH, "is too long"))),
    v.description("Absolute path of a Python; only by the runner's socket."),
  ),
});

export const UninstallBody = v.object({ backend: v.string(), version: v.nullish(Version) });

export const UseBody = v.object({
  backend: v.string(),
  version: v.nullish(Version),
  rollback: v.optional(v.boolean(), false),
});

export function engineRoutes(deps: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.get("/", async (c) => c.json(await listEngines(deps)));
  app.get("/available", async (c) => c.json(await describeEngines(deps)));
  app.get("/status", async (c) => c.json(await describeBackends(deps)));
  app.get("/df", async (c) => c.json(await measureDisk(deps)));
  addWorkerRoutes(app, deps);
  addEventRoute(app, deps);
  app.post("/install-backend", async (c) => {
    const { python, ...request } = await parseOptionalBody(c.req.raw, InstallBody);
    if (python) assertPython(python, c.env?.trusted === true);
    const backend = await requireBackend(
      request.backend || (await defaultBackend()),
      deps.engineNames,
    );
    const installer = await deps.installer();
    const work = async (options: WorkOptions): Promise<EngineInstallation> => {
      const version = request.version || undefined;
      const wanted = { ...request, backend, version, ...(python ? { python } : {}) };
      const onWarning = (message: string): void => options.onProgress({ type: "warning", message });
      const installation = await installer.install(wanted, { ...options, onWarning });
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
    return c.json(await uninstall(deps, value, c.req.raw.signal));
  });
  app.post("/use", async (c) => {
    const { value } = await parseBody(c.req.raw, UseBody);
    return c.json(await use(deps, value));
  });
  return app;
}

export function toEngineInstallation(
  installation: Installation & { readonly active: boolean },
): EngineInstallation {
  const { backend, version, variant, source, directory, active, reason } = installation;
  const facts = { backend, version, variant, source, directory, active };
  return reason === undefined ? facts : { ...facts, reason };
}

// --- internal ---

async function listEngines(deps: AppDeps): Promise<EngineInstallation[]> {
  const installer = await deps.installer();
  return (await installer.list()).map(toEngineInstallation);
}

async function describeEngines(deps: AppDeps): Promise<AvailableEngine[]> {
  const installer = await deps.installer();
  return (await installer.describe()).map(toAvailableEngine);
}

function toAvailableEngine(facts: EngineFacts): AvailableEngine {
  const { backend, state, previous, pinnedVersion, problem, hint } = facts;
  return {
    name: backend.name,
    formats: backend.formats,
    modes: backend.modes,
    state,
    problem: problem ?? null,
    hint: hint ?? null,
    variants: facts.variants,
    sources: facts.sources.map((source) => ({
      name: source.name,
      problem: source.problem ?? null,
    })),
    pinned_version: pinnedVersion ?? null,
    previous: previous === undefined ? null : labelOf(previous),
    installed: facts.installed.map(({ version, variant, source, directory, ...rest }) => ({
      version,
      variant,
      source,
      directory,
      active: rest.active,
      pinned: version === pinnedVersion,
      size_bytes: rest.sizeBytes,
      installed_at: rest.installedAt,
      ...(rest.reason === undefined ? {} : { reason: rest.reason }),
    })),
  };
}

/** Docker Model Runner's grammar: `Running: <detail>` or `Not Installed`. */
async function describeBackends(deps: AppDeps): Promise<Record<string, string>> {
  const engines = await listEngines(deps);
  const entries = (await knownBackends(deps.engineNames)).map((name) => {
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
  { backend, version: said }: v.InferOutput<typeof UninstallBody>,
  signal: AbortSignal,
): Promise<EngineInstallation[]> {
  await requireBackend(backend, deps.engineNames);
  const installer = await deps.installer();
  const version = said || undefined;
  if (runsOn(deps, backend)) {
    const installed = (await installer.list()).filter((one) => one.backend === backend);
    const isMeant = version === undefined || matching(installed, version).length > 0;
    if (isMeant) await stopIdle(deps, backend, signal);
  }
  const removed = await installer.uninstall({ backend, version });
  return removed.map((installation) => toEngineInstallation({ ...installation, active: false }));
}

function runsOn({ runtime }: AppDeps, backend: string): boolean {
  return runtime?.list().some((worker) => worker.backend === backend) === true;
}

/** A worker that serves keeps all of them: who is refused has changed nothing. @throws conflict */
async function stopIdle({ runtime }: AppDeps, backend: string, signal: AbortSignal): Promise<void> {
  const isBusy = runtime?.list().some((one) => one.backend === backend && one.inUse > 0) === true;
  if (isBusy) throw stillRuns(backend);
  // One that is loaded for somebody who waits is skipped, too.
  const outcome = await runtime?.unload({ backend, signal });
  if (outcome !== undefined && outcome.skipped.length > 0) throw stillRuns(backend);
}

function stillRuns(backend: string): AppError {
  return new AppError("conflict", `cannot uninstall \`${backend}\`: it is running a model`, {
    hint: `Wait until it has answered, or run \`tug unload --backend ${backend} --force\`.`,
  });
}

async function use(
  deps: AppDeps,
  { backend, version, rollback }: v.InferOutput<typeof UseBody>,
): Promise<EngineInstallation> {
  if (Boolean(version) === rollback) {
    throw new AppError("invalid_request", "cannot choose an engine: the request names no version", {
      hint: "Give either `version` or `rollback: true`.",
    });
  }
  await requireBackend(backend, deps.engineNames);
  const installer = await deps.installer();
  const chosen = rollback
    ? await installer.rollback(backend)
    : await installer.use(backend, version ?? "");
  return toEngineInstallation({ ...chosen, active: true });
}

/** Whoever names a program of this machine has it run. @throws forbidden, invalid_request */
function assertPython(path: string, isTrusted: boolean): void {
  if (!isTrusted) {
    throw new AppError("forbidden", "cannot install with a Python that is named over TCP", {
      hint: "Run `tug install-runner --python PATH` on the machine itself.",
    });
  }
  if (isAbsolute(path)) return;
  throw new AppError("invalid_request", "cannot read the request: `python` is no absolute path");
}

async function defaultBackend(): Promise<string> {
  const [first] = await knownBackends();
  return first ?? "";
}
