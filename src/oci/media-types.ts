/**
 * The media types and annotations of models, and what a layer is for.
 *
 * Docker's types are the ones Docker Model Runner writes; `cncf` ones are ModelPack's; the three `gguf.v3.*` variants
 * exist only in the text of Docker's model specification, and are read, never written.
 *
 * @see https://github.com/docker/model-spec
 * @see https://github.com/modelpack/model-spec
 */

export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
export const DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";

export const DOCKER_CONFIG_V01 = "application/vnd.docker.ai.model.config.v0.1+json";
export const DOCKER_CONFIG_V02 = "application/vnd.docker.ai.model.config.v0.2+json";
export const MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json";
/** `artifactType` of ModelPack manifests. */
export const MODELPACK_MANIFEST = "application/vnd.cncf.model.manifest.v1+json";

export const DOCKER_GGUF = "application/vnd.docker.ai.gguf.v3";
export const DOCKER_GGUF_MMPROJ = "application/vnd.docker.ai.gguf.v3.mmproj";
export const DOCKER_GGUF_LORA = "application/vnd.docker.ai.gguf.v3.lora";
export const DOCKER_SAFETENSORS = "application/vnd.docker.ai.safetensors";
export const DOCKER_DDUF = "application/vnd.docker.ai.dduf";
export const DOCKER_MMPROJ = "application/vnd.docker.ai.mmproj";
export const DOCKER_CHAT_TEMPLATE = "application/vnd.docker.ai.chat.template.jinja";
export const DOCKER_LICENSE = "application/vnd.docker.ai.license";
export const DOCKER_MODEL_FILE = "application/vnd.docker.ai.model.file";
/** Written by older packagers only: a tar of config and tokenizer files, and one of a directory. */
export const DOCKER_VLLM_CONFIG_TAR = "application/vnd.docker.ai.vllm.config.tar";
export const DOCKER_DIR_TAR = "application/vnd.docker.ai.dir.tar";

export const MODELPACK_WEIGHT = "application/vnd.cncf.model.weight.v1.raw";
export const MODELPACK_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw";
export const MODELPACK_DOC = "application/vnd.cncf.model.doc.v1.raw";
/** Docker's own additions to ModelPack. */
export const MODELPACK_WEIGHT_GGUF = "application/vnd.cncf.model.weight.v1.gguf";
export const MODELPACK_WEIGHT_SAFETENSORS = "application/vnd.cncf.model.weight.v1.safetensors";

/** Path of a layer's file relative to the model's root, with forward slashes. */
export const FILE_PATH = "org.cncf.model.filepath";
/** JSON of the file's name, mode, owner, size and time of change. */
export const FILE_METADATA = "org.cncf.model.file.metadata+json";
/** `"true"` if the media type is a guess. */
export const FILE_MEDIA_TYPE_UNTESTED = "org.cncf.model.file.mediatype.untested";
export const TITLE = "org.opencontainers.image.title";
export const CREATED = "org.opencontainers.image.created";
export const LICENSES = "org.opencontainers.image.licenses";
/** The tag of a manifest in an image layout's `index.json`. */
export const REF_NAME = "org.opencontainers.image.ref.name";

export type WeightFormat = "gguf" | "safetensors" | "dduf";

/**
 * The format of the weights in a layer, or undefined if the layer holds none.
 *
 * @param path the layer's file path annotation
 * @param configFormat `config.format` of a ModelPack, which says what its raw weights are
 */
export function weightFormat(
  mediaType: string,
  path?: string,
  configFormat?: string,
): WeightFormat | undefined {
  if (mediaType !== MODELPACK_WEIGHT) return WEIGHTS.get(mediaType);
  if (isProjector(mediaType, path)) return undefined;
  const named = configFormat?.toLowerCase();
  if (isWeightFormat(named)) return named;
  const extension = basename(path).split(".").at(-1);
  return isWeightFormat(extension) ? extension : undefined;
}

/** A directory of a diffusion pipeline, and the file that makes it one. Its weights are safetensors. */
export const PIPELINE = "diffusers";
export const PIPELINE_INDEX = "model_index.json";

/** What `config.format` says of ONNX exports, and of PyTorch's checkpoints, which are pickles. */
export const ONNX = "onnx";
export const PYTORCH = "pytorch";

/**
 * A format that is none of those known here, by `config.format`: lower case; undefined for a known one and for what is no
 * name. Its weights are files like any other.
 */
export function ownFormat(configFormat: string | null | undefined): string | undefined {
  const name = configFormat?.trim().toLowerCase();
  if (name === undefined || !OWN_FORMAT.test(name)) return undefined;
  return isWeightFormat(name) || name === DDUF_AT_FIRST ? undefined : name;
}

/** Whether a layer of a model of such a format may be of its weights. */
export function isOwnWeight(mediaType: string, path?: string): boolean {
  const isFile = mediaType === DOCKER_MODEL_FILE || mediaType === MODELPACK_WEIGHT;
  return isFile && !isTemplate(mediaType, path) && !isProjector(mediaType, path);
}

/** Whether a layer is a multimodal projector. */
export function isProjector(mediaType: string, path?: string): boolean {
  if (mediaType === DOCKER_MMPROJ || mediaType === DOCKER_GGUF_MMPROJ) return true;
  const isWeight = mediaType === MODELPACK_WEIGHT || mediaType === MODELPACK_WEIGHT_GGUF;
  return isWeight && basename(path).includes("mmproj");
}

/** Whether a layer is a Jinja chat template. */
export function isTemplate(mediaType: string, path?: string): boolean {
  if (mediaType === DOCKER_CHAT_TEMPLATE) return true;
  const isFile = mediaType === MODELPACK_WEIGHT_CONFIG || mediaType === DOCKER_MODEL_FILE;
  return isFile && basename(path).endsWith(".jinja");
}

/** Whether a layer is a licence text. */
export function isLicense(mediaType: string, path?: string): boolean {
  if (mediaType === DOCKER_LICENSE) return true;
  return mediaType === MODELPACK_DOC && /license|licence|copying|notice/.test(basename(path));
}

/** Whether a layer is a LoRA adapter. */
export function isAdapter(mediaType: string): boolean {
  return mediaType === DOCKER_GGUF_LORA;
}

/** Whether a layer is a tar archive of files, packed or not, instead of one file. */
export function isArchive(mediaType: string): boolean {
  return (
    mediaType === DOCKER_VLLM_CONFIG_TAR || mediaType === DOCKER_DIR_TAR || PACKED.test(mediaType)
  );
}

/** Whether the weights of a model may be in such an archive, and what belongs to them. */
export function isWeightArchive(mediaType: string): boolean {
  return mediaType === DOCKER_DIR_TAR || PACKED.exec(mediaType)?.[1] === "weight";
}

/** Whether such an archive is of things that no engine reads. */
export function isExtraArchive(mediaType: string): boolean {
  return /^(?:doc|code|dataset)$/.test(PACKED.exec(mediaType)?.[1] ?? "");
}

/**
 * What the weights in an archive probably are, as far as can be said without unpacking it.
 *
 * @param path the layer's file path annotation: of the file in it, or of the archive
 */
export function archivedFormat(
  mediaType: string,
  path?: string,
  configFormat?: string,
): WeightFormat | undefined {
  if (PACKED.exec(mediaType)?.[1] !== "weight") return undefined;
  const named = configFormat?.toLowerCase();
  if (isWeightFormat(named)) return named;
  const name = basename(path).replace(/\.(?:tar|t?gz|tar\.gz|tar\.zstd?|zstd?)$/, "");
  const extension = name.split(".").at(-1);
  return isWeightFormat(extension) ? extension : undefined;
}

/** Whether files of such a model are laid out by their path annotations, not by their media types. */
export function isLaidOutByPath(
  configMediaType: string,
  artifactType: string | undefined,
): boolean {
  return (
    configMediaType === DOCKER_CONFIG_V02 ||
    configMediaType === MODELPACK_CONFIG ||
    artifactType === MODELPACK_MANIFEST
  );
}

// --- internal ---

/** ModelPack's archives. */
const PACKED =
  /^application\/vnd\.cncf\.model\.(weight|weight\.config|doc|code|dataset)\.v1\.tar(?:\+gzip|\+zstd)?$/;

const OWN_FORMAT = /^[a-z0-9][a-z0-9._+-]{0,63}$/;
/** What Docker Model Runner called DDUF at first. */
const DDUF_AT_FIRST = "diffusers";

/** A map, because a type may be called `constructor`. */
const WEIGHTS: ReadonlyMap<string, WeightFormat> = new Map([
  [DOCKER_GGUF, "gguf"],
  [DOCKER_SAFETENSORS, "safetensors"],
  [DOCKER_DDUF, "dduf"],
  [MODELPACK_WEIGHT_GGUF, "gguf"],
  [MODELPACK_WEIGHT_SAFETENSORS, "safetensors"],
]);

function isWeightFormat(text: string | undefined): text is WeightFormat {
  return text === "gguf" || text === "safetensors" || text === "dduf";
}

/** Lower case. */
function basename(path: string | undefined): string {
  return (path ?? "").split("/").at(-1)?.toLowerCase() ?? "";
}
