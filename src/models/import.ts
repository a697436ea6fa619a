/** Reads a model from a tar archive: Docker Model Runner's, or any OCI image layout with one model in it. */
import type { ProgressListener } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import { type Digest, digestOf, parseDigest, tryParseDigest } from "../oci/digest.ts";
import { MAX_MANIFEST_BYTES, parseManifest } from "../oci/manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_CONFIG_V02,
  MODELPACK_CONFIG,
  REF_NAME,
} from "../oci/media-types.ts";
import { type Reference, parseReference } from "../oci/reference.ts";
import type { Store, StoredModel, Transaction } from "../store/store.ts";
import { reportBytes } from "./progress.ts";
import { type TarEntry, readTar } from "./tar.ts";

/** A layer, a manifest, a config and a few names make an entry each. */
const MAX_ENTRIES = 40_000;
const BLOB_NAME = /^(?:\.\/)?(?:blobs|manifests)\/sha256\/(?<hex>[0-9a-f]{64})$/;
const CONFIG_TYPES: readonly string[] = [DOCKER_CONFIG_V01, DOCKER_CONFIG_V02, MODELPACK_CONFIG];

export interface ImportOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener;
}

/**
 * Every blob is checked against the digest in its name. The model gets the tags that the archive names, if any; they
 * move from other models.
 *
 * @throws invalid_model_file, unsupported_model, digest_mismatch, insufficient_storage
 */
export async function importModel(
  store: Store,
  chunks: AsyncIterable<Uint8Array>,
  options: ImportOptions,
): Promise<StoredModel> {
  await using transaction = await store.begin();
  const contents = await readContents(transaction, chunks, options);
  const manifest = await findManifest(store, contents);
  requireModel(manifest);
  options.signal.throwIfAborted();
  const [first, ...others] = tagsOf(contents.index, digestOf(manifest));
  const model = await transaction.commit(manifest, first);
  for (const tag of others) await store.tag(model.digest, tag);
  return others.length === 0 ? model : await store.resolve(model.digest);
}

// --- internal ---

interface Contents {
  readonly sizes: ReadonlyMap<Digest, number>;
  readonly manifest: Uint8Array | undefined;
  readonly index: unknown;
}

async function readContents(
  transaction: Transaction,
  chunks: AsyncIterable<Uint8Array>,
  options: ImportOptions,
): Promise<Contents> {
  const sizes = new Map<Digest, number>();
  let manifest: Uint8Array | undefined;
  let index: unknown;
  let entries = 0;
  for await (const entry of readTar(chunks)) {
    options.signal.throwIfAborted();
    entries += 1;
    if (entries > MAX_ENTRIES) throw unreadable(`it has more than ${MAX_ENTRIES} entries`);
    if (entry.name.split("/").includes("..")) throw unreadable("a name in it leads out of it");
    if (entry.kind !== "file") continue;
    const name = entry.name.replace(/^\.\//, "");
    const hex = BLOB_NAME.exec(name)?.groups?.["hex"];
    if (hex !== undefined) {
      const blob = { digest: parseDigest(`sha256:${hex}`), size: entry.size };
      await ingest(transaction, { entry, blob }, options);
      sizes.set(blob.digest, blob.size);
    } else if (name === "manifest.json") {
      manifest = await readSmall(entry);
    } else if (name === "index.json") {
      index = tryParseJson(await readSmall(entry));
    }
  }
  return { sizes, manifest, index };
}

async function ingest(
  transaction: Transaction,
  { entry, blob }: { entry: TarEntry; blob: { digest: Digest; size: number } },
  { signal, onProgress }: ImportOptions,
): Promise<void> {
  const report = reportBytes(onProgress, { id: blob.digest, phase: "importing" });
  await transaction.ingestStream(entry.body, {
    expected: blob,
    signal,
    onBytes: (done) => report(done, blob.size),
  });
}

async function readSmall(entry: TarEntry): Promise<Uint8Array> {
  if (entry.size > MAX_MANIFEST_BYTES) throw unreadable(`its \`${entry.name}\` is too large`);
  const parts: Uint8Array[] = [];
  for await (const part of entry.body) parts.push(Uint8Array.from(part));
  return Buffer.concat(parts);
}

/** `manifest.json` is Docker Model Runner's; docker save has a file of that name too, which is a list. */
async function findManifest(store: Store, contents: Contents): Promise<Uint8Array> {
  const { manifest, index, sizes } = contents;
  if (manifest !== undefined && isRecord(tryParseJson(manifest))) return manifest;
  const digests = new Set(manifestsOf(index).map(({ digest }) => String(digest)));
  const [digest] = [...digests].map(tryParseDigest);
  const size = digest === undefined ? undefined : sizes.get(digest);
  if (digests.size > 1) throw unreadable(`it holds ${digests.size} models`);
  if (digest === undefined || size === undefined) throw unreadable("it has no manifest");
  return store.readBlob({ digest, size }, { maxBytes: MAX_MANIFEST_BYTES });
}

function requireModel(bytes: Uint8Array): void {
  const { config } = parseManifest(bytes);
  if (CONFIG_TYPES.includes(config.mediaType)) return;
  const type = config.mediaType.slice(0, 200);
  throw new AppError("unsupported_model", `cannot import the archive: \`${type}\` is no model`, {
    hint: "Give an archive of a model, as `docker model package` or Tug's export writes it.",
  });
}

/** A name that is no reference of ours, such as the bare tag that other tools write, is no tag here. */
function tagsOf(index: unknown, model: Digest): Reference[] {
  return manifestsOf(index).flatMap(({ annotations, digest }) => {
    // A name of something else says nothing of this model.
    if (digest !== model) return [];
    const name = isRecord(annotations) ? annotations[REF_NAME] : undefined;
    if (typeof name !== "string" || !name.includes("/")) return [];
    try {
      const { registry, repository, tag } = parseReference(name);
      return tag === undefined ? [] : [{ registry, repository, tag }];
    } catch {
      return [];
    }
  });
}

function manifestsOf(index: unknown): Record<string, unknown>[] {
  const manifests = isRecord(index) ? index["manifests"] : undefined;
  return Array.isArray(manifests) ? manifests.filter(isRecord) : [];
}

function tryParseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

function unreadable(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot import the archive: ${reason}`, {
    hint: "Give an archive of one model, as `docker model package` or Tug's export writes it.",
  });
}
