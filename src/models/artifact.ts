/**
 * The config and the manifest of a packaged model, as Docker Model Runner writes them (v0.1) or as ModelPack. Pure: the
 * same input gives the same bytes.
 */
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import {
  CREATED,
  DOCKER_CHAT_TEMPLATE,
  DOCKER_CONFIG_V01,
  DOCKER_GGUF,
  DOCKER_LICENSE,
  DOCKER_MMPROJ,
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
  TITLE,
} from "../oci/media-types.ts";
import type { GgufFacts } from "../store/gguf.ts";
import { formatBinaryBytes, formatParameters } from "./amounts.ts";

export type ArtifactFormat = "docker" | "cncf";

export type LayerRole = "weights" | "license" | "chatTemplate" | "mmproj";

/** A file that has become a blob. */
export interface LayerFile {
  readonly role: LayerRole;
  /** Base name. */
  readonly name: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

export interface ArtifactParts {
  readonly format: ArtifactFormat;
  readonly facts: GgufFacts;
  /** What the model is called where it says nothing itself. */
  readonly fallbackTitle: string;
  /** In the order of the layers: weights, licences, template, projector. */
  readonly files: readonly LayerFile[];
  /** RFC 3339. */
  readonly created: string;
  /** Docker's format only. */
  readonly contextTokens?: number | undefined;
}

/** @see https://github.com/modelpack/model-spec/blob/main/docs/config.md */
export function encodeConfig(parts: ArtifactParts): { mediaType: string; bytes: Uint8Array } {
  return parts.format === "cncf"
    ? { mediaType: MODELPACK_CONFIG, bytes: encodeCanonical(modelPackConfig(parts)) }
    : { mediaType: DOCKER_CONFIG_V01, bytes: encodeCanonical(dockerConfig(parts)) };
}

export function encodeManifest(
  parts: ArtifactParts,
  config: { mediaType: string; digest: Digest; size: number },
): Uint8Array {
  return encodeCanonical({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    ...(parts.format === "cncf" ? { artifactType: MODELPACK_MANIFEST } : {}),
    config: { mediaType: config.mediaType, size: config.size, digest: config.digest },
    layers: parts.files.map((file) => toLayer(file, parts)),
    annotations: {
      [CREATED]: parts.created,
      ...(parts.facts.license === null ? {} : { [LICENSES]: parts.facts.license }),
      [TITLE]: titleOf(parts),
    },
  });
}

/**
 * The name of a file within the artifact. ModelPack has no types for templates and projectors: their names tell.
 */
export function nameInArtifact(role: LayerRole, name: string, format: ArtifactFormat): string {
  if (format === "docker") return name;
  if (role === "chatTemplate" && !name.toLowerCase().endsWith(".jinja")) return `${name}.jinja`;
  if (role === "mmproj" && !name.toLowerCase().includes("mmproj")) return `mmproj-${name}`;
  return name;
}

// --- internal ---

const LAYER_TYPES: Readonly<Record<ArtifactFormat, Readonly<Record<LayerRole, string>>>> = {
  docker: {
    weights: DOCKER_GGUF,
    license: DOCKER_LICENSE,
    chatTemplate: DOCKER_CHAT_TEMPLATE,
    mmproj: DOCKER_MMPROJ,
  },
  cncf: {
    weights: MODELPACK_WEIGHT,
    license: MODELPACK_DOC,
    chatTemplate: MODELPACK_WEIGHT_CONFIG,
    mmproj: MODELPACK_WEIGHT,
  },
};

/** The permission bits 0644: those of the machine that packages are no fact of the model. */
const FILE_MODE = 420;

/** Docker Model Runner looks a layer up by its diff id: layers are never compressed, and the two are the same. */
function dockerConfig({ facts, files, created, contextTokens }: ArtifactParts): unknown {
  return {
    config: {
      format: "gguf",
      ...(facts.quantization === null ? {} : { quantization: facts.quantization }),
      parameters: formatParameters(facts.parameterCount),
      ...(facts.architecture === null ? {} : { architecture: facts.architecture }),
      size: formatBinaryBytes(facts.tensorBytes),
      gguf: facts.header,
      ...(contextTokens === undefined ? {} : { context_size: contextTokens }),
    },
    descriptor: { created },
    rootfs: { type: "rootfs", diff_ids: files.map(({ digest }) => digest) },
  };
}

function modelPackConfig(parts: ArtifactParts): unknown {
  const { facts, files, created } = parts;
  return {
    descriptor: {
      createdAt: created,
      ...(facts.architecture === null ? {} : { family: facts.architecture }),
      name: titleOf(parts),
      ...(facts.license === null ? {} : { licenses: [facts.license] }),
    },
    modelfs: { type: "layers", diffIds: files.map(({ digest }) => digest) },
    config: {
      ...(facts.architecture === null ? {} : { architecture: facts.architecture }),
      format: "gguf",
      paramSize: formatParameters(facts.parameterCount),
      ...(facts.quantization === null ? {} : { quantization: facts.quantization }),
    },
  };
}

function toLayer(file: LayerFile, { format, created }: ArtifactParts): Descriptor {
  const { role, name, size, digest } = file;
  const metadata = { name, mode: FILE_MODE, uid: 0, gid: 0, size, mtime: created, typeflag: 0 };
  return {
    mediaType: LAYER_TYPES[format][role],
    size,
    digest,
    annotations: {
      [FILE_MEDIA_TYPE_UNTESTED]: "false",
      [FILE_METADATA]: JSON.stringify(metadata),
      [FILE_PATH]: name,
      [TITLE]: name,
    },
  };
}

function titleOf({ facts, fallbackTitle }: ArtifactParts): string {
  return facts.name ?? fallbackTitle;
}
