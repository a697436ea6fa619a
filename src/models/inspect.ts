/** Models of the store in the words of the API. */
import type { Model, ModelDetails } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { layerPath } from "../oci/model-layers.ts";
import { type ConfigFacts, emptyConfigFacts, readConfigFacts } from "./config.ts";
import { imageBytes } from "./image-record.ts";

/** A model whose config cannot be read is listed all the same, so that it can be seen and removed. */
export async function listModels(store: Store): Promise<Model[]> {
  const models: Model[] = [];
  for (const stored of await store.list()) models.push(await describeModel(store, stored));
  return models;
}

/** @throws model_not_found, invalid_reference */
export async function inspectModel(store: Store, name: string): Promise<ModelDetails> {
  const stored = await store.resolve(name);
  return toDetails(stored, await readLeniently(store, stored));
}

/** Pure. */
export function toDetails(stored: StoredModel, facts: ConfigFacts): ModelDetails {
  const { manifest } = stored;
  return {
    ...toModel(stored, facts),
    media_type: manifest.config.mediaType,
    artifact_type: manifest.artifactType ?? null,
    annotations: manifest.annotations ?? {},
    layers: manifest.layers.map((layer) => ({
      media_type: layer.mediaType,
      digest: layer.digest,
      size: layer.size,
      path: layerPath(layer) ?? null,
    })),
  };
}

export async function describeModel(store: Store, stored: StoredModel): Promise<Model> {
  return toModel(stored, await readLeniently(store, stored));
}

// --- internal ---

function toModel(stored: StoredModel, { config, created }: ConfigFacts): Model {
  return {
    id: stored.digest,
    tags: stored.tags,
    created,
    config,
    size_bytes: imageBytes(stored) ?? stored.sizeBytes,
  };
}

async function readLeniently(store: Store, stored: StoredModel): Promise<ConfigFacts> {
  try {
    return await readConfigFacts(store, stored);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    log.warn(`models: could not read the config of model=${stored.digest} error=${error.message}`);
    return emptyConfigFacts(stored.manifest);
  }
}
