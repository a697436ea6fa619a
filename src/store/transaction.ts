/** A model on its way into the store. */
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, assert } from "../errors.ts";
import { log } from "../log.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { parseManifest } from "../oci/manifest.ts";
import type { Reference } from "../oci/reference.ts";
import { type BlobId, blobSize, hashFile, listBlobs } from "./blobs.ts";
import { orIfMissing, removeFile } from "./files.ts";
import { enter, readIndex, tagsOf, writeIndex } from "./index-file.ts";
import {
  checkBlob,
  type FileOptions,
  type FileState,
  importFile,
  type IngestResult,
  statFile,
  type StreamOptions,
  writePart,
} from "./ingest.ts";
import { exclusively, type Layout, namesIn } from "./layout.ts";
import { PartialBlob, type PartialBlobOptions } from "./partial-blob.ts";
import { clearFetched, markFetched, partialBytes, tryLockPartial } from "./partial-files.ts";
import type { Pin } from "./pins.ts";
import { isSoundBlob, publishPart } from "./publish.ts";
import { shareFile } from "./share.ts";
import { createModel, type StoredModel, tagOf } from "./stored-model.ts";
import { sweepOnly } from "./sweep.ts";

/**
 * Protects what it ingests from every sweep, in this and other processes, until it is disposed. What was ingested and not
 * committed by then goes away, unless something else refers to it. What was fetched stays, so that a pull that was
 * interrupted can go on; sweeps keep it for a week.
 */
export interface Transaction extends AsyncDisposable {
  /** Absolute path of the store. */
  readonly root: string;
  /** For small blobs: configs, manifests, templates. A damaged blob of this digest is mended. */
  writeBlob(bytes: Uint8Array): Promise<BlobId>;
  /**
   * Stores what the chunks say. If `expected` is given and present already, the chunks are not read.
   *
   * @throws digest_mismatch, insufficient_storage, cancelled
   */
  ingestStream(chunks: AsyncIterable<Uint8Array>, options?: StreamOptions): Promise<BlobId>;
  /**
   * Stores a file, reading it once. A blob that is present already is not copied again.
   *
   * @throws not_found, forbidden, invalid_request, conflict if the file changes meanwhile, digest_mismatch,
   *         insufficient_storage, cancelled
   */
  ingestFile(path: string, options?: FileOptions): Promise<IngestResult>;
  /**
   * Stores a file that belongs to another program: as a clone, else as a hard link, else as a copy. Mode, times and bytes
   * of the file stay as they are.
   *
   * @throws not_found, forbidden, invalid_request, conflict if the file changes meanwhile, digest_mismatch,
   *         insufficient_storage, cancelled
   */
  adoptFile(path: string, expected: BlobId, options?: AdoptOptions): Promise<IngestResult>;
  /**
   * Pins a blob, whether it is there already or is still to come.
   *
   * @returns whether it is there, by its size: its bytes were verified when it came in, and `verify` reads them again
   */
  claim(blob: BlobId): Promise<boolean>;
  /** Pins many at once: what is queued is safe from sweeps as well as what is being fetched. */
  pin(digests: readonly Digest[]): Promise<void>;
  /**
   * Takes the right to fetch a blob, and what an earlier attempt left of it. The caller claims the blob first, and disposes
   * of the partial blob.
   *
   * @returns `present` if the blob is there, `busy` if somebody else fetches it now
   */
  openPartial(
    blob: BlobId,
    options?: PartialBlobOptions,
  ): Promise<PartialBlob | "present" | "busy">;
  /** Bytes on disk of a blob that somebody fetches; 0 if nobody does. */
  partialBytes(digest: Digest): Promise<number>;
  /** Lets a blob that is there outlive the transaction, as one that was fetched: its model is to come within a week. */
  keep(digest: Digest): Promise<void>;
  /**
   * Enters a model into the index, the last step. The blobs it refers to must be present.
   *
   * @param ref its tag is moved to this model; without one the model is untagged
   * @throws blob_not_found, invalid_model_file, unsupported_model, conflict if `ref` has another digest
   */
  commit(manifest: Uint8Array, ref?: Reference): Promise<StoredModel>;
}

export type AdoptOptions = Omit<StreamOptions, "expected">;

export class StoreTransaction implements Transaction {
  readonly root: string;
  readonly #layout: Layout;
  readonly #pin: Pin;
  /** Blobs that this transaction put into the store and that no commit has claimed. */
  readonly #created = new Set<Digest>();
  readonly #claimed = new Set<Digest>();
  #sequence = 0;
  #isOpen = true;

  /** The transaction owns the pin. */
  constructor(layout: Layout, pin: Pin) {
    this.root = layout.root;
    this.#layout = layout;
    this.#pin = pin;
  }

  async writeBlob(bytes: Uint8Array): Promise<BlobId> {
    const expected = { digest: digestOf(bytes), size: bytes.length };
    if (await this.#claimPresent(expected)) {
      const present = await orIfMissing(readFile(this.#layout.blob(expected.digest)), undefined);
      if (present !== undefined && digestOf(present) === expected.digest) return expected;
      await removeFile(this.#layout.blob(expected.digest));
    }
    return this.#write(once(bytes), { expected });
  }

  async ingestStream(
    chunks: AsyncIterable<Uint8Array>,
    options: StreamOptions = {},
  ): Promise<BlobId> {
    const { expected } = options;
    if (expected === undefined || !(await this.#claimSound(expected, options.signal)))
      return this.#write(chunks, options);
    await chunks[Symbol.asyncIterator]().return?.();
    options.onBytes?.(expected.size, expected.size);
    return expected;
  }

  async ingestFile(path: string, options: FileOptions = {}): Promise<IngestResult> {
    options.signal?.throwIfAborted();
    const source = await statFile(path);
    const present = await this.#findPresent(source, options);
    if (present !== undefined) return { ...present, method: "present" };
    const part = this.#nextPart();
    const result = await importFile(part, source, options);
    await this.#publish(part, result);
    return result;
  }

  async adoptFile(
    path: string,
    expected: BlobId,
    options: AdoptOptions = {},
  ): Promise<IngestResult> {
    options.signal?.throwIfAborted();
    if (await this.#claimSound(expected, options.signal)) return { ...expected, method: "present" };
    const source = await statFile(path);
    checkBlob({ digest: expected.digest, size: source.size }, expected);
    const part = this.#nextPart();
    const result = await shareFile(part, source, { ...options, expected });
    await this.#publish(part, result);
    return result;
  }

  async claim({ digest, size }: BlobId): Promise<boolean> {
    assert(this.#isOpen, "a disposed transaction is not used");
    // A pin that is there already keeps sweeps away; without one, the look must come after it.
    await this.pin([digest]);
    return (await blobSize(this.#layout, digest)) === size;
  }

  async pin(digests: readonly Digest[]): Promise<void> {
    const fresh = digests.filter((digest) => !this.#claimed.has(digest));
    if (fresh.length === 0) return;
    await exclusively(this.#layout, async () => this.#pin.add(fresh));
    for (const digest of fresh) this.#claimed.add(digest);
  }

  async openPartial(
    blob: BlobId,
    options: PartialBlobOptions = {},
  ): Promise<PartialBlob | "present" | "busy"> {
    assert(this.#isOpen, "a disposed transaction is not used");
    assert(this.#claimed.has(blob.digest), "a blob is claimed before it is fetched");
    const lock = await exclusively(this.#layout, async () => {
      if ((await blobSize(this.#layout, blob.digest)) === blob.size) return "present";
      return tryLockPartial(this.#layout, blob.digest) ?? "busy";
    });
    if (typeof lock === "string") return lock;
    try {
      return await PartialBlob.open(this.#layout, blob, { ...options, lock });
    } catch (error) {
      lock[Symbol.dispose]();
      throw error;
    }
  }

  async partialBytes(digest: Digest): Promise<number> {
    return partialBytes(this.#layout, digest);
  }

  async keep(digest: Digest): Promise<void> {
    await exclusively(this.#layout, async () => markFetched(this.#layout, digest));
    this.#created.delete(digest);
  }

  async commit(manifest: Uint8Array, ref?: Reference): Promise<StoredModel> {
    const parsed = parseManifest(manifest);
    const { digest, size } = await this.writeBlob(manifest);
    if (ref?.digest !== undefined && ref.digest !== digest) {
      throw new AppError(
        "conflict",
        `cannot store the model as \`${ref.digest}\`: its digest is \`${digest}\``,
      );
    }
    const entered = createModel({ digest, size }, parsed, []);
    const blobs = [parsed.config, ...parsed.layers];
    const tags = await exclusively(this.#layout, async () => {
      for (const blob of blobs) await this.#requireBlob(blob);
      const index = enter(await readIndex(this.#layout), entered.manifestDescriptor, tagOf(ref));
      await writeIndex(this.#layout, index);
      await clearFetched(this.#layout, [digest, ...blobs.map((blob) => blob.digest)]);
      return tagsOf(index, digest);
    });
    for (const blob of [entered, ...blobs]) this.#created.delete(blob.digest);
    log.debug(`store: model committed digest=${digest} tag=${tagOf(ref) ?? "<none>"}`);
    return createModel({ digest, size }, parsed, tags);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#pin[Symbol.asyncDispose]();
    // Whatever fails here is debris that the next sweep finds.
    try {
      const own = (await namesIn(this.#layout.ingest)).filter((name) =>
        name.startsWith(`${this.#pin.id}-`),
      );
      for (const name of own) await removeFile(join(this.#layout.ingest, name));
      if (this.#created.size > 0) await this.#sweepCreated();
    } catch (error) {
      log.debug(
        `store: an abandoned transaction was not cleaned up pin=${this.#pin.id} error=${String(error)}`,
      );
    }
  }

  async #write(chunks: AsyncIterable<Uint8Array>, options: StreamOptions): Promise<BlobId> {
    const part = this.#nextPart();
    const written = await writePart(part, chunks, options);
    await this.#publish(part, written);
    return written;
  }

  /** Turns a finished part into a blob. From here on sweeps see it, and see it pinned. */
  async #publish(part: string, { digest, size }: BlobId): Promise<void> {
    // Before the lock: it may take as long as the disk takes to read it.
    const isSound = await isSoundBlob(this.#layout, { digest, size });
    await exclusively(this.#layout, async () => {
      await this.#pin.add([digest]);
      const isNew = await publishPart(this.#layout, { digest, size }, { part, isSound });
      if (isNew) this.#created.add(digest);
    });
  }

  async #claimSound(blob: BlobId, signal: AbortSignal | undefined): Promise<boolean> {
    return (await this.#claimPresent(blob)) && (await isSoundBlob(this.#layout, blob, signal));
  }

  /** Pins a blob if it is present with the right size. */
  async #claimPresent({ digest, size }: BlobId): Promise<boolean> {
    assert(this.#isOpen, "a disposed transaction is not used");
    if ((await blobSize(this.#layout, digest)) !== size) return false;
    return exclusively(this.#layout, async () => {
      await this.#pin.add([digest]);
      return (await blobSize(this.#layout, digest)) === size;
    });
  }

  /** A blob of the same size makes it likely that the file is stored already: then hashing alone finds out. */
  async #findPresent(source: FileState, options: FileOptions): Promise<BlobId | undefined> {
    const { expected, onBytes, signal } = options;
    if (
      expected !== undefined &&
      expected.size === source.size &&
      (await this.#claimSound(expected, signal))
    ) {
      onBytes?.(source.size, source.size);
      return expected;
    }
    if (!(await this.#hasBlobOfSize(source.size))) return undefined;
    const found = await hashFile(source.path, {
      signal,
      onBytes: (done) => onBytes?.(done, source.size),
    });
    if (expected !== undefined && expected.digest !== found.digest) return undefined;
    return (await this.#claimSound(found, signal)) ? found : undefined;
  }

  async #hasBlobOfSize(size: number): Promise<boolean> {
    for (const digest of await listBlobs(this.#layout)) {
      if (statSync(this.#layout.blob(digest), { throwIfNoEntry: false })?.size === size)
        return true;
    }
    return false;
  }

  async #requireBlob({ digest, size }: Descriptor): Promise<void> {
    const onDisk = await blobSize(this.#layout, digest);
    if (onDisk === size) return;
    const reason = onDisk === undefined ? "is missing" : `has ${onDisk} bytes, not ${size}`;
    throw new AppError(
      "blob_not_found",
      `cannot store the model: its blob \`${digest}\` ${reason}`,
    );
  }

  async #sweepCreated(): Promise<void> {
    await exclusively(this.#layout, async () => {
      await sweepOnly(this.#layout, await readIndex(this.#layout), [...this.#created]);
    });
  }

  #nextPart(): string {
    assert(this.#isOpen, "a disposed transaction is not used");
    this.#sequence += 1;
    return join(this.#layout.ingest, `${this.#pin.id}-${this.#sequence}.part`);
  }
}

// --- internal ---

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
