/** Which models an archive holds, and by what names. */
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import { type Digest, digestOf, tryParseDigest } from "../oci/digest.ts";
import { type Manifest, parseManifest } from "../oci/manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  DOCKER_MANIFEST_LIST,
  MODELPACK_CONFIG,
  OCI_INDEX,
  REF_NAME,
} from "../oci/media-types.ts";
import { displayReference, parseReference, type Reference } from "../oci/reference.ts";
import type { BlobId } from "../store/store.ts";
import { tryParseJson } from "./archive-entries.ts";

/** What an archive holds besides blobs. */
export interface ArchiveContents {
  /** Its blobs. */
  readonly sizes: ReadonlyMap<Digest, number>;
  /** `manifest.json`: Docker Model Runner's manifest, or docker save's list. */
  readonly manifest: Uint8Array | undefined;
  /** `index.json`, parsed. */
  readonly index: unknown;
}

export interface FoundModel {
  /** Exactly as it came. */
  readonly manifest: Uint8Array;
  readonly tags: readonly Reference[];
  /** For people. */
  readonly name: string;
  /** What it consists of besides the manifest. */
  readonly blobs: readonly BlobId[];
}

export interface FindOptions {
  /** Verified. */
  readonly readBlob: (blob: BlobId) => Promise<Uint8Array>;
  readonly onWarning: (message: string) => void;
}

const CONFIG_TYPES: readonly string[] = [DOCKER_CONFIG_V01, DOCKER_CONFIG_V02, MODELPACK_CONFIG];
/** Manifests of one archive; each is read. */
const MAX_MANIFESTS = 4096;
/** All of them are held until the last one is found to be sound; one of a model has some kilobytes. */
const MAX_MANIFESTS_BYTES = 256 * 1024 * 1024;

/**
 * Docker Model Runner's archive has one manifest, `manifest.json`; a layout has an index, whose entries may be indexes of
 * several manifests themselves. What is no model, such as a signature, is left out with a warning.
 *
 * @throws invalid_model_file, unsupported_model if there is no model in it
 */
export async function findModels(
  contents: ArchiveContents,
  options: FindOptions,
): Promise<FoundModel[]> {
  const named = await readIndex(contents, options);
  const single = contents.manifest;
  if (single !== undefined && isRecord(tryParseJson(single))) {
    const digest = digestOf(single);
    if (!named.has(digest)) named.set(digest, { bytes: single, tags: [] });
  }
  if (named.size === 0) throw nothingFound(contents);
  const models: FoundModel[] = [];
  const others: string[] = [];
  for (const [digest, { bytes, tags }] of named) {
    const manifest = parseManifest(bytes);
    if (CONFIG_TYPES.includes(manifest.config.mediaType))
      models.push(toFound({ digest, bytes, tags }, manifest));
    else others.push(manifest.config.mediaType.slice(0, 200));
  }
  const [other] = others;
  if (models.length === 0 && other !== undefined) throw noModel(other, contents);
  for (const type of new Set(others)) {
    options.onWarning(`left out of the import: \`${type}\` is no model`);
  }
  return models;
}

// --- internal ---

interface NamedManifest {
  readonly bytes: Uint8Array;
  readonly tags: Reference[];
}

/** The manifests of the index, with all names of each. */
async function readIndex(
  contents: ArchiveContents,
  options: FindOptions,
): Promise<Map<Digest, NamedManifest>> {
  const found = new Map<Digest, NamedManifest>();
  const expanded = new Map<unknown, readonly Digest[]>();
  let size = 0;
  for (const entry of manifestsOf(contents.index)) {
    const tag = tagOf(entry);
    const before = expanded.get(entry["digest"]);
    // A name of several is the name of none of them.
    if (before !== undefined && before.length !== 1) continue;
    const digests = before ?? (await expand(entry, contents, options));
    expanded.set(entry["digest"], digests);
    for (const digest of digests) {
      const known = found.get(digest) ?? { bytes: await read(digest, contents, options), tags: [] };
      if (!found.has(digest)) size += known.bytes.length;
      if (found.size >= MAX_MANIFESTS || size > MAX_MANIFESTS_BYTES)
        throw unreadable(`it has too many manifests (${found.size}, ${size} bytes)`);
      if (tag !== undefined && digests.length === 1) known.tags.push(tag);
      found.set(digest, known);
    }
  }
  return found;
}

/** The manifests that an entry of the index stands for; of an index within it, those that are in the archive. */
async function expand(
  entry: Record<string, unknown>,
  contents: ArchiveContents,
  options: FindOptions,
): Promise<Digest[]> {
  const digest = tryParseDigest(String(entry["digest"]));
  if (digest === undefined) throw unreadable("its index names something that is no digest");
  const type = entry["mediaType"];
  if (type !== OCI_INDEX && type !== DOCKER_MANIFEST_LIST) return [digest];
  const inner = tryParseJson(await read(digest, contents, options));
  const digests = manifestsOf(inner).map((child) => tryParseDigest(String(child["digest"])));
  return digests.filter((child) => child !== undefined && contents.sizes.has(child)) as Digest[];
}

async function read(
  digest: Digest,
  { sizes }: ArchiveContents,
  { readBlob }: FindOptions,
): Promise<Uint8Array> {
  const size = sizes.get(digest);
  if (size === undefined) throw unreadable(`it lacks the manifest \`${digest}\``);
  return readBlob({ digest, size });
}

function toFound(
  { digest, bytes, tags }: NamedManifest & { readonly digest: Digest },
  { config, layers }: Manifest,
): FoundModel {
  const [first] = tags;
  return {
    manifest: bytes,
    tags,
    name: first === undefined ? digest : displayReference(text(first)),
    blobs: [config, ...layers].map((blob) => ({ digest: blob.digest, size: blob.size })),
  };
}

function text({ registry, repository, tag }: Reference): string {
  return `${registry}/${repository}:${tag}`;
}

/** A name that is no reference of ours, such as the bare tag that other tools write, is no tag here. */
function tagOf({ annotations }: Record<string, unknown>): Reference | undefined {
  const name = isRecord(annotations) ? annotations[REF_NAME] : undefined;
  if (typeof name !== "string" || !name.includes("/")) return undefined;
  try {
    const { registry, repository, tag } = parseReference(name);
    return tag === undefined ? undefined : { registry, repository, tag };
  } catch {
    return undefined;
  }
}

function manifestsOf(index: unknown): Record<string, unknown>[] {
  const manifests = isRecord(index) ? index["manifests"] : undefined;
  return Array.isArray(manifests) ? manifests.filter(isRecord) : [];
}

/** docker save has a `manifest.json` too: a list of images. */
function isDockerSave({ manifest }: ArchiveContents): boolean {
  return manifest !== undefined && Array.isArray(tryParseJson(manifest));
}

function nothingFound(contents: ArchiveContents): AppError {
  return isDockerSave(contents) ? savedImages() : unreadable("it has no manifest");
}

function noModel(type: string, contents: ArchiveContents): AppError {
  if (isDockerSave(contents)) return savedImages();
  return new AppError("unsupported_model", `cannot import the archive: \`${type}\` is no model`, {
    hint: "Give an archive of models, as `tug export` or `docker model package` writes it.",
  });
}

function savedImages(): AppError {
  return new AppError(
    "unsupported_model",
    "cannot import the archive: it holds container images, as `docker save` writes them",
    { hint: "Give an archive of models, as `tug export` or `docker model package` writes it." },
  );
}

function unreadable(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot import the archive: ${reason}`, {
    hint: "Give an archive of models, as `tug export` or `docker model package` writes it.",
  });
}
