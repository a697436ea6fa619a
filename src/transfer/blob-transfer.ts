/** Brings one blob from its sources into the store, for all who wait for it. */
import type { BlobSource, ByteRange } from "../http/blob-source.ts";
import { log } from "../log.ts";
import type { BlobId, PartialBlob, Transaction } from "../store/store.ts";
import { Download } from "./download.ts";
import { Frontier } from "./frontier.ts";
import { groupRanges, repair } from "./repair.ts";
import type { Slots } from "./slots.ts";
import { SourceList } from "./source-list.ts";
import type { TransferTuning } from "./tuning.ts";

/** So much left to hash takes so long that people want to know. Bytes. */
const LONG_HASH_BYTES = 64 * 1024 * 1024;

/** More of them only share the processor that the connections need too. */
const MAX_THREADS = 2;

/** In this order of suspicion: what broke off or came from a mirror; what an earlier attempt left. */
const DOUBTFUL = 2;
const RESUMED = 1;

export interface TransferEnvironment {
  readonly slots: Slots;
  readonly tuning: TransferTuning;
  /** See `DownloadDeps`. */
  readonly pace: (bytes: number, signal: AbortSignal) => Promise<boolean>;
  /** What is being written at the moment, for there must be room for all of it. */
  readonly partials: Set<PartialBlob>;
  /** Those that hash in a thread. */
  readonly threaded: Set<BlobTransfer>;
}

export interface TransferEvents {
  /** One of those who wait now; its transaction has claimed the blob. */
  readonly transaction: () => Transaction;
  readonly onBytes: (done: number) => void;
  readonly onPhase: (phase: string) => void;
}

export class BlobTransfer {
  readonly #blob: BlobId;
  readonly #environment: TransferEnvironment;
  readonly #events: TransferEvents;
  readonly #sources: SourceList;

  constructor(blob: BlobId, environment: TransferEnvironment, events: TransferEvents) {
    this.#blob = blob;
    this.#environment = environment;
    this.#events = events;
    this.#sources = new SourceList(blob.digest);
  }

  addSources(sources: readonly BlobSource[]): void {
    this.#sources.add(sources);
  }

  /** @returns bytes that came over the network */
  async run(signal: AbortSignal): Promise<number> {
    for (;;) {
      signal.throwIfAborted();
      const transaction = this.#events.transaction();
      const isThreaded = this.#takeThread();
      try {
        const partial = await transaction.openPartial(this.#blob, { isThreaded });
        if (partial === "present") return 0;
        if (partial !== "busy") return await this.#fetch(partial, signal);
      } finally {
        this.#environment.threaded.delete(this);
      }
      this.#events.onPhase("waiting");
      this.#events.onBytes(await transaction.partialBytes(this.#blob.digest));
      await this.#environment.tuning.wait(this.#environment.tuning.pollMs, signal);
    }
  }

  /** Before anything is awaited: blobs begin together. */
  #takeThread(): boolean {
    const { threaded, tuning } = this.#environment;
    const isThreaded = this.#blob.size >= tuning.threadedBytes && threaded.size < MAX_THREADS;
    if (isThreaded) threaded.add(this);
    return isThreaded;
  }

  async #fetch(opened: PartialBlob, signal: AbortSignal): Promise<number> {
    await using partial = opened;
    const { partials, slots, tuning, pace } = this.#environment;
    const resumed = groupRanges(partial.pieces, Number.POSITIVE_INFINITY);
    const besides = unwrittenBytes(partials);
    partials.add(partial);
    try {
      await partial.requireSpace(besides);
      this.#events.onPhase("downloading");
      this.#events.onBytes(partial.doneBytes);
      const frontier = new Frontier(partial, signal);
      const onProgress = (): void => this.#events.onBytes(partial.doneBytes);
      const sources = this.#sources;
      const shared = { slots, tuning, pace };
      const download = new Download({ ...shared, partial, frontier, sources, signal, onProgress });
      const complete = (): Promise<void> => this.#complete(partial, { download, frontier });
      await complete();
      if ((await partial.digest()) !== this.#blob.digest) {
        this.#events.onPhase("repairing");
        log.debug(`transfer: blob being repaired digest=${this.#blob.digest}`);
        // Whoever sent wrong bytes is asked last.
        sources.reverse();
        const suspicion = suspect(download.doubts.slice(), resumed);
        await repair({ partial, bytes: tuning.repairBytes, suspicion, complete });
      }
      await partial.publish();
      return download.fetchedBytes;
    } finally {
      partials.delete(partial);
    }
  }

  /** Until nothing is missing and everything is hashed. Hashing may find that the disk lost bytes. */
  async #complete(
    partial: PartialBlob,
    { download, frontier }: { download: Download; frontier: Frontier },
  ): Promise<void> {
    for (;;) {
      frontier.advance();
      if (!partial.isWhole) await download.run(partial.missing);
      if (partial.blob.size - partial.hashedBytes > LONG_HASH_BYTES)
        this.#events.onPhase("verifying");
      await frontier.settle();
      this.#events.onBytes(partial.doneBytes);
      if (partial.isWhole && partial.hashedBytes === partial.blob.size) return;
    }
  }
}

// --- internal ---

function meets(ranges: readonly ByteRange[], { start, end }: ByteRange): boolean {
  return ranges.some((other) => other.start < end && start < other.end);
}

function unwrittenBytes(partials: ReadonlySet<PartialBlob>): number {
  let bytes = 0;
  for (const partial of partials) bytes += partial.blob.size - partial.doneBytes;
  return bytes;
}

function suspect(
  doubts: readonly ByteRange[],
  resumed: readonly ByteRange[],
): (range: ByteRange) => number {
  return (range) => (meets(doubts, range) ? DOUBTFUL : 0) + (meets(resumed, range) ? RESUMED : 0);
}
