/** Which files of a model an engine opens, and under which names. Pure. */
import { AppError, assert } from "../errors.ts";
import type { Manifest } from "../oci/manifest.ts";
import {
  archivedFormat,
  DOCKER_MODEL_FILE,
  DOCKER_VLLM_CONFIG_TAR,
  isAdapter,
  isArchive,
  isExtraArchive,
  isLaidOutByPath,
  isOwnWeight,
  isProjector,
  isTemplate,
  isWeightArchive,
  ownFormat,
  type WeightFormat,
  weightFormat,
} from "../oci/media-types.ts";
import { type ModelLayer, modelLayers } from "../oci/model-layers.ts";
import type { BlobId } from "./blobs.ts";
import type { ModelFormat } from "./bundle.ts";
import { PathClaims } from "./path-claims.ts";
import { safePath } from "./safe-path.ts";

/** A blob that is a file of the bundle. */
interface PlannedFile extends BlobId {
  /** Relative to the bundle's `model` directory, with forward slashes. */
  readonly path: string;
  readonly role: Role;
}

/** A blob that is unpacked into the bundle. */
export interface PlannedArchive extends BlobId {
  readonly mediaType: string;
  /** As annotated. */
  readonly path: string | undefined;
  /** `config.format`, if the archive is of weights: what a single file without an extension is. */
  readonly format: WeightFormat | undefined;
}

export interface BundlePlan {
  /** Of weights that no known format has; absent where any has. */
  readonly ownFormat?: string | undefined;
  readonly files: readonly PlannedFile[];
  readonly archives: readonly PlannedArchive[];
}

/** A file that came out of an archive. */
export interface UnpackedFile {
  readonly path: string;
  readonly size: number;
  /** Index of the archive in the plan. */
  readonly archive: number;
}

/** Paths as in the plan. */
export interface BundleContents {
  readonly format: ModelFormat;
  /** The first weight file. */
  readonly model: string;
  readonly mmproj: string | undefined;
  readonly chatTemplate: string | undefined;
  readonly adapters: readonly string[];
  /** Sum of the weight files. */
  readonly weightBytes: number;
}

export interface PlanHints {
  /** `config.format` of a ModelPack. */
  readonly configFormat?: string | undefined;
  /** The parsed config blob. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/**
 * Two ways, as in Docker Model Runner: Docker v0.2 and ModelPack lay every file out at its path annotation; older models
 * have fixed names by media type. Shards of a GGUF get the names by which llama.cpp finds them. Archives are unpacked
 * into the same directory.
 *
 * @throws unsupported_model if there are no weights that an engine could open, invalid_model_file for unsafe paths
 */
export function planBundle(manifest: Manifest, hints: PlanHints = {}): BundlePlan {
  const { configFormat } = hints;
  const all = modelLayers(manifest, hints.config);
  const archives = all.filter(({ mediaType }) => isArchive(mediaType));
  const known = all
    .filter(({ mediaType }) => !isArchive(mediaType))
    .map((layer) => ({ ...layer, role: roleOf(layer, configFormat) }));
  const format = FORMATS.find((candidate) => known.some(({ role }) => role === candidate));
  const own = format === undefined ? ownFormat(configFormat) : undefined;
  const layers = own === undefined ? known : known.map(withOwnRole);
  const hasOwn = layers.some(({ role }) => role === "own");
  if (
    format === undefined &&
    !hasOwn &&
    !archives.some(({ mediaType }) => isWeightArchive(mediaType))
  )
    throw noWeights();
  if (archives.filter(({ mediaType }) => mediaType === DOCKER_VLLM_CONFIG_TAR).length > 1)
    throw severalConfigs();
  const byPath = isLaidOutByPath(manifest.config.mediaType, manifest.artifactType);
  const placed = byPath ? planByPath(layers, format) : planByType(layers, format);
  return {
    ...(hasOwn ? { ownFormat: own } : {}),
    files: withoutCollisions(placed).map(({ path, layer: { digest, size, role } }) => ({
      path,
      digest,
      size,
      role,
    })),
    archives: archives.map(({ mediaType, digest, size, path }) => ({
      mediaType,
      digest,
      size,
      path,
      format: archivedFormat(mediaType, path, configFormat),
    })),
  };
}

/**
 * What an engine is given of a bundle.
 *
 * @param unpacked the files of the archives
 * @throws unsupported_model if there are no weights after all
 */
export function bundleContents(
  { files, archives, ownFormat: own }: BundlePlan,
  unpacked: readonly UnpackedFile[],
): BundleContents {
  const single = unpacked.length === 1 ? unpacked[0] : undefined;
  const found = [
    ...files,
    ...unpacked.toSorted(byDepth).map(({ path, size, archive }) => {
      const from = archives[archive];
      const role = from === undefined ? "other" : unpackedRole(path, from.mediaType);
      const isAlone = role === "other" && path === single?.path;
      return { path, size, role: (isAlone ? from?.format : undefined) ?? role };
    }),
  ];
  const format =
    FORMATS.find((candidate) => files.some(({ role }) => role === candidate)) ??
    FORMATS.find((candidate) => found.some(({ role }) => role === candidate));
  const named = format ?? own;
  if (named === undefined) throw noWeights();
  const weights = found.filter(({ role }) => role === (format ?? "own"));
  return {
    format: named,
    model: firstShard(weights.map(({ path }) => path)),
    mmproj: onlyPath(found.filter(({ role }) => role === "projector")),
    chatTemplate: onlyPath(found.filter(({ role }) => role === "template")),
    adapters: found.filter(({ role }) => role === "adapter").map(({ path }) => path),
    weightBytes: weights.reduce((sum, { size }) => sum + size, 0),
  };
}

// --- internal ---

/** In order of preference, where a model has several. */
const FORMATS: readonly WeightFormat[] = ["gguf", "safetensors", "dduf"];

/** What a file is to an engine. */
type Role = WeightFormat | "own" | "projector" | "template" | "adapter" | "other";

interface Layer extends ModelLayer {
  readonly role: Role;
}

interface Placed {
  readonly path: string;
  readonly layer: Layer;
}

function roleOf({ mediaType, path }: ModelLayer, configFormat: string | undefined): Role {
  if (isProjector(mediaType, path)) return "projector";
  if (isTemplate(mediaType, path)) return "template";
  if (isAdapter(mediaType)) return "adapter";
  return weightFormat(mediaType, path, configFormat) ?? "other";
}

function withOwnRole(layer: Layer): Layer {
  const isOwn = layer.role === "other" && isOwnWeight(layer.mediaType, layer.path);
  return isOwn ? { ...layer, role: "own" } : layer;
}

/** By the name: nothing else tells. Hidden files are notes of some system. */
function unpackedRole(path: string, mediaType: string): Role {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  if (name.startsWith(".") || isExtraArchive(mediaType)) return "other";
  if (name.endsWith(".jinja")) return "template";
  const format = FORMATS.find((candidate) => name.endsWith(`.${candidate}`));
  if (format === undefined || !isWeightArchive(mediaType)) return "other";
  return format === "gguf" && name.includes("mmproj") ? "projector" : format;
}

/** A layer without a path is left out, unless it is one that an engine needs. */
function planByPath(layers: readonly Layer[], format: WeightFormat | undefined): Placed[] {
  const named = layers.flatMap((layer) =>
    layer.path === undefined ? [] : [{ path: safePath(layer.path, { repair: true }), layer }],
  );
  const unnamed = layers.filter(({ path }) => path === undefined);
  return [...named, ...planByType(unnamed, format)];
}

function planByType(layers: readonly Layer[], format: WeightFormat | undefined): Placed[] {
  const having = (role: Role): readonly Layer[] => layers.filter((layer) => layer.role === role);
  const [projectors, templates] = [having("projector"), having("template")];
  return [
    ...(format === undefined ? [] : planWeights(having(format), format)),
    // Two of a kind: nobody can say which is meant.
    ...(projectors.length === 1
      ? projectors.map((layer) => ({ path: "model.mmproj", layer }))
      : []),
    ...(templates.length === 1
      ? templates.map((layer) => ({ path: "template.jinja", layer }))
      : []),
    ...having("adapter").map((layer, index) => ({ path: `adapter-${index + 1}.gguf`, layer })),
    ...layers.flatMap((layer) =>
      layer.path !== undefined && isPlainFile(layer) ? [{ path: safePath(layer.path), layer }] : [],
    ),
  ];
}

function isPlainFile({ mediaType, role }: Layer): boolean {
  return role === "own" || (mediaType === DOCKER_MODEL_FILE && role === "other");
}

function planWeights(weights: readonly Layer[], format: WeightFormat): Placed[] {
  const isNamed = format === "safetensors" && weights.some(({ path }) => path !== undefined);
  if (isNamed) {
    return weights.flatMap((layer) =>
      layer.path === undefined ? [] : [{ path: safePath(layer.path), layer }],
    );
  }
  return weights.map((layer, index) => ({
    path:
      weights.length === 1
        ? `model.${format}`
        : `model-${pad(index + 1)}-of-${pad(weights.length)}.${format}`,
    layer,
  }));
}

function pad(number: number): string {
  return String(number).padStart(5, "0");
}

function onlyPath(files: readonly { readonly path: string }[]): string | undefined {
  return files.length === 1 ? files[0]?.path : undefined;
}

/** Those at the top first, then by name. */
function byDepth(a: UnpackedFile, b: UnpackedFile): number {
  const [depthA, depthB] = [a.path.split("/").length, b.path.split("/").length];
  if (depthA !== depthB) return depthA - depthB;
  return a.path < b.path ? -1 : 1;
}

/** Engines are given shard 1 and find the others themselves. */
function firstShard(paths: readonly string[]): string {
  const first = paths.find((path) => /-0*1-of-\d+\.[a-z]+$/i.test(path)) ?? paths[0];
  assert(first !== undefined, "a planned bundle has weights");
  return first;
}

/** The same file twice is one. */
function withoutCollisions(files: readonly Placed[]): Placed[] {
  const claims = new PathClaims();
  const kept = new Map<string, Placed>();
  for (const file of files) {
    if (kept.get(file.path)?.layer.digest === file.layer.digest) continue;
    claims.claim(file.path);
    kept.set(file.path, file);
  }
  return [...kept.values()];
}

function noWeights(): AppError {
  return new AppError(
    "unsupported_model",
    "cannot open the model: it has no weights in a format that an engine opens",
    { hint: "Use a model with GGUF, safetensors or DDUF files." },
  );
}

function severalConfigs(): AppError {
  return new AppError(
    "unsupported_model",
    "cannot open the model: it has several archives of configuration files, and may have one",
  );
}
