/**
 * Of Ollama's API: what is here, what runs, what a model is like, and removing, naming, pulling and making models.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md
 */
import { stat } from "node:fs/promises";
import type { Context, Hono } from "hono";
import type { Model } from "../../../api/models.ts";
import { AppError } from "../../../errors.ts";
import type { HeaderInfo, ModelProfile } from "../../../models/capabilities.ts";
import { readConfigFacts } from "../../../models/config.ts";
import { readDefaults } from "../../../oci/model-defaults.ts";
import { isLicense } from "../../../oci/media-types.ts";
import { layerPath } from "../../../oci/model-layers.ts";
import { parseReference } from "../../../oci/reference.ts";
import type { Store, StoredModel } from "../../../store/store.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { parseBody } from "../../request-body.ts";
import { removeModel } from "../models.ts";
import { addOllamaBlobRoutes } from "./blobs.ts";
import { addOllamaCreateRoute } from "./create.ts";
import {
  type OllamaModel,
  type OllamaRunningModel,
  type OllamaShowResponse,
  toDetails,
  toRunning,
  toTexts,
} from "./describe.ts";
import { exactName, findModel, shownName } from "./names.ts";
import {
  OllamaCopyRequest,
  OllamaDeleteRequest,
  OllamaShowRequest,
  requireModels,
  requireName,
} from "./requests.ts";
import { addOllamaTransferRoutes } from "./transfers.ts";

/**
 * The version of Ollama whose API this is: clients compare it, and turn away from what is too old for them. It is the last
 * before `/v1/systemone`, which is not served here.
 */
export const OLLAMA_API_VERSION = "0.34.0";

/** `HEAD` works on every route that has `GET`. */
export function addOllamaModelRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  app.get("/api/version", (c) => c.json({ version: OLLAMA_API_VERSION }));
  app.get("/api/tags", async (c) => c.json({ models: await listTags(deps) }));
  app.get("/api/ps", async (c) => c.json({ models: await listRunning(deps) }));
  app.post("/api/show", (c) => show(c, deps));
  app.post("/api/copy", (c) => copy(c, deps));
  app.delete("/api/delete", (c) => remove(c, deps));
  addOllamaTransferRoutes(app, deps);
  addOllamaBlobRoutes(app, deps);
  addOllamaCreateRoute(app, deps);
}

// --- internal ---

type RouteContext = Context<AppEnv>;

/** As for licences that are packaged. */
const MAX_LICENSE_BYTES = 4 * 1024 * 1024;

/** Newest first. What has no name cannot be asked for, and is left out. */
async function listTags(deps: AppDeps): Promise<OllamaModel[]> {
  const models = await deps.listModels();
  const tags = tagsOf(models);
  const entries = await Promise.all(
    models.map(async (model) => {
      const modified = await modifiedAt(deps.modelWork?.store, model);
      return model.tags.map((tag) => toEntry(model, shownName(tag, tags), modified));
    }),
  );
  return entries
    .flat()
    .toSorted((a, b) =>
      a.modified_at > b.modified_at ? -1 : a.modified_at < b.modified_at ? 1 : 0,
    );
}

function toEntry(model: Model, name: string, modified: Date): OllamaModel {
  return {
    name,
    model: name,
    modified_at: modified.toISOString(),
    size: model.size_bytes,
    digest: model.id.replace(/^sha256:/, ""),
    details: toDetails(model.config),
  };
}

/** When it came into the store: what its package says of its time is as a rule 1970, so that digests do not vary. */
async function modifiedAt(
  store: Store | undefined,
  { id, created }: Pick<Model, "id" | "created">,
): Promise<Date> {
  try {
    const path = store?.blobPath(id as StoredModel["digest"]);
    if (path !== undefined) return (await stat(path)).mtime;
  } catch {
    // Removed meanwhile: the answer is as old as the question.
  }
  return new Date(created * 1000);
}

async function listRunning(deps: AppDeps): Promise<OllamaRunningModel[]> {
  const workers = (deps.runtime?.list() ?? []).filter(({ state }) => state !== "draining");
  if (workers.length === 0) return [];
  const models = await deps.listModels();
  const tags = tagsOf(models);
  return workers.map((worker) => {
    const model = models.find(({ id }) => id === worker.modelId);
    const tag = model === undefined ? undefined : chooseTag(model, worker.modelName);
    const name = tag === undefined ? worker.modelName : shownName(tag, tags);
    return toRunning(worker, { name, details: toDetails(model?.config ?? NO_CONFIG) }, Date.now());
  });
}

/** A file that is run by its path. */
const NO_CONFIG: Model["config"] = {
  format: "gguf",
  quantization: null,
  parameters: null,
  architecture: null,
  size: null,
  context_size: null,
  gguf: null,
};

/** That by which it was asked for, or else its first. */
function chooseTag({ tags }: Model, asked: string): string | undefined {
  return tags.find((tag) => tag === asked || shownName(tag, new Set()) === asked) ?? tags[0];
}

function tagsOf(models: readonly Model[]): ReadonlySet<string> {
  return new Set(models.flatMap(({ tags }) => tags));
}

async function show(c: RouteContext, deps: AppDeps): Promise<Response> {
  const { value: body } = await parseBody(c.req.raw, OllamaShowRequest);
  const { store } = requireModels(deps);
  const { signal } = c.req.raw;
  const name = requireName(body);
  const model = await findModel(store, name, { signal });
  const facts = await readConfigFacts(store, model);
  const profile = (await deps.profileOf?.(model.digest)) ?? NO_PROFILE;
  const arrays = body.verbose === true ? await readArrays(store, model, signal) : {};
  const modified = await modifiedAt(store, { id: model.digest, created: facts.created });
  return c.json<OllamaShowResponse>({
    ...toTexts({
      name,
      template: profile.template,
      licenses: await readLicenses(store, model),
      defaults: readDefaults(model.manifest),
      contextTokens: facts.packagedContext,
    }),
    details: toDetails(facts.config),
    model_info: toJson({ ...profile.info, ...arrays }),
    ...(profile.projectorInfo === null ? {} : { projector_info: toJson(profile.projectorInfo) }),
    capabilities: profile.capabilities,
    modified_at: modified.toISOString(),
  });
}

const NO_PROFILE: ModelProfile = {
  capabilities: [],
  template: null,
  info: {},
  projectorInfo: null,
};

async function readArrays(
  store: Store,
  model: StoredModel,
  signal: AbortSignal,
): Promise<HeaderInfo> {
  const { readFullInfo } = await import("../../../models/capabilities.ts");
  return readFullInfo(store, model, { signal });
}

/** 64-bit numbers have no JSON of their own, nor have infinities. */
function toJson(info: HeaderInfo): HeaderInfo {
  const toValue = (value: unknown): unknown => {
    if (typeof value === "bigint") return Number(value);
    return Array.isArray(value) ? value.map(toValue) : value;
  };
  return Object.fromEntries(
    Object.entries(info).map(([key, value]) => [key, toValue(value)]),
  ) as HeaderInfo;
}

async function readLicenses(store: Store, { manifest }: StoredModel): Promise<string[]> {
  const layers = manifest.layers.filter((layer) => isLicense(layer.mediaType, layerPath(layer)));
  const texts = await Promise.all(
    layers.map((layer) => store.readBlob(layer, { maxBytes: MAX_LICENSE_BYTES })),
  );
  return texts.map((bytes) => new TextDecoder().decode(bytes));
}

/** A new name, as Tug reads it. */
async function copy(c: RouteContext, deps: AppDeps): Promise<Response> {
  const { value } = await parseBody(c.req.raw, OllamaCopyRequest);
  const { store } = requireModels(deps);
  const target = parseReference(value.destination);
  if (target.digest !== undefined) {
    throw new AppError("invalid_reference", "cannot copy a model: a digest is not a name", {
      hint: "Leave out what follows `@`.",
    });
  }
  const model = await findModel(store, value.source, { signal: c.req.raw.signal });
  await store.tag(model.digest, target);
  return c.body(null, 200);
}

/** A model that runs is drained first. */
async function remove(c: RouteContext, deps: AppDeps): Promise<Response> {
  const { value } = await parseBody(c.req.raw, OllamaDeleteRequest);
  const models = requireModels(deps);
  const name = await exactName(models.store, requireName(value));
  await removeModel(models, name, { force: true, signal: c.req.raw.signal });
  return c.body(null, 200);
}
