/** Reading a body chunk by chunk, with an eye on the clock. */
import { AppError } from "../errors.ts";
import type { BlobBody } from "../http/blob-source.ts";

/** A body that is complete should end; one that does not is left. Milliseconds. */
const END_MS = 1000;

/** What Bun's and Node's types of a reader have in common. */
interface ChunkReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

export class BodyReader {
  readonly #reader: ChunkReader;
  readonly #host: string;
  readonly #stallMs: number;
  readonly #signal: AbortSignal;
  readonly #leave = (): void => this.cut();
  #timer: Timer | undefined;
  /** When the read that is under way began, or the timer was set; undefined while nobody reads. */
  #readingSince: number | undefined;
  #hasStalled = false;
  #isCut = false;
  #hasEnded = false;

  constructor(
    { body }: BlobBody,
    options: { readonly host: string; readonly stallMs: number; readonly signal: AbortSignal },
  ) {
    this.#reader = body.getReader();
    this.#host = options.host;
    this.#stallMs = options.stallMs;
    this.#signal = options.signal;
    this.#signal.addEventListener("abort", this.#leave, { once: true });
    this.#watch(this.#stallMs);
  }

  /**
   * The next bytes; undefined when the body ends, or was cut.
   *
   * @throws registry_unavailable if it stalls or breaks, the signal's reason
   */
  async read(): Promise<Uint8Array | undefined> {
    this.#signal.throwIfAborted();
    if (this.#isCut) return undefined;
    this.#readingSince = performance.now();
    try {
      const { done, value } = await this.#reader.read();
      if (this.#hasStalled) throw this.#stalled();
      this.#signal.throwIfAborted();
      this.#hasEnded = done;
      return done ? undefined : value;
    } catch (error) {
      this.#signal.throwIfAborted();
      if (error instanceof AppError) throw error;
      if (this.#isCut) return undefined;
      throw this.#broken(error);
    } finally {
      this.#readingSince = undefined;
    }
  }

  /** Leaves the body: whoever reads now gets undefined. */
  cut(): void {
    if (this.#isCut || this.#hasEnded) return;
    this.#isCut = true;
    // Not awaited: cancelling a body whose connection hangs may take as long as the connection.
    this.#reader.cancel().catch(() => undefined);
  }

  /**
   * All that was wanted has come. A body that ends here leaves a connection that can be used again; one that goes on is cut.
   */
  end(): void {
    this.#stop();
    if (this.#isCut || this.#hasEnded) return;
    const timer = setTimeout(() => this.cut(), END_MS);
    this.#reader
      .read()
      .then(({ done }) => (done ? undefined : this.cut()))
      .catch(() => undefined)
      .finally(() => clearTimeout(timer));
  }

  /** Leaves the body if it has not ended. */
  close(): void {
    this.#stop();
    this.cut();
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#signal.removeEventListener("abort", this.#leave);
  }

  #watch(ms: number): void {
    this.#timer = setTimeout(() => {
      const idleMs = this.#readingSince === undefined ? 0 : performance.now() - this.#readingSince;
      if (idleMs < this.#stallMs - 1) return this.#watch(this.#stallMs - idleMs);
      this.#hasStalled = true;
      this.cut();
    }, ms);
  }

  #stalled(): AppError {
    return new AppError(
      "registry_unavailable",
      `cannot read from \`${this.#host}\`: not a byte came for ${this.#stallMs / 1000} seconds`,
      { hint: "Check the network and try again: what was fetched is kept." },
    );
  }

  #broken(cause: unknown): AppError {
    return new AppError(
      "registry_unavailable",
      `cannot read from \`${this.#host}\`: the connection broke off`,
      { hint: "Check the network and try again: what was fetched is kept.", cause },
    );
  }
}
