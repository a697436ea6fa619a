/** What an engine prints, on disk, within a bound. */
import { mkdir, open, rename, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

import { toAppError } from "../errors.ts";
import { log } from "../log.ts";

/** A loud engine prints some kilobytes a request: days of a busy one. With the file before it, twice this a slot. */
const MAX_LOG_BYTES = 8 * 1024 * 1024;

/**
 * Appends to `path` and, when that has grown to the limit, goes on in a new one: the one before is kept as `<path>.1`.
 * A disk that refuses (full, read-only) costs the log only: it is reported once, and writing becomes a no-op.
 */
export class LogFile implements AsyncDisposable {
  readonly #path: string;
  readonly #maxBytes: number;
  #file: FileHandle | undefined;
  #sizeBytes = 0;
  #isBroken = false;
  /** One write at a time: two streams of one engine end up here. */
  #tail: Promise<void> = Promise.resolve();

  /** Touches nothing before the first write. */
  constructor(path: string, options: { readonly maxBytes?: number } = {}) {
    this.#path = path;
    this.#maxBytes = options.maxBytes ?? MAX_LOG_BYTES;
  }

  /** Resolves when the bytes are with the system. Never rejects. */
  write(chunk: Uint8Array): Promise<void> {
    this.#tail = this.#tail.then(() => this.#write(chunk)).catch((thrown) => this.#giveUp(thrown));
    return this.#tail;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tail;
    await this.#close();
  }

  // --- internal ---

  async #write(chunk: Uint8Array): Promise<void> {
    if (this.#isBroken) return;
    if (this.#file === undefined || this.#sizeBytes >= this.#maxBytes) await this.#rotate();
    await this.#file?.write(chunk);
    this.#sizeBytes += chunk.length;
  }

  async #rotate(): Promise<void> {
    await this.#close();
    await mkdir(dirname(this.#path), { recursive: true });
    // There is nothing to keep the first time.
    await rename(this.#path, `${this.#path}.1`).catch(() => undefined);
    this.#file = await open(this.#path, "w", 0o600);
    this.#sizeBytes = 0;
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => undefined);
  }

  async #giveUp(thrown: unknown): Promise<void> {
    this.#isBroken = true;
    await this.#close();
    log.warn(`runtime: engine log lost path=${this.#path} reason=${toAppError(thrown).message}`);
  }
}
