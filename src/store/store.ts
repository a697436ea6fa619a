/** The models on disk: an OCI image layout. Every write of it goes through here. */
import { rm } from "node:fs/promises";
import { dirname } from "node:path";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Digest } from "../oci/digest.ts";
import { displayReference, type Reference } from "../oci/reference.ts";
import { type BlobId, blobSize, isDamage, readBlob } from "./blobs.ts";
import type { Bundle } from "./bundle.ts";
import {
  EMPTY_INDEX,
  enter,
  type Index,
  type IndexEntry,
  isNamed,
  readIndex,
  tagsOf,
  untag,
  withdraw,
  writeIndex,
} from "./index-file.ts";
import { exclusively, exclusivelyInStore, isStore, isVacant, Layout } from "./layout.ts";
import { findModel, type Match } from "./names.ts";
import { createPin, readPins } from "./pins.ts";
import { byName, loadModel, type StoredModel, tagOf } from "./stored-model.ts";
import { NOTHING_SWEPT, removeTree, sweep, type SweepReport } from "./sweep.ts";
import type { Transaction } from "./transaction.ts";
import { measureUsage, type StoreUsage } from "./usage.ts";
import { type VerifyOptions, type VerifyReport, verifyStore } from "./verify.ts";

export type { BlobId } from "./blobs.ts";
export type { PartialBlob } from "./partial-blob.ts";
export type { StoredModel } from "./stored-model.ts";
export type { Transaction } from "./transaction.ts";
export type { StoreUsage } from "./usage.ts";
export type { VerifyReport } from "./verify.ts";

export type RemoveEvent = { readonly Untagged: string } | { readonly Deleted: string };

export interface PruneReport {
  /** Untagged models removed. */
  readonly models: readonly Digest[];
  readonly blobs: number;
  /** Stale files of interrupted writes. */
  readonly ingests: number;
  readonly bundles: number;
  readonly freedBytes: number;
}

export class Store {
  /** Absolute path of the image layout. */
  readonly root: string;
  readonly #layout: Layout;

  private constructor(root: string) {
    this.root = root;
    this.#layout = new Layout(root);
  }

  /** Touches nothing: a store that is not there is empty, and only writes create it. */
  static open(root: string): Store {
    return new Store(root);
  }

  /** Sorted by display name, then by tag. Models whose manifests cannot be read are left out; `verify` finds them. */
  async list(): Promise<StoredModel[]> {
    const index = await readIndex(this.#layout);
    const models = await Promise.all(
      uniqueEntries(index).map((entry) => this.#tryLoad(index, entry)),
    );
    return models.filter((model) => model !== undefined).toSorted(byName);
  }

  /**
   * Finds a model by reference, digest, 12 or more digits of it, or the last component of its name; `name:tag@digest` is
   * the model of that digest.
   *
   * @throws invalid_reference, model_not_found, conflict if several models fit, digest_mismatch
   */
  async resolve(name: string): Promise<StoredModel> {
    try {
      return await this.#find(name);
    } catch (error) {
      if (!(error instanceof AppError) || error.code !== "blob_not_found") throw error;
    }
    // Another process may have removed it between the look at the index and that at the manifest.
    return this.#find(name);
  }

  /**
   * What a name stands for, by the index alone: also for a model whose manifest is damaged. Names are not completed.
   *
   * @throws invalid_reference, model_not_found
   */
  async find(name: string): Promise<{ digest: Digest; tags: readonly string[] }> {
    const index = await readIndex(this.#layout);
    const { digest } = findModel(index, name, { exact: true }).entry.descriptor;
    return { digest, tags: tagsOf(index, digest) };
  }

  /**
   * Size and digest are verified.
   *
   * @param options.maxBytes refuses larger blobs; 16 MiB unless given
   * @throws blob_not_found, digest_mismatch, request_too_large
   */
  async readBlob(descriptor: BlobId, options: { maxBytes?: number } = {}): Promise<Uint8Array> {
    return readBlob(this.#layout, descriptor, options);
  }

  /** Where a blob is, if it is there. */
  blobPath(digest: Digest): string {
    return this.#layout.blob(digest);
  }

  /** @param size of the blob; whatever it is unless given */
  async hasBlob(digest: Digest, size?: number): Promise<boolean> {
    const found = await blobSize(this.#layout, digest);
    return found !== undefined && (size === undefined || found === size);
  }

  /** Creates the store if need be. The caller disposes of the transaction. */
  async begin(): Promise<Transaction> {
    // Loaded by whoever writes: most commands only read.
    const { StoreTransaction } = await import("./transaction.ts");
    const pin = await exclusivelyInStore(this.#layout, async () =>
      createPin(this.#layout, "transaction"),
    );
    return new StoreTransaction(this.#layout, pin);
  }

  /**
   * Gives a model one more name, taking it from any other model, which may stay untagged.
   *
   * @throws model_not_found, invalid_reference if `ref` has no tag
   */
  async tag(model: Digest, ref: Reference): Promise<void> {
    const tag = tagOf(ref);
    if (tag === undefined)
      throw new AppError("invalid_reference", "cannot tag the model: the new name has no tag");
    await this.#edit(async (index) => {
      const { entry } = findModel(index, model);
      return enter(index, entry.descriptor, tag);
    }, model);
  }

  /**
   * A tag is taken away, and the model with its last one; a digest removes the model with all its tags. Then what nothing
   * refers to any more is swept. Names are not completed here: `pebble` does not remove `me/pebble`.
   *
   * @param options.force remove a model by digest though it has several tags
   * @throws model_not_found, conflict
   */
  async remove(name: string, options: { force: boolean }): Promise<RemoveEvent[]> {
    const events: RemoveEvent[] = [];
    await this.#edit(async (index) => {
      const match = findModel(index, name, { exact: true });
      const remaining = removeMatch(index, match, options.force);
      events.push(...eventsOf(match, index, remaining));
      return remaining;
    }, name);
    await this.#sweep({ dryRun: false, isThorough: false });
    return events;
  }

  /**
   * Removes what interrupted work left, also what a pull could go on with.
   *
   * @param options.all untagged models too
   * @throws conflict if a damaged manifest hides what is in use
   */
  async prune(options: { all: boolean; dryRun: boolean }): Promise<PruneReport> {
    if (!(await isStore(this.#layout))) return { ...NOTHING_SWEPT, models: [] };
    return exclusively(this.#layout, async () => {
      const before = await readIndex(this.#layout);
      const models = options.all ? nameless(before) : [];
      const index = models.reduce(withdraw, before);
      if (!options.dryRun && models.length > 0) await writeIndex(this.#layout, index);
      const { damaged, ...report } = await sweep(this.#layout, {
        index,
        dryRun: options.dryRun,
        isThorough: true,
      });
      if (damaged[0] !== undefined) throw unknownContent(damaged[0], index);
      return { models, ...report };
    });
  }

  /**
   * Removes everything that a store consists of; other files in the directory stay.
   *
   * @throws invalid_request if the directory is not a model store, model_in_use, conflict if a model is being written
   */
  async purge(): Promise<void> {
    if (!(await isStore(this.#layout))) {
      if (await isVacant(this.#layout)) return;
      throw new AppError(
        "invalid_request",
        `cannot purge \`${this.root}\`: it is not a model store`,
        {
          hint: "Check MODELS_PATH and TUG_HOME.",
        },
      );
    }
    await exclusively(this.#layout, async () => {
      await this.#refuseWhilePinned();
      const { index, blobs, bundles, ingest, pins, marker } = this.#layout;
      // The index first and the marker last: whatever is left by a crash is an empty store with debris.
      for (const path of [index, bundles, ingest, pins]) await removeTree(path);
      await removeTree(dirname(blobs));
      await rm(marker, { force: true });
    });
  }

  /** Reads every blob of every model again. @param options.onBytes bytes read, and in total */
  async verify(options: VerifyOptions): Promise<VerifyReport> {
    return verifyStore(this.#layout, options);
  }

  /** What the models take on disk. A byte that several share counts once in the total. */
  async usage(): Promise<StoreUsage> {
    const report = await this.#sweep({ dryRun: true, isThorough: true });
    return measureUsage(this.#layout, report.freedBytes);
  }

  /**
   * The directory an engine opens. It is made once and stays; its blobs are pinned until the bundle is disposed.
   *
   * @param options.configFormat `config.format` of a ModelPack, where the caller knows better than the config blob
   * @throws unsupported_model, blob_not_found, invalid_model_file for unsafe paths
   */
  async openBundle(
    model: StoredModel,
    options: { configFormat?: string; signal?: AbortSignal } = {},
  ): Promise<Bundle & AsyncDisposable> {
    const { openBundle } = await import("./open-bundle.ts");
    return openBundle(this.#layout, model, options);
  }

  async #find(name: string): Promise<StoredModel> {
    const index = await readIndex(this.#layout);
    return loadModel(this.#layout, index, findModel(index, name).entry.descriptor);
  }

  /** Changes the index under the lock. @param name what is to be found in it, for the error if there is no store at all */
  async #edit(change: (index: Index) => Promise<Index>, name: string): Promise<void> {
    if (!(await isStore(this.#layout))) findModel(EMPTY_INDEX, name);
    await exclusivelyInStore(this.#layout, async () => {
      await writeIndex(this.#layout, await change(await readIndex(this.#layout)));
    });
  }

  async #sweep(options: { dryRun: boolean; isThorough: boolean }): Promise<SweepReport> {
    if (!(await isStore(this.#layout))) return NOTHING_SWEPT;
    return exclusively(this.#layout, async () => {
      return sweep(this.#layout, { index: await readIndex(this.#layout), ...options });
    });
  }

  async #tryLoad(index: Index, { descriptor }: IndexEntry): Promise<StoredModel | undefined> {
    try {
      return await loadModel(this.#layout, index, descriptor);
    } catch (error) {
      if (!isDamage(error)) throw error;
      log.debug(
        `store: model left out of the list digest=${descriptor.digest} error=${String(error)}`,
      );
      return undefined;
    }
  }

  async #refuseWhilePinned(): Promise<void> {
    const [pin] = await readPins(this.#layout, { dryRun: true });
    if (pin?.kind === "bundle") {
      throw new AppError("model_in_use", "cannot purge the model store: a model is running", {
        hint: "Run `tug unload --all` first.",
      });
    }
    if (pin !== undefined) {
      throw new AppError(
        "conflict",
        "cannot purge the model store: a model is being written to it",
        {
          hint: "Wait until that has finished.",
        },
      );
    }
  }
}

// --- internal ---

/** Models without any name, also without one that only other programs understand. */
function nameless(index: Index): Digest[] {
  return uniqueEntries(index)
    .map(({ descriptor }) => descriptor.digest)
    .filter((digest) =>
      index.entries.every((entry) => entry.descriptor.digest !== digest || !isNamed(entry)),
    );
}

function uniqueEntries(index: Index): IndexEntry[] {
  return [...new Map(index.entries.map((entry) => [entry.descriptor.digest, entry])).values()];
}

function removeMatch(index: Index, { entry, tag }: Match, force: boolean): Index {
  const { digest } = entry.descriptor;
  const tags = tagsOf(index, digest);
  if (tag !== undefined && tags.length > 1) return untag(index, tag);
  if (tag === undefined && tags.length > 1 && !force) {
    const shown = tags.map((name) => `\`${displayReference(name)}\``).join(", ");
    throw new AppError("conflict", `cannot remove model \`${digest}\`: it has the tags ${shown}`, {
      hint: "Remove one of the tags, or add --force to remove the model with all of them.",
      details: { tags },
    });
  }
  return withdraw(index, digest);
}

function eventsOf({ entry }: Match, before: Index, after: Index): RemoveEvent[] {
  const { digest } = entry.descriptor;
  const left = new Set(tagsOf(after, digest));
  const gone = tagsOf(before, digest).filter((name) => !left.has(name));
  const isDeleted = !after.entries.some(({ descriptor }) => descriptor.digest === digest);
  return [...gone.map((name) => ({ Untagged: name })), ...(isDeleted ? [{ Deleted: digest }] : [])];
}

function unknownContent(digest: Digest, index: Index): AppError {
  const name = tagsOf(index, digest)[0];
  const shown = name === undefined ? digest : displayReference(name);
  return new AppError(
    "conflict",
    `cannot prune blobs: the manifest of \`${shown}\` is damaged, so what it needs is unknown`,
    {
      hint: `Run \`tug rm ${shown}\` and get the model again.`,
    },
  );
}
