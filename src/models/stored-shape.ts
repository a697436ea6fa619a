/** What decides how much memory a stored model needs, read from its own files: headers of weights, and a config. */
import { basename } from "node:path";
import { isRecord } from "../oci/descriptor.ts";
import type { ModelLayer } from "../oci/model-layers.ts";
import { readGgufShape } from "../store/gguf.ts";
import type { ModelShape } from "../store/model-shape.ts";
import { type ModelTraits, toTraits } from "../store/model-traits.ts";
import { readSafetensorsHeader, type SafetensorsTensor } from "../store/safetensors-header.ts";
import { toSafetensorsShape } from "../store/safetensors-shape.ts";
import type { Store } from "../store/store.ts";

/** As of models that are packaged. Bytes. */
const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

export interface StoredFiles {
  readonly weights: readonly ModelLayer[];
  /** All layers, the weights too. */
  readonly layers: readonly ModelLayer[];
}

export function readStoredGgufShape(
  store: Store,
  { weights }: StoredFiles,
  signal: AbortSignal,
): Promise<ModelShape> {
  return readGgufShape(weights.map(namedIn(store)), { signal });
}

/** Without a `config.json` its layers are unknown. */
export async function readStoredSafetensorsShape(
  store: Store,
  { weights, layers }: StoredFiles,
  signal: AbortSignal,
): Promise<ModelShape> {
  const tensors: SafetensorsTensor[] = [];
  let weightBytes = 0;
  for (const file of weights.map(namedIn(store))) {
    const header = await readSafetensorsHeader(file, { signal });
    tensors.push(...header.tensors);
    weightBytes += header.sizeBytes;
  }
  const found = layers.find(({ path }) => path !== undefined && basename(path) === "config.json");
  const inputBytes = sizeOf(tensors.find(({ name }) => EMBEDDING.test(name)));
  return toSafetensorsShape(found === undefined ? {} : await readConfig(store, found), {
    weightBytes,
    inputBytes,
  });
}

/** Of what its directory says; the graphs themselves are not read. */
export async function readStoredOnnxShape(
  store: Store,
  { weights, layers }: StoredFiles,
): Promise<ModelShape> {
  const named = (name: string) => layers.find(({ path }) => path === name);
  const [genai, transformers] = [named("genai_config.json"), named("config.json")];
  const config = transformers === undefined ? {} : await readConfig(store, transformers);
  const more = genai === undefined ? {} : fromGenai(await readConfig(store, genai));
  const weightBytes = weights.reduce((sum, { size }) => sum + size, 0);
  return toSafetensorsShape({ ...config, ...more }, { weightBytes, inputBytes: 0 });
}

/** Of the `config.json` at the top; without one nothing is said. */
export async function readStoredTraits(
  store: Store,
  layers: readonly ModelLayer[],
): Promise<ModelTraits> {
  const found = layers.find(({ path }) => path === "config.json");
  return toTraits(found === undefined ? {} : await readConfig(store, found));
}

/** Of a diffusion pipeline only the sizes count. */
export function readStoredPipelineShape(_: Store, { weights }: StoredFiles): Promise<ModelShape> {
  const weightBytes = weights.reduce((sum, { size }) => sum + size, 0);
  return Promise.resolve(toSafetensorsShape({}, { weightBytes, inputBytes: 0 }));
}

// --- internal ---

/** In transformers' words. @see https://onnxruntime.ai/docs/genai/reference/config.html */
function fromGenai({ model }: Readonly<Record<string, unknown>>): Record<string, unknown> {
  if (!isRecord(model)) return {};
  const decoder = isRecord(model["decoder"]) ? model["decoder"] : {};
  return {
    ...decoder,
    head_dim: decoder["head_size"],
    model_type: model["type"],
    vocab_size: model["vocab_size"],
    max_position_embeddings: model["context_length"],
  };
}

/** Of transformers' models: `model.embed_tokens.weight`, `wte.weight`, `embeddings.word_embeddings.weight`. */
const EMBEDDING = /(?:^|\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings)\.weight$/;

/** Blobs have no names of their own: messages get those that the layers carry. */
function namedIn(store: Store) {
  return ({ digest, path }: ModelLayer) => ({
    location: store.blobPath(digest),
    name: basename(path ?? digest),
  });
}

async function readConfig(
  store: Store,
  { digest, size }: ModelLayer,
): Promise<Readonly<Record<string, unknown>>> {
  const bytes = await store.readBlob({ digest, size }, { maxBytes: MAX_CONFIG_BYTES });
  const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
  return isRecord(value) ? value : {};
}

function sizeOf(tensor: SafetensorsTensor | undefined): number {
  const bits = Number(/\d+/.exec(tensor?.dtype ?? "")?.[0] ?? 0);
  return ((tensor?.elements ?? 0) * bits) / 8;
}
