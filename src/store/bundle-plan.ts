/** Which files of a model an engine opens, and under which names. Pure. */
import { AppError, assert } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Manifest } from "../oci/manifest.ts";
import {
  DOCKER_MODEL_FILE,
  FILE_PATH,
  isLaidOutByPath,
  isProjector,
  isTemplate,
  TITLE,
  type WeightFormat,
  weightFormat,
} from "../oci/media-types.ts";
import type { BlobId } from "./blobs.ts";
import { safePath } from "./safe-path.ts";

interface PlannedFile extends BlobId {
  /** Relative to the bundle's `model` directory, with forward slashes. */
  readonly path: string;
}

export interface BundlePlan {
  readonly format: WeightFormat;
  readonly files: readonly PlannedFile[];
  /** Path of the first weight file. */
  readonly model: string;
  readonly mmproj?: string;
  readonly chatTemplate?: string;
  /** Sum of the weight files. */
  readonly weightBytes: number;
}

/**
 * Two ways, as in Docker Model Runner: Docker v0.2 and ModelPack lay every file out at its path annotation; older models
 * have fixed names by media type. Shards of a GGUF get the names by which llama.cpp finds them.
 *
 * @param configFormat `config.format` of a ModelPack
 * @throws unsupported_model if there are no weights that an engine could open, invalid_model_file for unsafe paths
 */
export function planBundle(manifest: Manifest, configFormat?: string): BundlePlan {
  const layers = manifest.layers.map((layer) => toLayer(layer, configFormat));
  const format = FORMATS.find((candidate) => layers.some((layer) => layer.format === candidate));
  if (format === undefined) throw noWeights(manifest);
  const byPath = isLaidOutByPath(manifest.config.mediaType, manifest.artifactType);
  const files = withoutCollisions(byPath ? planByPath(layers, format) : planByType(layers, format));
  const weights = files.filter((file) => file.layer.format === format);
  const mmproj = onlyPath(files.filter(({ layer }) => layer.isProjector));
  const chatTemplate = onlyPath(files.filter(({ layer }) => layer.isTemplate));
  return {
    format,
    files: files.map(({ path, layer }) => ({ path, digest: layer.digest, size: layer.size })),
    model: firstShard(weights.map((file) => file.path)),
    ...(mmproj === undefined ? {} : { mmproj }),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
    weightBytes: weights.reduce((sum, { layer }) => sum + layer.size, 0),
  };
}

// --- internal ---

/** In order of preference, where a model has several. */
const FORMATS: readonly WeightFormat[] = ["gguf", "safetensors", "dduf"];
const EXTENSIONS: Readonly<Record<WeightFormat, string>> = {
  gguf: "gguf",
  safetensors: "safetensors",
  dduf: "dduf",
};

interface Layer extends BlobId {
  readonly mediaType: string;
  readonly path: string | undefined;
  readonly format: WeightFormat | undefined;
  readonly isProjector: boolean;
  readonly isTemplate: boolean;
}

interface Placed {
  readonly path: string;
  readonly layer: Layer;
}

function toLayer(
  { mediaType, digest, size, annotations }: Descriptor,
  configFormat: string | undefined,
): Layer {
  const path = annotations?.[FILE_PATH] || annotations?.[TITLE] || undefined;
  return {
    mediaType,
    digest,
    size,
    path,
    format: weightFormat(mediaType, path, configFormat),
    isProjector: isProjector(mediaType, path),
    isTemplate: isTemplate(mediaType, path),
  };
}

/** A layer without a path is left out, unless it is one that an engine needs. */
function planByPath(layers: readonly Layer[], format: WeightFormat): Placed[] {
  const named = layers.filter((layer) => layer.path !== undefined);
  const placed = named.map((layer) => ({
    path: safePath(layer.path ?? "", { repair: true }),
    layer,
  }));
  return [
    ...placed,
    ...planByType(
      layers.filter((layer) => layer.path === undefined),
      format,
    ),
  ];
}

function planByType(layers: readonly Layer[], format: WeightFormat): Placed[] {
  const weights = layers.filter((layer) => layer.format === format);
  const [projectors, templates] = [
    layers.filter((layer) => layer.isProjector),
    layers.filter((layer) => layer.isTemplate),
  ];
  return [
    ...planWeights(weights, format),
    // Two of a kind: nobody can say which is meant.
    ...(projectors.length === 1
      ? projectors.map((layer) => ({ path: "model.mmproj", layer }))
      : []),
    ...(templates.length === 1
      ? templates.map((layer) => ({ path: "template.jinja", layer }))
      : []),
    ...layers
      .filter(
        (layer) =>
          layer.mediaType === DOCKER_MODEL_FILE && layer.path !== undefined && !layer.isTemplate,
      )
      .map((layer) => ({ path: safePath(layer.path ?? ""), layer })),
  ];
}

function planWeights(weights: readonly Layer[], format: WeightFormat): Placed[] {
  const isNamed = format === "safetensors" && weights.some((layer) => layer.path !== undefined);
  if (isNamed) {
    return weights.flatMap((layer) =>
      layer.path === undefined ? [] : [{ path: safePath(layer.path), layer }],
    );
  }
  const extension = EXTENSIONS[format];
  return weights.map((layer, index) => ({
    path:
      weights.length === 1
        ? `model.${extension}`
        : `model-${pad(index + 1)}-of-${pad(weights.length)}.${extension}`,
    layer,
  }));
}

function pad(number: number): string {
  return String(number).padStart(5, "0");
}

function onlyPath(files: readonly Placed[]): string | undefined {
  return files.length === 1 ? files[0]?.path : undefined;
}

/** Engines are given shard 1 and find the others themselves. */
function firstShard(paths: readonly string[]): string {
  const first = paths.find((path) => /-0*1-of-\d+\.[a-z]+$/i.test(path)) ?? paths[0];
  assert(first !== undefined, "a planned bundle has weights");
  return first;
}

/** Compared as Windows and macOS do, on every system: a model that opens here opens there. */
function withoutCollisions(files: readonly Placed[]): Placed[] {
  const taken = new Map<string, Placed>();
  const kept: Placed[] = [];
  for (const file of files) {
    const key = file.path.normalize("NFC").toLowerCase();
    const other = taken.get(key);
    if (other === undefined) kept.push(file);
    else if (other.path !== file.path || other.layer.digest !== file.layer.digest)
      throw collision(file.path);
    taken.set(key, file);
  }
  for (const key of taken.keys()) {
    const parents = key
      .split("/")
      .slice(0, -1)
      .map((_, index, all) => all.slice(0, index + 1).join("/"));
    if (parents.some((parent) => taken.has(parent))) throw collision(key);
  }
  return kept;
}

function collision(path: string): AppError {
  return new AppError(
    "invalid_model_file",
    `cannot open the model: two of its files are called \`${path}\``,
  );
}

function noWeights(manifest: Manifest): AppError {
  const packed = manifest.layers.find(({ mediaType }) => /\.weight\.v1\.tar/.test(mediaType));
  const reason =
    packed === undefined
      ? "it has no weights in a format that an engine opens"
      : `its weights are packed as \`${packed.mediaType}\``;
  return new AppError("unsupported_model", `cannot open the model: ${reason}`, {
    hint: "Use a model with GGUF, safetensors or DDUF files.",
  });
}
