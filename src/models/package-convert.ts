/** The same model in the other format: Docker's as ModelPack, ModelPack as Docker's. Layers are shared. */
import { AppError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Manifest } from "../oci/manifest.ts";
import {
  CREATED,
  DOCKER_CONFIG_V02,
  DOCKER_GGUF_LORA,
  isLicense,
  isOwnWeight,
  isProjector,
  isTemplate,
  LICENSES,
  ownFormat,
  TITLE,
  weightFormat,
} from "../oci/media-types.ts";
import type { Store } from "../store/store.ts";
import {
  type ArtifactFormat,
  type LayerFile,
  type LayerRole,
  type ModelParts,
  pathInArtifact,
} from "./artifact.ts";
import { layerPath } from "../oci/model-layers.ts";
import type { ConfigFacts } from "./config.ts";
import { toRfc3339 } from "./created.ts";
import { weightFormatOf } from "./file-classes.ts";
import { type ModelFacts, readModelFacts } from "./model-facts.ts";
import { refuseProjectorName } from "./package-inputs.ts";

export interface Conversion {
  readonly manifest: Manifest;
  /** What its config says. */
  readonly said: ConfigFacts;
  /** Layers that stay. */
  readonly kept: readonly Descriptor[];
  /** The target's. */
  readonly format: ArtifactFormat;
}

/** What can be had of a layer without knowing more than its descriptor. */
export function roleOfLayer(layer: Descriptor, configFormat?: string | null): LayerRole {
  const { mediaType } = layer;
  const path = layerPath(layer);
  if (isProjector(mediaType, path)) return "mmproj";
  if (isTemplate(mediaType, path)) return "chatTemplate";
  if (isLicense(mediaType, path)) return "license";
  if (mediaType === DOCKER_GGUF_LORA) return "adapter";
  const isOwn = ownFormat(configFormat) !== undefined && isOwnWeight(mediaType, path);
  return isOwn || weightFormat(mediaType, path, configFormat ?? undefined) !== undefined
    ? "weights"
    : "file";
}

/**
 * What is to be encoded, without the files that are added.
 *
 * @throws unsupported_model (layers that are archives of files), usage, invalid_model_file
 */
export async function convertModel(
  store: Store,
  { manifest, said, kept, format }: Conversion,
  { signal }: { signal: AbortSignal },
): Promise<ModelParts> {
  const files = toFiles(kept, { format, configFormat: said.config.format });
  refuseProjectorName(files, format);
  const facts =
    format === "cncf"
      ? toFacts(said, manifest)
      : await readStoredFacts(store, { files, said, manifest }, signal);
  return {
    format,
    layout: isDirectory(manifest, files) ? "directory" : "gguf",
    facts,
    files,
    created: toRfc3339(said.created),
    annotations: withoutCreated(manifest.annotations),
  };
}

/** What a config says, in the words of a new one. */
export function toFacts({ config }: ConfigFacts, { annotations }: Manifest): ModelFacts {
  const { format, architecture, quantization, parameters, size, gguf } = config;
  return {
    format: format === "safetensors" || format === "dduf" ? format : (ownFormat(format) ?? "gguf"),
    architecture,
    name: annotations?.[TITLE] ?? null,
    license: annotations?.[LICENSES] ?? null,
    quantization,
    parameters,
    size,
    header: gguf,
  };
}

// --- internal ---

/** Where it says so, or has what only a layout by paths can have. */
function isDirectory({ config }: Manifest, files: readonly LayerFile[]): boolean {
  if (config.mediaType === DOCKER_CONFIG_V02) return true;
  return files.some(
    ({ role, path }) => role === "file" || path.includes("/") || /\.safetensors$/i.test(path),
  );
}

/** The names by which engines know the files of models whose layers have none. */
const NAMES: Readonly<Record<Exclude<LayerRole, "weights">, string>> = {
  mmproj: "mmproj-model.gguf",
  adapter: "adapter.gguf",
  draft: "draft.gguf",
  chatTemplate: "chat_template.jinja",
  license: "LICENSE",
  file: "file",
};

function toFiles(
  layers: readonly Descriptor[],
  { format, configFormat }: { format: ArtifactFormat; configFormat: string | null },
): LayerFile[] {
  const roles = layers.map((layer) => roleOfLayer(layer, configFormat));
  const weights = layers.filter((_, index) => roles[index] === "weights");
  const taken = new Map<string, number>();
  return layers.map((layer, index) => {
    refuseArchive(layer);
    const { digest, size } = layer;
    const role = onlyOne(roles, index);
    const named = layerPath(layer) ?? nameOf(layer, { role, weights, configFormat });
    // Other tools write these for files that were packaged by their absolute path.
    const path = pathInArtifact(role, named.replace(/^(?:\.\.?\/)+/, ""), format);
    const count = taken.get(path) ?? 0;
    taken.set(path, count + 1);
    return { role, path: count === 0 ? path : `${path}-${count + 1}`, digest, size };
  });
}

/** A model has one template and one projector; more of them are files. */
function onlyOne(roles: readonly LayerRole[], index: number): LayerRole {
  const role = roles[index] ?? "file";
  const isSingle = role === "chatTemplate" || role === "mmproj";
  return isSingle && roles.indexOf(role) !== index ? "file" : role;
}

function refuseArchive({ mediaType }: Descriptor): void {
  if (!/\.tar(?:$|\+)/.test(mediaType)) return;
  const type = JSON.stringify(mediaType.slice(0, 100));
  throw new AppError(
    "unsupported_model",
    `cannot convert the model: its layer of type ${type} is an archive of files`,
    { hint: "Package from the files instead." },
  );
}

function nameOf(
  layer: Descriptor,
  model: { role: LayerRole; weights: readonly Descriptor[]; configFormat: string | null },
): string {
  const { role, weights, configFormat } = model;
  if (role !== "weights") return NAMES[role];
  const extension = weightFormat(layer.mediaType, undefined, configFormat ?? undefined) ?? "gguf";
  const index = weights.indexOf(layer) + 1;
  return weights.length === 1
    ? `model.${extension}`
    : `model-${pad(index)}-of-${pad(weights.length)}.${extension}`;
}

function pad(number: number): string {
  return String(number).padStart(5, "0");
}

function withoutCreated(annotations: Readonly<Record<string, string>> = {}) {
  return Object.fromEntries(Object.entries(annotations).filter(([key]) => key !== CREATED));
}

/** A ModelPack says little of its weights: their headers say the rest, where it is known how to read them. */
async function readStoredFacts(
  store: Store,
  source: { files: readonly LayerFile[]; said: ConfigFacts; manifest: Manifest },
  signal: AbortSignal,
): Promise<ModelFacts> {
  const { files, said, manifest } = source;
  const isKnown = files.some(({ role, path }) => role === "weights" && weightFormatOf(path));
  if (!isKnown && ownFormat(said.config.format) !== undefined) return toFacts(said, manifest);
  const located = files.map(({ role, path, digest }) => ({
    role,
    path,
    location: store.blobPath(digest),
  }));
  const { facts } = await readModelFacts(located, { signal });
  const { name, license } = toFacts(said, manifest);
  return { ...facts, name: facts.name ?? name, license: facts.license ?? license };
}
