/** Fetches blobs into the store: by ranges, in parallel, resumably, each digest once. */
import type { BlobSource } from "../http/blob-source.ts";
import { pause } from "../pause.ts";
import type { BlobId, Transaction } from "../store/store.ts";
import type { TransferEnvironment } from "./blob-transfer.ts";
import { SharedTransfer } from "./shared-transfer.ts";
import { Slots } from "./slots.ts";
import { TokenBucket } from "./token-bucket.ts";
import { type TransferTuning, TUNING } from "./tuning.ts";

export interface TransferLimits {
  /** Connections at once over all blobs; each blob uses at most 8. */
  readonly connections: number;
  /** Over all blobs; undefined: no limit. */
  readonly bytesPerSecond: number | undefined;
}

export interface FetchOptions {
  /** In the order in which they are asked. */
  readonly sources: readonly BlobSource[];
  readonly signal: AbortSignal;
  /** Bytes on disk of this blob, those of earlier attempts included. It goes back when bytes turn out to be wrong. */
  readonly onBytes?: (done: number) => void;
  /** `waiting` while another process fetches it, `downloading`, `verifying`, `repairing`. */
  readonly onPhase?: (phase: string) => void;
}

/** What is in flight together: shares the connections and the rate limit. */
export interface Transfers {
  /**
   * Brings one blob into the store and pins it for the transaction. One that is there already costs nothing.
   *
   * @returns how many bytes came over the network
   * @throws digest_mismatch (after repair; the next attempt starts anew), insufficient_storage, not_found,
   *         registry_unavailable, cancelled
   */
  fetch(
    transaction: Transaction,
    blob: BlobId,
    options: FetchOptions,
  ): Promise<{ fetchedBytes: number }>;
}

/** @param tuning for tests */
export function createTransfers(
  limits: TransferLimits,
  tuning: Partial<TransferTuning> = {},
): Transfers {
  const environment = createEnvironment(limits, { ...TUNING, ...tuning });
  /** By store and digest. */
  const running = new Map<string, SharedTransfer>();

  return {
    async fetch(transaction, blob, options) {
      options.signal.throwIfAborted();
      if (await transaction.claim(blob)) {
        options.onBytes?.(blob.size);
        return { fetchedBytes: 0 };
      }
      options.signal.throwIfAborted();
      const key = `${blob.digest} ${blob.size} ${transaction.root}`;
      const known = running.get(key);
      const transfer =
        known === undefined || known.isOver ? new SharedTransfer(blob, environment) : known;
      running.set(key, transfer);
      try {
        return { fetchedBytes: await transfer.join(transaction, options) };
      } finally {
        if (transfer.isOver && running.get(key) === transfer) running.delete(key);
      }
    },
  };
}

// --- internal ---

/** A timer that is set to more goes off at once. Milliseconds. */
const MAX_PAUSE_MS = 2 ** 31 - 1;

/** A limited transfer that takes four fifths of what it may is not slow. */
const NEAR_LIMIT = 0.8;

function createEnvironment(
  { connections, bytesPerSecond }: TransferLimits,
  tuning: TransferTuning,
): TransferEnvironment {
  const slots = new Slots(connections);
  const partials: TransferEnvironment["partials"] = new Set();
  const threaded: TransferEnvironment["threaded"] = new Set();
  if (bytesPerSecond === undefined)
    return { slots, partials, threaded, tuning, pace: () => Promise.resolve(false) };
  const bucket = new TokenBucket(bytesPerSecond, performance.now());
  const fastBytesPerSecond = Math.min(tuning.fastBytesPerSecond, bytesPerSecond * NEAR_LIMIT);
  return {
    slots,
    partials,
    threaded,
    tuning: { ...tuning, fastBytesPerSecond },
    pace: async (bytes, signal) => {
      const waitMs = bucket.take(bytes, performance.now());
      if (waitMs > 0) await pause(Math.min(waitMs, MAX_PAUSE_MS), signal);
      return waitMs > 0;
    },
  };
}
