/**
 * Reads models from a tar archive: Tug's and Docker Model Runner's, or any OCI image layout with models in it, such as
 * skopeo's `oci-archive`; plain, or compressed with gzip or zstd.
 */
import type { ProgressListener } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import type { BlobId, Store, StoredModel, Transaction } from "../store/store.ts";
import { blobDigestOf, plainName, readWhole, tryParseJson } from "./archive-entries.ts";
import { ArchiveLimits } from "./archive-limits.ts";
import { type ArchiveContents, findModels, type FoundModel } from "./archive-models.ts";
import { decompressed } from "../archive/decompress.ts";
import { reportBytes } from "./progress.ts";
import { type TarEntry, readTar } from "../archive/tar.ts";
import { MAX_MANIFEST_BYTES } from "../oci/manifest.ts";

export interface ImportOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener;
}

/**
 * Every blob is checked against the digest in its name. Blobs that the archive leaves out must be in the store. Models get
 * the tags that the archive names, if any; they move from other models. All models enter the store, or none.
 *
 * @throws invalid_model_file, unsupported_model, blob_not_found, digest_mismatch, insufficient_storage, cancelled
 */
export async function importModels(
  store: Store,
  chunks: AsyncIterable<Uint8Array>,
  options: ImportOptions,
): Promise<StoredModel[]> {
  await using transaction = await store.begin();
  const contents = await readContents(transaction, chunks, options);
  const found = await findModels(contents, {
    readBlob: (blob) => store.readBlob(blob, { maxBytes: MAX_MANIFEST_BYTES }),
    onWarning: (message) => options.onProgress?.({ type: "warning", message }),
  });
  for (const model of found) await requireBlobs(transaction, contents, model);
  options.signal.throwIfAborted();
  const models: StoredModel[] = [];
  for (const { manifest, tags } of found) {
    const [first, ...others] = tags;
    const model = await transaction.commit(manifest, first);
    for (const tag of others) await store.tag(model.digest, tag);
    models.push(others.length === 0 ? model : await store.resolve(model.digest));
  }
  return models;
}

// --- internal ---

async function readContents(
  transaction: Transaction,
  chunks: AsyncIterable<Uint8Array>,
  options: ImportOptions,
): Promise<ArchiveContents> {
  const limits = new ArchiveLimits();
  const sizes = new Map<Digest, number>();
  const small = new Map<string, Uint8Array>();
  const source = limits.unpacked(decompressed(limits.packed(chunks)));
  for await (const entry of readTar(source)) {
    options.signal.throwIfAborted();
    limits.count(entry);
    const digest = blobDigestOf(entry.name);
    if (entry.kind === "link" && digest !== undefined) throw unreadable("a blob in it is a link");
    if (entry.kind !== "file") continue;
    if (digest !== undefined) {
      const blob = { digest, size: entry.size };
      await ingest(transaction, { entry, blob }, options);
      sizes.set(blob.digest, blob.size);
      continue;
    }
    const name = plainName(entry.name);
    if (name !== "manifest.json" && name !== "index.json") {
      limits.ignore(entry);
      continue;
    }
    if (small.has(name)) throw unreadable(`it has two files \`${name}\``);
    if (entry.size > MAX_MANIFEST_BYTES) throw unreadable(`its \`${name}\` is too large`);
    small.set(name, await readWhole(entry));
  }
  const index = small.get("index.json");
  return {
    sizes,
    manifest: small.get("manifest.json"),
    index: index === undefined ? undefined : tryParseJson(index),
  };
}

async function ingest(
  transaction: Transaction,
  { entry, blob }: { entry: TarEntry; blob: BlobId },
  { signal, onProgress }: ImportOptions,
): Promise<void> {
  const report = reportBytes(onProgress, { id: blob.digest, phase: "importing" });
  await transaction.ingestStream(entry.body, {
    expected: blob,
    signal,
    onBytes: (done) => report(done, blob.size),
  });
}

/** Before the first model is entered: an archive comes in whole or not at all. What is in the store stays until then. */
async function requireBlobs(
  transaction: Transaction,
  { sizes }: ArchiveContents,
  { blobs, name }: FoundModel,
): Promise<void> {
  for (const blob of blobs) {
    const archived = sizes.get(blob.digest);
    if (archived === undefined ? await transaction.claim(blob) : archived === blob.size) continue;
    if (archived !== undefined) {
      throw unreadable(
        `its manifest of \`${name}\` gives a blob ${blob.size} bytes, and it has ${archived}`,
      );
    }
    throw new AppError(
      "blob_not_found",
      `cannot import \`${name}\`: \`${blob.digest}\` is neither in the archive nor in the store`,
      {
        hint: "If it was exported with `--missing-from`, import first what it was exported against; else export it again.",
      },
    );
  }
}

function unreadable(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot import the archive: ${reason}`, {
    hint: "Give an archive of models, as `tug export` or `docker model package` writes it.",
  });
}
