/** `/models`: what is in the store, and what comes in, goes out and is removed. */
import { type Context, Hono } from "hono";
import * as v from "valibot";
import type {
  ModelDetails,
  PackageRequest,
  PruneResult,
  RepackageResult,
  TagResult,
  VerifyResult,
} from "../../api/models.ts";
import { AppError } from "../../errors.ts";
import { ensureBuiltin, isBuiltin } from "../../models/builtin.ts";
import { isImageModel } from "../../models/image-record.ts";
import { inspectModel, listModels } from "../../models/inspect.ts";
import { reportBytes } from "../../models/progress.ts";
import type { RemoteOverrides } from "../../models/remote-settings.ts";
import type { Remotes } from "../../models/remotes.ts";
import { formatReference, looksLikeId, parseReference } from "../../oci/reference.ts";
import type { RemoveEvent, Store } from "../../store/store.ts";
import type { AppEnv } from "../deps.ts";
import { progressResponse } from "../progress-response.ts";
import { readFlag } from "../query-flag.ts";
import { parseBody, parseOptionalBody } from "../request-body.ts";
import { addArchiveRoutes } from "./archives.ts";
import { addTransferRoutes, type TransferRoutesDeps } from "./transfers.ts";

export const PackageBody = v.strictObject({
  model: v.string(),
  gguf: v.exactOptional(v.string()),
  safetensors_dir: v.exactOptional(v.string()),
  onnx_dir: v.exactOptional(v.string()),
  pytorch_dir: v.exactOptional(v.string()),
  dduf: v.exactOptional(v.string()),
  files: v.exactOptional(v.array(v.string())),
  format_name: v.exactOptional(v.string()),
  from: v.exactOptional(v.string()),
  licenses: v.exactOptional(v.array(v.string())),
  chat_template: v.exactOptional(v.string()),
  mmproj: v.exactOptional(v.string()),
  context_size: v.exactOptional(v.number()),
  format: v.exactOptional(v.picklist(["docker", "cncf"])),
  created: v.exactOptional(v.string()),
  link: v.exactOptional(v.boolean()),
  push: v.exactOptional(v.boolean()),
  keep: v.exactOptional(v.boolean()),
  insecure: v.exactOptional(v.boolean()),
  annotations: v.exactOptional(v.record(v.string(), v.string())),
});

export const PruneBody = v.strictObject({
  all: v.optional(v.boolean(), false),
  dry_run: v.optional(v.boolean(), false),
});

export interface ModelRoutesDeps extends TransferRoutesDeps {
  readonly store: Store;
  /** Default: of the store alone. @throws model_not_found, invalid_reference */
  readonly inspect?: (name: string) => Promise<ModelDetails>;
  /** For packaging straight into a registry. */
  readonly remotes: (overrides: RemoteOverrides) => Remotes | Promise<Remotes>;
  /** Whether a worker serves the model with this digest; never unless given. */
  readonly inUse?: (modelId: string) => boolean;
  /**
   * Takes a model out of use: no new requests, those in flight finish within a bound, its workers stop. Until the result
   * is disposed nobody can load it again.
   */
  readonly drain?: (
    modelId: string,
    options: { readonly signal: AbortSignal },
  ) => Promise<Disposable>;
}

/** Mounted at `/models`. Errors are thrown as `AppError`, for the app to render. */
export function modelRoutes(deps: ModelRoutesDeps): Hono<AppEnv> {
  const { store } = deps;
  const routes = new Hono<AppEnv>();
  routes.get("/", async (c) => c.json(await listModels(store)));
  routes.post("/package", (c) => packageFiles(c, deps));
  routes.post("/prune", (c) => prune(c, store));
  routes.post("/verify", (c) => verify(c, store));
  routes.delete("/purge", (c) => purge(c, deps));
  addArchiveRoutes(routes, store);
  addTransferRoutes(routes, deps);
  routes.post("/:name{.+}/tag", (c) => tag(c, store));
  routes.post("/:name{.+}/repackage", (c) => repackage(c, store));
  routes.get("/:name{.+}", (c) => inspect(c, deps));
  routes.delete("/:name{.+}", (c) => remove(c, deps));
  return routes;
}

/**
 * @param name whole: names are not completed
 * @param options.force a model that runs is drained first
 * @throws model_not_found, invalid_reference, model_in_use, conflict, cancelled
 */
export async function removeModel(
  deps: Pick<ModelRoutesDeps, "store" | "inUse" | "drain" | "distribution">,
  name: string,
  { force, signal }: { readonly force: boolean; readonly signal: AbortSignal },
): Promise<RemoveEvent[]> {
  const { store, inUse, drain } = deps;
  // By the index alone: what is damaged must be removable.
  const model = await store.find(name);
  // With another tag left, the model stays: taking one away disturbs nobody.
  const goes = model.tags.length <= 1 || looksLikeId(name) || name.includes("@");
  const isUsed = goes && inUse?.(model.digest) === true;
  if (isUsed && !force) throw busy(`\`${name}\``, name);
  // Held until it is gone, so that nobody loads what is being removed.
  using _drained = isUsed ? await drain?.(model.digest, { signal }) : undefined;
  const forget = goes ? await imageToForget(deps, model.digest) : undefined;
  const events = await store.remove(name, { force });
  const image = await forget?.(signal);
  return image === undefined ? events : [...events, { Deleted: image }];
}

// --- internal ---

type RouteContext = Context<AppEnv>;

/** `POST /models/{name}/repackage`. */
export const RepackageRequest = v.object({
  target: v.pipe(v.string(), v.nonEmpty("must not be empty")),
  context_size: v.nullish(v.number()),
});

async function packageFiles(
  c: RouteContext,
  { store, remotes }: ModelRoutesDeps,
): Promise<Response> {
  if (c.env?.trusted !== true) {
    throw new AppError("forbidden", "cannot package files: this client may not name files", {
      hint: "Package with `tug package` on the machine itself, or send an archive to `/models/load`.",
    });
  }
  const { value } = await parseBody(c.req.raw, PackageBody);
  const request: PackageRequest = value;
  return progressResponse(c.req.raw.signal, async ({ signal, onProgress }) => {
    const { packageModel } = await import("../../models/package.ts");
    return packageModel(store, request, {
      signal,
      onProgress,
      remotes: () =>
        remotes({
          insecureRegistries:
            request.insecure === true ? [parseReference(request.model).registry] : [],
          onWarning: (message) => onProgress({ type: "warning", message }),
        }),
      findModel: (name) =>
        isBuiltin(name) ? ensureBuiltin(store, { signal }) : store.resolve(name),
    });
  });
}

async function prune(c: RouteContext, store: Store): Promise<Response> {
  const { all, dry_run: dryRun } = await parseOptionalBody(c.req.raw, PruneBody);
  const { models, blobs, ingests, bundles, freedBytes } = await store.prune({ all, dryRun });
  const result: PruneResult = { models, blobs, ingests, bundles, freed_bytes: freedBytes };
  return c.json(result);
}

function verify(c: RouteContext, store: Store): Response {
  return progressResponse(c.req.raw.signal, async ({ signal, onProgress }) => {
    const onBytes = reportBytes(onProgress, { id: "models", phase: "verifying" });
    const result: VerifyResult = await store.verify({ signal, onBytes });
    return result;
  });
}

async function purge(c: RouteContext, { store, inUse }: ModelRoutesDeps): Promise<Response> {
  const used = (await store.list()).find(({ digest }) => inUse?.(digest) === true);
  if (used !== undefined) throw busy("all models", used.tags[0] ?? used.digest);
  await store.purge();
  return c.body(null, 200);
}

async function tag(c: RouteContext, store: Store): Promise<Response> {
  const { repo, tag: tagName } = c.req.query();
  if (!repo) {
    throw new AppError("invalid_request", "cannot tag a model: `repo` is missing", {
      hint: "Give the new name as `?repo=NAME&tag=TAG`.",
    });
  }
  const target = parseReference(tagName ? `${repo}:${tagName}` : repo);
  if (target.digest !== undefined) {
    throw new AppError("invalid_reference", "cannot tag a model: a digest is not a tag", {
      hint: "Leave out what follows `@`.",
    });
  }
  const name = nameOf(c);
  const model = await store.resolve(name);
  await store.tag(model.digest, target);
  const reference = formatReference(target);
  const result: TagResult = { message: `Tagged ${name} as ${reference}`, target: reference };
  return c.json(result, 201);
}

/** A variant of a model in the store: no file of this machine is named, so anybody may. */
async function repackage(c: RouteContext, store: Store): Promise<Response> {
  const { value } = await parseBody(c.req.raw, RepackageRequest);
  const { target, context_size: contextSize } = value;
  const source = nameOf(c);
  const { signal } = c.req.raw;
  const { packageModel } = await import("../../models/package.ts");
  const { reference } = await packageModel(
    store,
    { model: target, from: source, ...(contextSize == null ? {} : { context_size: contextSize }) },
    {
      signal,
      findModel: (name) =>
        isBuiltin(name) ? ensureBuiltin(store, { signal }) : store.resolve(name),
    },
  );
  const message = `Repackaged ${source} as ${reference}`;
  return c.json<RepackageResult>({ message, source, target: reference }, 201);
}

async function inspect(c: RouteContext, deps: ModelRoutesDeps): Promise<Response> {
  const { signal } = c.req.raw;
  return c.json(
    readFlag(c, "remote")
      ? await deps.distribution.inspect(nameOf(c), { signal })
      : await (deps.inspect?.(nameOf(c)) ?? inspectModel(deps.store, nameOf(c))),
  );
}

async function remove(c: RouteContext, deps: ModelRoutesDeps): Promise<Response> {
  const force = readFlag(c, "force");
  return c.json(await removeModel(deps, nameOf(c), { force, signal: c.req.raw.signal }));
}

/** Loaded only where there are such models. A damaged store keeps nothing from being removed. */
async function imageToForget(
  { store, distribution }: Pick<ModelRoutesDeps, "store" | "distribution">,
  digest: string,
): Promise<((signal: AbortSignal) => Promise<string | undefined>) | undefined> {
  const models = await store.list().catch(() => []);
  if (!models.some((model) => model.digest === digest && isImageModel(model))) return undefined;
  const { imageToForget: find } = await import("../../models/pull-image.ts");
  const { images } = distribution;
  return images && find(store, digest, images);
}

function nameOf(c: RouteContext): string {
  return c.req.param("name") ?? "";
}

function busy(what: string, model: string): AppError {
  return new AppError("model_in_use", `cannot remove ${what}: \`${model}\` is in use`, {
    hint: `Run \`tug unload --wait ${model}\` first, or remove it with \`--force\`.`,
  });
}
