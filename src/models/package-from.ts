/**
 * Variants of a model in the store: another context size, licences, template, projector or format. Layers are shared; what
 * is not asked for stays as it was, to the byte.
 */
import type { PackageRequest } from "../api/models.ts";
import { AppError } from "../errors.ts";
import { type Descriptor, isRecord } from "../oci/descriptor.ts";
import { digestOf } from "../oci/digest.ts";
import {
  CREATED,
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  MODELPACK_CONFIG,
} from "../oci/media-types.ts";
import type { BlobId, Store, StoredModel } from "../store/store.ts";
import {
  type ArtifactFormat,
  type EncodedBlob,
  type EncodedModel,
  encodeManifest,
  encodeModel,
  type LayerFile,
  toBlob,
  toLayer,
} from "./artifact.ts";
import { layerPath } from "../oci/model-layers.ts";
import { toConfigFacts } from "./config.ts";
import { toRfc3339 } from "./created.ts";
import { checkPaths, type InputFile } from "./input-file.ts";
import { convertModel, roleOfLayer, toFacts } from "./package-convert.ts";
import { readExtras } from "./package-inputs.ts";

/** Headers of GGUF with large templates make configs of some 100 KB. Bytes. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

export interface VariantOptions {
  readonly signal: AbortSignal;
  /** The target's. */
  readonly format: ArtifactFormat;
  /** RFC 3339; undefined: the source's own. */
  readonly created: string | undefined;
  /** Tokens; undefined: the source's own. */
  readonly contextTokens: number | undefined;
  /** Of the manifest, besides the source's. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** What is to be packaged, before any of it is a blob. */
export interface Variant {
  /** The model whose layers it shares. */
  readonly source?: StoredModel;
  readonly warnings: readonly string[];
  /** Files that become blobs, in the order of their layers. */
  readonly files: readonly InputFile[];
  /** Blobs of the store that it consists of besides. */
  readonly shared: readonly BlobId[];
  /** @param added the files, as blobs */
  assemble(added: readonly LayerFile[]): EncodedModel;
}

/** @throws unsupported_model for what is no model of a kind that can be written */
export function formatOfArtifact({ manifest }: StoredModel): ArtifactFormat {
  const { mediaType } = manifest.config;
  if (mediaType === MODELPACK_CONFIG) return "cncf";
  if (mediaType === DOCKER_CONFIG_V01 || mediaType === DOCKER_CONFIG_V02) return "docker";
  const type = JSON.stringify(mediaType.slice(0, 100));
  throw new AppError("unsupported_model", `cannot make a variant: the model's config is ${type}`, {
    hint: "Package from its files instead.",
  });
}

/**
 * @param source.request names the licences, the template and the projector
 * @throws usage, not_found, forbidden, invalid_model_file, unsupported_model, blob_not_found, digest_mismatch
 */
export async function readVariant(
  store: Store,
  source: { readonly model: StoredModel; readonly request: PackageRequest },
  options: VariantOptions,
): Promise<Variant> {
  const { model, request } = source;
  const { manifest } = model;
  const { extras, warnings } = await readExtras(request, options);
  const config = await store.readBlob(manifest.config, { maxBytes: MAX_CONFIG_BYTES });
  const bytes = await store.readBlob(model.manifestDescriptor);
  const kept = readLayers(bytes).filter((layer) => !isReplaced(layer, extras));
  const original: Original = { model, config, manifest: bytes, kept };
  const base = { source: model, files: extras, shared: kept };
  if (options.format === formatOfArtifact(model)) {
    checkNewPaths(
      kept.flatMap((layer) => layerPath(layer) ?? []),
      extras,
    );
    return { ...base, warnings, assemble: (added) => patch(original, added, options) };
  }
  const conversion = {
    manifest,
    said: toConfigFacts(config, manifest),
    kept,
    format: options.format,
  };
  const parts = await convertModel(store, conversion, options);
  checkNewPaths(
    parts.files.map(({ path }) => path),
    extras,
  );
  const { created = parts.created, contextTokens } = options;
  const annotations = { ...parts.annotations, ...options.annotations };
  return {
    ...base,
    warnings: [...warnings, ...whatIsLost(config, options.format)],
    assemble: (added) =>
      encodeModel({
        ...parts,
        created,
        contextTokens,
        annotations,
        files: [...parts.files, ...added],
      }),
  };
}

// --- internal ---

interface Original {
  readonly model: StoredModel;
  readonly config: Uint8Array;
  readonly manifest: Uint8Array;
  /** Layers that nothing replaces. */
  readonly kept: readonly Descriptor[];
}

/** Of a manifest that has been checked: as they are, with members that are not known here. */
function readLayers(manifest: Uint8Array): readonly Descriptor[] {
  const { layers } = JSON.parse(new TextDecoder().decode(manifest)) as {
    layers: readonly Descriptor[];
  };
  return layers;
}

/** A model has one template and one projector; a licence of the same name is a newer one. */
function isReplaced(layer: Descriptor, extras: readonly InputFile[]): boolean {
  const path = layerPath(layer);
  const role = roleOfLayer(layer);
  return extras.some((extra) =>
    extra.role === "license"
      ? role === "license" && path !== undefined && isSamePath(path, extra.path)
      : extra.role === role,
  );
}

function isSamePath(a: string, b: string): boolean {
  return a.normalize("NFC").toLowerCase() === b.normalize("NFC").toLowerCase();
}

/** The paths of old layers are what they are; a new file must not come upon them. */
function checkNewPaths(paths: readonly string[], extras: readonly InputFile[]): void {
  checkPaths(extras);
  for (const extra of extras) {
    if (!paths.some((path) => isSamePath(path, extra.path))) continue;
    throw new AppError("usage", `cannot package two files called \`${extra.path}\``, {
      hint: "Rename the file: the model has another one of this name.",
    });
  }
}

/** The same documents with what changes, and whatever else they say. */
function patch(
  original: Original,
  added: readonly LayerFile[],
  options: VariantOptions,
): EncodedModel {
  const { model, kept } = original;
  if (isUntouched(original, added, options)) return asItIs(original);
  const said = toConfigFacts(original.config, model.manifest);
  const created = options.created ?? toRfc3339(said.created);
  const parts = { format: options.format, facts: toFacts(said, model.manifest), created };
  const isThere = new Set(kept.map(({ mediaType, digest }) => `${mediaType} ${digest}`));
  const layers = [
    ...kept,
    ...added
      .map((file) => toLayer(file, parts))
      .filter(({ mediaType, digest }) => !isThere.has(`${mediaType} ${digest}`)),
  ];
  const config = patchConfig(original, layers, options);
  const { mediaType, artifactType } = model.manifest;
  const manifest = encodeManifest({
    mediaType,
    ...(artifactType === undefined ? {} : { artifactType }),
    config,
    layers,
    annotations: {
      ...model.manifest.annotations,
      ...(options.created === undefined ? {} : { [CREATED]: options.created }),
      ...options.annotations,
    },
  });
  return { config, manifest };
}

/** Nothing is asked for but another name: then it is the same model. */
function isUntouched(
  { kept, model }: Original,
  added: readonly LayerFile[],
  { created, contextTokens, annotations }: VariantOptions,
): boolean {
  return (
    added.length === 0 &&
    kept.length === model.manifest.layers.length &&
    created === undefined &&
    contextTokens === undefined &&
    Object.keys(annotations).length === 0
  );
}

function asItIs({ model, config, manifest }: Original): EncodedModel {
  return {
    config: withDigest(model.manifest.config.mediaType, config),
    manifest: withDigest(model.manifest.mediaType, manifest),
  };
}

function withDigest(mediaType: string, bytes: Uint8Array): EncodedBlob {
  return { mediaType, bytes, digest: digestOf(bytes), size: bytes.length };
}

function patchConfig(
  { model, config: bytes }: Original,
  layers: readonly Descriptor[],
  { created, contextTokens, format }: VariantOptions,
): EncodedBlob {
  const root = parseConfig(bytes);
  const digests = layers.map(({ digest }) => digest);
  const isModelPack = format === "cncf";
  const time = created === undefined ? {} : { [isModelPack ? "createdAt" : "created"]: created };
  const context = contextTokens === undefined ? {} : { context_size: contextTokens };
  const changed: Record<string, unknown> = {
    ...root,
    config: { ...toObject(root["config"]), ...context },
    descriptor: { ...toObject(root["descriptor"]), ...time },
    ...(isModelPack
      ? { modelfs: { type: "layers", diffIds: digests } }
      : { rootfs: { type: "rootfs", diff_ids: digests } }),
  };
  // A list of layers in the words of Docker's specification, which would not know the new ones.
  delete changed["files"];
  return toBlob(model.manifest.config.mediaType, changed);
}

function whatIsLost(config: Uint8Array, format: ArtifactFormat): string[] {
  const inner = toObject(parseConfig(config)["config"]);
  if (format === "docker" || inner["context_size"] === undefined) return [];
  return ["the packaged context size is left out: ModelPack has no field for it"];
}

function parseConfig(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    value = undefined;
  }
  if (isRecord(value)) return value;
  throw new AppError("invalid_model_file", "cannot make a variant: the model's config is damaged");
}

function toObject(value: unknown): Record<string, unknown> {
  return isRecord(value) ? value : {};
}
