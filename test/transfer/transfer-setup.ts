import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { digestOf } from "../../src/oci/digest.ts";
import { type BlobId, Store } from "../../src/store/store.ts";
import {
  createTransfers,
  type FetchOptions,
  type Transfers,
} from "../../src/transfer/transfers.ts";
import type { TransferTuning } from "../../src/transfer/tuning.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const KIB = 1024;

/** Small numbers, and no waiting between attempts. */
const FAST_TUNING: Partial<TransferTuning> = {
  stallMs: 150,
  largeBytes: 64 * KIB,
  fastBytesPerSecond: Number.POSITIVE_INFINITY,
  sampleMs: 20,
  longestSpanBytes: 256 * KIB,
  shortestSpanBytes: 64 * KIB,
  coolDownMs: 60_000,
  pollMs: 2,
  repairBytes: 256 * KIB,
  wait: (ms) => Bun.sleep(Math.min(ms, 2)),
};

/** Bytes without a pattern, the same for the same seed. */
export function randomBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

export function idOf(bytes: Uint8Array): BlobId {
  return { digest: digestOf(bytes), size: bytes.length };
}

export interface Setup extends AsyncDisposable {
  readonly store: Store;
  readonly transfers: Transfers;
  /** Fetches in a transaction of its own, which is over when it returns. */
  fetch(
    blob: BlobId,
    options: Partial<FetchOptions> & Pick<FetchOptions, "sources">,
  ): Promise<number>;
  /** Of `ingest`, by the ends of their names. */
  leftovers(): Promise<string[]>;
  /** Where a file of the partial blob is. */
  partial(blob: BlobId, kind: "part" | "journal" | "lock"): string;
}

export async function transferSetup(
  options: Partial<TransferTuning> & {
    readonly connections?: number;
    readonly bytesPerSecond?: number;
    /** A directory of its own unless given. */
    readonly root?: string;
  } = {},
): Promise<Setup> {
  const directory = await tempDir();
  const { connections = 8, bytesPerSecond, root, ...tuning } = options;
  const store = Store.open(root ?? join(directory.path, "store"));
  const transfers = createTransfers({ connections, bytesPerSecond }, { ...FAST_TUNING, ...tuning });
  const ingest = join(store.root, "ingest");
  return {
    store,
    transfers,
    fetch: async (blob, fetchOptions) => {
      await using transaction = await store.begin();
      const signal = new AbortController().signal;
      return (await transfers.fetch(transaction, blob, { signal, ...fetchOptions })).fetchedBytes;
    },
    leftovers: async () =>
      (await readdir(ingest)).map((name) => name.slice(name.indexOf("."))).toSorted(),
    partial: (blob, kind) => join(ingest, `${blob.digest.slice(7)}.${kind}`),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}
