/**
 * A model as a tar archive: what Docker Model Runner loads (`manifest.json` and the blobs) and an OCI image layout at the
 * same time, which skopeo and oras read.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { AppError, errnoOf } from "../errors.ts";
import { type Digest, hexOf } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { OCI_INDEX, REF_NAME } from "../oci/media-types.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { TAR_END, encodeTarHeader, paddingOf } from "./tar.ts";

export interface ModelArchive {
  /** Of the archive, in bytes. */
  readonly sizeBytes: number;
  /** The archive. It fails with `digest_mismatch` where a blob is not what it should be: what was read is then useless. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** @throws model_not_found, blob_not_found, digest_mismatch (a blob has the wrong size) */
export async function exportModel(
  store: Store,
  name: string,
  options: { signal: AbortSignal },
): Promise<ModelArchive> {
  const model = await store.resolve(name);
  const manifest = await store.readBlob(model.manifestDescriptor);
  const blobs = uniqueBlobs(model);
  for (const blob of blobs) await requireSize(store, blob);
  const entries: Entry[] = [
    { name: "blobs", kind: "directory" },
    { name: "blobs/sha256", kind: "directory" },
    ...blobs.map((blob): Entry => ({ name: blobName(blob.digest), kind: "blob", ...blob })),
    { name: blobName(model.digest), kind: "bytes", bytes: manifest },
    { name: "oci-layout", kind: "bytes", bytes: encodeCanonical({ imageLayoutVersion: "1.0.0" }) },
    { name: "index.json", kind: "bytes", bytes: encodeIndex(model) },
    { name: "manifest.json", kind: "bytes", bytes: manifest },
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

/** Layers, then the config; one blob may be several layers. */
function uniqueBlobs({ manifest }: StoredModel): Blob[] {
  const all = [...manifest.layers, manifest.config];
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

function encodeIndex({ manifestDescriptor: { mediaType, digest, size }, tags }: StoredModel) {
  const entry = { mediaType, digest, size };
  // One entry a tag; none of them is more the model's name than another.
  const manifests = tags.map((tag) => ({ ...entry, annotations: { [REF_NAME]: tag } }));
  return encodeCanonical({
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: manifests.length === 0 ? [entry] : manifests,
  });
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
