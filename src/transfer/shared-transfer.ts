/** One transfer for all in this process who want the same blob: it goes on for as long as somebody waits for it. */
import { assert } from "../errors.ts";
import type { BlobId, Transaction } from "../store/store.ts";
import { BlobTransfer, type TransferEnvironment } from "./blob-transfer.ts";
import type { FetchOptions } from "./transfers.ts";

interface Waiter {
  readonly transaction: Transaction;
  readonly options: FetchOptions;
}

export class SharedTransfer {
  readonly #waiters = new Set<Waiter>();
  readonly #stop = new AbortController();
  readonly #transfer: BlobTransfer;
  #result: Promise<number> | undefined;
  #isSettled = false;
  #phase: string | undefined;
  #doneBytes = 0;

  constructor(blob: BlobId, environment: TransferEnvironment) {
    this.#transfer = new BlobTransfer(blob, environment, {
      transaction: () => this.#anyone().transaction,
      onBytes: (done) => {
        this.#doneBytes = done;
        for (const { options } of this.#waiters) options.onBytes?.(done);
      },
      onPhase: (phase) => {
        if (phase === this.#phase) return;
        this.#phase = phase;
        for (const { options } of this.#waiters) options.onPhase?.(phase);
      },
    });
  }

  /** Whether it has ended, or is about to because nobody waits any more: who comes now needs another one. */
  get isOver(): boolean {
    return this.#isSettled || this.#stop.signal.aborted;
  }

  /**
   * Waits for the blob. The transaction has claimed it.
   *
   * @returns bytes that came over the network; for all but one of those who wait 0, because they came once
   * @throws what the transfer throws, the reason of the waiter's own signal
   */
  async join(transaction: Transaction, options: FetchOptions): Promise<number> {
    const waiter = { transaction, options };
    this.#waiters.add(waiter);
    this.#transfer.addSources(options.sources);
    if (this.#phase !== undefined) options.onPhase?.(this.#phase);
    if (this.#doneBytes > 0) options.onBytes?.(this.#doneBytes);
    this.#result ??= this.#transfer.run(this.#stop.signal).finally(() => (this.#isSettled = true));
    try {
      const fetchedBytes = await orAbort(this.#result, options.signal);
      return waiter === this.#anyone() ? fetchedBytes : 0;
    } catch (error) {
      this.#waiters.delete(waiter);
      if (this.#waiters.size === 0 && options.signal.aborted) await this.#abandon();
      throw error;
    }
  }

  #anyone(): Waiter {
    const [first] = this.#waiters;
    assert(first !== undefined, "a transfer has somebody who waits for it");
    return first;
  }

  /** Ends when what was fetched is safe: the caller may be about to leave the process. */
  async #abandon(): Promise<void> {
    this.#stop.abort();
    await this.#result?.catch(() => undefined);
  }
}

// --- internal ---

async function orAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
