/** Hashes what lies on disk while other bytes arrive, in slices that do not hold up anybody. */
import { AppError } from "../errors.ts";
import type { PartialBlob } from "../store/store.ts";

/** Without a thread, the event loop is not held for longer than this and the hashing of one piece. Milliseconds. */
const SLICE_MS = 2;

/** A disk that loses so much of one blob will not keep it. */
const MAX_LOSSES = 100;

export class Frontier {
  readonly #partial: PartialBlob;
  readonly #signal: AbortSignal;
  #running: Promise<void> | undefined;
  #losses = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(partial: PartialBlob, signal: AbortSignal) {
    this.#partial = partial;
    this.#signal = signal;
  }

  /** Begins to hash if there is something to hash. */
  advance(): void {
    if (this.#running !== undefined || !this.#partial.canHash) return;
    this.#running = this.#run().finally(() => (this.#running = undefined));
  }

  /**
   * Waits until everything is hashed that can be.
   *
   * @throws insufficient_storage, what reading the file threw, the signal's reason
   */
  async settle(): Promise<void> {
    this.advance();
    await this.#running;
    this.#signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #run(): Promise<void> {
    try {
      let until = performance.now() + SLICE_MS;
      while (await this.#hashNext()) {
        if (performance.now() < until) continue;
        await nextTurn();
        until = performance.now() + SLICE_MS;
      }
    } catch (error) {
      this.#failure = { error };
    }
  }

  async #hashNext(): Promise<boolean> {
    if (this.#signal.aborted) return false;
    const lost = await this.#partial.hashNext();
    if (lost !== undefined && lost.end > lost.start) this.#losses += 1;
    if (this.#losses <= MAX_LOSSES) return lost !== undefined;
    throw new AppError(
      "insufficient_storage",
      `cannot store blob \`${this.#partial.blob.digest}\`: the disk does not keep what is written to it`,
      { hint: "Check the disk, or set MODELS_PATH to a directory on another one." },
    );
  }
}

/** Lets everything else happen first. */
export function nextTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  return promise;
}
