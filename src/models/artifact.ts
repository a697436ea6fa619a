/**
 * The config and the manifest of a model that is made here, as Docker Model Runner writes them or as ModelPack. Pure: the
 * same input gives the same bytes.
 *
 * Whoever has files that became blobs makes a model of them in two steps: `readModelFacts` (`model-facts.ts`) reads the
 * headers of the weights, wherever they lie, and `encodeModel` gives the two documents. Both blobs are then stored or
 * pushed, the manifest last.
 */
import { AppError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { encodeCanonical, MAX_MANIFEST_BYTES } from "../oci/manifest.ts";
import {
  CREATED,
  DOCKER_CHAT_TEMPLATE,
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  DOCKER_DDUF,
  DOCKER_GGUF,
  DOCKER_GGUF_LORA,
  DOCKER_LICENSE,
  DOCKER_MMPROJ,
  DOCKER_MODEL_FILE,
  DOCKER_SAFETENSORS,
  FILE_MEDIA_TYPE_UNTESTED,
  FILE_METADATA,
  FILE_PATH,
  LICENSES,
  MODELPACK_CONFIG,
  MODELPACK_DOC,
  MODELPACK_MANIFEST,
  MODELPACK_WEIGHT,
  MODELPACK_WEIGHT_CONFIG,
  OCI_MANIFEST,
  ownFormat,
  TITLE,
  type WeightFormat,
} from "../oci/media-types.ts";
import { encodeDefaults, type PackagedDefaults } from "../oci/model-defaults.ts";
import type { ModelFormat } from "../store/bundle.ts";
import type { PlannedRole } from "../transfer/plan.ts";
import { baseName, directoryOf, isMarkdown, weightFormatOf } from "./file-classes.ts";
import type { ModelFacts } from "./model-facts.ts";

export type ArtifactFormat = "docker" | "cncf";

/** `gguf`: files by role, Docker's v0.1; of a DDUF too. `directory`: every file at its path, Docker's v0.2. */
export type ArtifactLayout = "gguf" | "directory";

export type LayerRole = PlannedRole;

/** A file that has become a blob. */
export interface LayerFile {
  readonly role: LayerRole;
  /** Within the artifact, with forward slashes; a base name in the layout `gguf`. */
  readonly path: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

export interface ModelParts {
  readonly format: ArtifactFormat;
  readonly layout: ArtifactLayout;
  readonly facts: ModelFacts;
  /** What the model is called where it says nothing itself; without it such a model has no title. */
  readonly fallbackTitle?: string | undefined;
  /** In the order of the layers. */
  readonly files: readonly LayerFile[];
  /** RFC 3339. */
  readonly created: string;
  /** Tokens. Docker's format only. */
  readonly contextTokens?: number | undefined;
  /** Of the manifest; they win over those that are made of the facts. */
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  readonly defaults?: PackagedDefaults | undefined;
}

/** A document of the model: a blob with a type. */
export interface EncodedBlob {
  readonly mediaType: string;
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  readonly size: number;
}

export interface EncodedModel {
  readonly config: EncodedBlob;
  readonly manifest: EncodedBlob;
}

/**
 * @throws unsupported_model if the manifest would be larger than registries take
 * @see https://github.com/modelpack/model-spec/blob/main/docs/config.md
 */
export function encodeModel(parts: ModelParts): EncodedModel {
  const whole = { ...parts, files: withoutRepeats(parts) };
  const isModelPack = parts.format === "cncf";
  const config = isModelPack
    ? toBlob(MODELPACK_CONFIG, modelPackConfig(whole))
    : toBlob(
        parts.layout === "directory" ? DOCKER_CONFIG_V02 : DOCKER_CONFIG_V01,
        dockerConfig(whole),
      );
  const manifest = encodeManifest({
    ...(isModelPack ? { artifactType: MODELPACK_MANIFEST } : {}),
    config,
    layers: whole.files.map((file) => toLayer(file, whole)),
    annotations: {
      [CREATED]: parts.created,
      ...(parts.facts.license === null ? {} : { [LICENSES]: parts.facts.license }),
      ...titleAnnotation(parts),
      ...encodeDefaults(parts.defaults),
      ...parts.annotations,
    },
  });
  return { config, manifest };
}

export interface ManifestParts {
  readonly mediaType?: string;
  readonly artifactType?: string;
  readonly config: { readonly mediaType: string; readonly digest: Digest; readonly size: number };
  readonly layers: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** @throws unsupported_model if it would be larger than registries take */
export function encodeManifest(parts: ManifestParts): EncodedBlob {
  const { mediaType = OCI_MANIFEST, artifactType, config, layers } = parts;
  const annotations = sorted(parts.annotations);
  const manifest = toBlob(mediaType, {
    schemaVersion: 2,
    mediaType,
    ...(artifactType === undefined ? {} : { artifactType }),
    config: { mediaType: config.mediaType, size: config.size, digest: config.digest },
    layers,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  });
  if (manifest.size <= MAX_MANIFEST_BYTES) return manifest;
  throw new AppError(
    "unsupported_model",
    `cannot package the model: its manifest would have ${manifest.size} bytes, and registries take ${MAX_MANIFEST_BYTES}`,
    { hint: `Package fewer than its ${layers.length} files, or shorter annotations.` },
  );
}

/** @see ModelParts for `format`, `facts` and `created` */
export function toLayer(
  file: LayerFile,
  { format, facts, created }: Pick<ModelParts, "format" | "facts" | "created">,
): Descriptor {
  const { path, size, digest } = file;
  const metadata = {
    name: baseName(path),
    mode: FILE_MODE,
    uid: 0,
    gid: 0,
    size,
    mtime: created,
    typeflag: 0,
  };
  return {
    mediaType: format === "cncf" ? modelPackType(file, facts.format) : dockerType(file, facts),
    size,
    digest,
    annotations: {
      [FILE_MEDIA_TYPE_UNTESTED]: "false",
      [FILE_METADATA]: JSON.stringify(metadata),
      [FILE_PATH]: path,
      [TITLE]: path,
    },
  };
}

/**
 * The path of a file within the artifact. ModelPack has no types for templates and projectors: their names tell.
 */
export function pathInArtifact(role: LayerRole, path: string, format: ArtifactFormat): string {
  if (format === "docker") return path;
  const name = baseName(path);
  if (role === "chatTemplate" && !name.toLowerCase().endsWith(".jinja")) return `${path}.jinja`;
  if (role === "mmproj" && !name.toLowerCase().includes("mmproj"))
    return `${directoryOf(path)}mmproj-${name}`;
  return path;
}

export function toBlob(mediaType: string, value: unknown): EncodedBlob {
  const bytes = encodeCanonical(value);
  return { mediaType, bytes, digest: digestOf(bytes), size: bytes.length };
}

// --- internal ---

const DOCKER_TYPES: Readonly<Record<Exclude<LayerRole, "weights">, string>> = {
  mmproj: DOCKER_MMPROJ,
  adapter: DOCKER_GGUF_LORA,
  draft: DOCKER_MODEL_FILE,
  chatTemplate: DOCKER_CHAT_TEMPLATE,
  license: DOCKER_LICENSE,
  file: DOCKER_MODEL_FILE,
};
const DOCKER_WEIGHTS: Readonly<Record<string, string>> & Readonly<Record<WeightFormat, string>> = {
  gguf: DOCKER_GGUF,
  safetensors: DOCKER_SAFETENSORS,
  dduf: DOCKER_DDUF,
};

/** The permission bits 0644: those of the machine that packages are no fact of the model. */
const FILE_MODE = 420;

/** Weights may have any name; what they are is known all the same. */
function dockerType({ role, path }: LayerFile, facts: ModelFacts): string {
  if (role !== "weights") return DOCKER_TYPES[role];
  if (ownFormat(facts.format) !== undefined) return DOCKER_MODEL_FILE;
  return DOCKER_WEIGHTS[weightFormatOf(path) ?? facts.format] ?? DOCKER_MODEL_FILE;
}

/** Raw weights are of the one format that the config names: weights of another are files among others. */
function modelPackType({ role, path }: LayerFile, format: ModelFormat): string {
  if (role === "mmproj") return MODELPACK_WEIGHT;
  if (role === "weights" && ownFormat(format) !== undefined) return MODELPACK_WEIGHT;
  if (role === "weights") {
    return (weightFormatOf(path) ?? format) === format ? MODELPACK_WEIGHT : MODELPACK_WEIGHT_CONFIG;
  }
  return role === "license" || (role === "file" && isMarkdown(path))
    ? MODELPACK_DOC
    : MODELPACK_WEIGHT_CONFIG;
}

/**
 * Docker Model Runner fetches two layers of one digest into one file at once. What an engine opens must be at its path
 * all the same; a text that is only kept is there once.
 */
function withoutRepeats({ files, layout }: ModelParts): readonly LayerFile[] {
  return files.filter((file, index) => {
    const isNeeded = layout === "directory" && file.role !== "license" && !isMarkdown(file.path);
    return (
      isNeeded ||
      !files
        .slice(0, index)
        .some(({ role, digest }) => role === file.role && digest === file.digest)
    );
  });
}

/** Docker Model Runner looks a layer up by its diff id: layers are never compressed, and the two are the same. */
function dockerConfig({ facts, files, created, contextTokens }: ModelParts): unknown {
  const { format, quantization, parameters, architecture, size, header } = facts;
  return {
    config: {
      format,
      ...(quantization === null ? {} : { quantization }),
      ...(parameters === null ? {} : { parameters }),
      ...(architecture === null ? {} : { architecture }),
      ...(size === null ? {} : { size }),
      ...(header === null ? {} : { [format === "dduf" ? "diffusers" : format]: header }),
      ...(contextTokens === undefined ? {} : { context_size: contextTokens }),
    },
    descriptor: { created },
    rootfs: { type: "rootfs", diff_ids: files.map(({ digest }) => digest) },
  };
}

function modelPackConfig(parts: ModelParts): unknown {
  const { facts, files, created } = parts;
  const { format, quantization, parameters, architecture, license } = facts;
  const name = titleOf(parts);
  return {
    descriptor: {
      createdAt: created,
      ...(architecture === null ? {} : { family: architecture }),
      ...(name === undefined ? {} : { name }),
      ...(license === null ? {} : { licenses: [license] }),
    },
    modelfs: { type: "layers", diffIds: files.map(({ digest }) => digest) },
    config: {
      ...(architecture === null ? {} : { architecture }),
      format,
      ...(parameters === null ? {} : { paramSize: parameters }),
      ...(quantization === null ? {} : { quantization }),
    },
  };
}

function titleAnnotation(parts: ModelParts): Record<string, string> {
  const title = titleOf(parts);
  return title === undefined ? {} : { [TITLE]: title };
}

function titleOf({ facts, fallbackTitle }: ModelParts): string | undefined {
  return facts.name ?? fallbackTitle;
}

function sorted(map: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(map).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
