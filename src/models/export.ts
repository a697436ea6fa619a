/**
 * Models as a tar archive: an OCI image layout, which skopeo and oras read, and, for a single model, at the same time what
 * Docker Model Runner loads (`manifest.json` and the blobs).
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { AppError, errnoOf } from "../errors.ts";
import { type Digest, hexOf } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { OCI_INDEX, REF_NAME } from "../oci/media-types.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { tagsByName } from "./push-target.ts";
import { TAR_END, encodeTarHeader, paddingOf } from "../archive/tar.ts";

export interface ExportSelection {
  /** Names or digests; one that is named twice is archived once. It keeps the names it was called by, or all for a digest. */
  readonly models: readonly string[];
  /** Digests that the other side has: their blobs are left out, and those of models among them. */
  readonly have?: Iterable<string>;
}

export interface ModelArchive {
  /** Of the archive, in bytes. */
  readonly sizeBytes: number;
  /** The archive. It fails with `digest_mismatch` where a blob is not what it should be: what was read is then useless. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/**
 * What says what the archive holds comes first, so that a reader knows what it is going to get; `manifest.json` comes last,
 * as Docker Model Runner writes it. Manifests are never left out.
 *
 * @throws model_not_found, blob_not_found, digest_mismatch (a blob has the wrong size)
 */
export async function exportModels(
  store: Store,
  { models: names, have = [] }: ExportSelection,
  options: { signal: AbortSignal },
): Promise<ModelArchive> {
  const models = await resolveAll(store, names);
  const known = await completeKnown(store, new Set(have));
  const blobs = uniqueBlobs(models).filter(({ digest }) => !known.has(digest));
  for (const blob of blobs) await requireSize(store, blob);
  const manifests: Entry[] = [];
  for (const { manifestDescriptor, digest } of models) {
    const bytes = await store.readBlob(manifestDescriptor);
    manifests.push({ name: blobName(digest), kind: "bytes", bytes });
  }
  const [first, ...others] = manifests;
  const entries: Entry[] = [
    { name: "oci-layout", kind: "bytes", bytes: encodeCanonical({ imageLayoutVersion: "1.0.0" }) },
    { name: "index.json", kind: "bytes", bytes: encodeIndex(models) },
    { name: "blobs", kind: "directory" },
    { name: "blobs/sha256", kind: "directory" },
    ...manifests,
    ...blobs.map((blob): Entry => ({ name: blobName(blob.digest), kind: "blob", ...blob })),
    ...(first === undefined || others.length > 0 ? [] : [{ ...first, name: "manifest.json" }]),
  ];
  const sizeBytes = entries.reduce((sum, entry) => sum + archivedSize(entry), TAR_END.length);
  return { sizeBytes, chunks: writeEntries(store, entries, options.signal) };
}

// --- internal ---

interface Blob {
  readonly digest: Digest;
  readonly size: number;
}

type Entry =
  | { readonly name: string; readonly kind: "directory" }
  | { readonly name: string; readonly kind: "bytes"; readonly bytes: Uint8Array }
  | ({ readonly name: string; readonly kind: "blob" } & Blob);

/** Each with the tags that are asked for. */
async function resolveAll(store: Store, names: readonly string[]): Promise<StoredModel[]> {
  const models = new Map<Digest, StoredModel>();
  for (const name of names) {
    const model = await store.resolve(name);
    const before = models.get(model.digest)?.tags ?? [];
    const named = tagsByName(model.tags, name.trim());
    const tags = new Set([...before, ...(named.length === 0 ? model.tags : named)]);
    models.set(model.digest, { ...model, tags: [...tags] });
  }
  return [...models.values()];
}

/** Whoever has a model has its blobs: a list of ids, as `tug list --json` gives it, is enough. */
async function completeKnown(
  store: Store,
  have: ReadonlySet<string>,
): Promise<ReadonlySet<string>> {
  if (have.size === 0) return have;
  const known = (await store.list()).filter(({ digest }) => have.has(digest));
  return new Set([...have, ...uniqueBlobs(known).map(({ digest }) => digest)]);
}

/** Of each model the config, then the layers; one blob may be several layers, or in several models. */
function uniqueBlobs(models: readonly StoredModel[]): Blob[] {
  const all = models.flatMap(({ manifest }) => [manifest.config, ...manifest.layers]);
  const sizes = new Map(all.map(({ digest, size }) => [digest, size]));
  return [...sizes].map(([digest, size]) => ({ digest, size }));
}

async function requireSize(store: Store, { digest, size }: Blob): Promise<void> {
  let found: number;
  try {
    found = (await stat(store.blobPath(digest))).size;
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") throw cause;
    throw new AppError("blob_not_found", `cannot export ${digest}: it is not in the store`, {
      hint: "`tug verify` lists what is missing.",
      cause,
    });
  }
  if (found !== size) throw mismatch(digest, `it has ${found} bytes of ${size}`);
}

function encodeIndex(models: readonly StoredModel[]): Uint8Array {
  const manifests = models.flatMap(({ manifestDescriptor: { mediaType, digest, size }, tags }) => {
    const entry = { mediaType, digest, size };
    // One entry a tag; none of them is more the model's name than another.
    return tags.length === 0
      ? [entry]
      : tags.map((tag) => ({ ...entry, annotations: { [REF_NAME]: tag } }));
  });
  return encodeCanonical({ schemaVersion: 2, mediaType: OCI_INDEX, manifests });
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function sizeOf(entry: Entry): number {
  if (entry.kind === "directory") return 0;
  return entry.kind === "bytes" ? entry.bytes.length : entry.size;
}

function headerOf(entry: Entry): Uint8Array {
  const kind = entry.kind === "directory" ? "directory" : "file";
  return encodeTarHeader({ name: entry.name, size: sizeOf(entry), kind });
}

function archivedSize(entry: Entry): number {
  const size = sizeOf(entry);
  return headerOf(entry).length + size + paddingOf(size);
}

async function* writeEntries(
  store: Store,
  entries: readonly Entry[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for (const entry of entries) {
    yield headerOf(entry);
    if (entry.kind === "bytes") yield entry.bytes;
    if (entry.kind === "blob") yield* readVerified(store, entry, signal);
    const padding = paddingOf(sizeOf(entry));
    if (padding > 0) yield new Uint8Array(padding);
  }
  yield TAR_END;
}

/** The archive has room for exactly as many bytes as its header says. */
async function* readVerified(
  store: Store,
  { digest, size }: Blob,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const hasher = new Bun.CryptoHasher("sha256");
  let done = 0;
  for await (const chunk of createReadStream(store.blobPath(digest), { signal })) {
    const bytes = chunk as Uint8Array;
    done += bytes.length;
    if (done > size) break;
    hasher.update(bytes);
    yield bytes;
  }
  if (done !== size) throw mismatch(digest, "its size has changed");
  if (hasher.digest("hex") !== hexOf(digest)) throw mismatch(digest, "its content is damaged");
}

function mismatch(digest: Digest, reason: string): AppError {
  return new AppError("digest_mismatch", `cannot export ${digest}: ${reason}`, {
    hint: "`tug verify` lists damaged models; remove them and get them again.",
  });
}
