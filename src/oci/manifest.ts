/** OCI image manifests, and their Docker twins, which have the same shape. */
import { AppError, assert } from "../errors.ts";
import { type Descriptor, isRecord, parseAnnotations, parseDescriptor } from "./descriptor.ts";
import { DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST } from "./media-types.ts";

/** Registries must accept manifests of this size, and none is known to accept larger ones. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** A model has a layer a file; no known one comes near. */
const MAX_LAYERS = 16_384;

/** @see https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md */
export interface Manifest {
  readonly schemaVersion: 2;
  readonly mediaType: string;
  readonly artifactType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly subject?: Descriptor;
}

/**
 * Reads a manifest. The identity of a model is the digest of these bytes: keep them, never encode a manifest again.
 *
 * @throws invalid_model_file if it is malformed, unsupported_model if it is an index or of another schema
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const value = parseJsonObject(bytes);
  refuseOthers(value);
  const { mediaType, artifactType, layers, subject } = value;
  if (!Array.isArray(layers)) throw malformed("it has no layers");
  if (layers.length > MAX_LAYERS) throw malformed(`it has more than ${MAX_LAYERS} layers`);
  const annotations = parseAnnotations(value["annotations"], "the manifest");
  return {
    schemaVersion: 2,
    mediaType: typeof mediaType === "string" && mediaType !== "" ? mediaType : OCI_MANIFEST,
    ...(typeof artifactType === "string" && artifactType !== "" ? { artifactType } : {}),
    config: parseDescriptor(value["config"], "the manifest's config"),
    layers: layers.map((layer, index) => parseDescriptor(layer, `the manifest's layers[${index}]`)),
    ...(annotations === undefined ? {} : { annotations }),
    ...(subject === undefined || subject === null
      ? {}
      : { subject: parseDescriptor(subject, "the manifest's subject") }),
  };
}

/**
 * JSON that is the same on every machine: members in the order given, absent ones left out, no white space, UTF-8.
 *
 * Numbers that JSON does not know (NaN, infinities) are a programmer's error.
 */
export function encodeCanonical(value: unknown): Uint8Array {
  const text = JSON.stringify(value, (_key, member: unknown) => {
    assert(typeof member !== "number" || Number.isFinite(member), "a number in JSON is finite");
    return member;
  });
  assert(text !== undefined, "the value has a JSON form");
  return new TextEncoder().encode(text);
}

// --- internal ---

function parseJsonObject(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length > MAX_MANIFEST_BYTES)
    throw malformed(`it is larger than ${MAX_MANIFEST_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed("it is not JSON", cause);
  }
  if (!isRecord(value)) throw malformed("it is not an object");
  return value;
}

function refuseOthers(value: Record<string, unknown>): void {
  const { mediaType, schemaVersion } = value;
  if (
    mediaType === OCI_INDEX ||
    mediaType === DOCKER_MANIFEST_LIST ||
    Array.isArray(value["manifests"])
  ) {
    throw unsupported("it is an index of several manifests");
  }
  if (schemaVersion !== 2) throw unsupported("it has not schema version 2");
  const isKnown =
    mediaType === undefined ||
    mediaType === "" ||
    mediaType === OCI_MANIFEST ||
    mediaType === DOCKER_MANIFEST;
  if (!isKnown)
    throw unsupported(`${JSON.stringify(mediaType).slice(0, 200)} is not a manifest's media type`);
}

function malformed(reason: string, cause?: unknown): AppError {
  return new AppError("invalid_model_file", `cannot read the manifest: ${reason}`, { cause });
}

function unsupported(reason: string): AppError {
  return new AppError("unsupported_model", `cannot read the manifest: ${reason}`);
}
