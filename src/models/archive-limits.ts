/** What an archive may make of little: bounds for entries that nobody needs and for compression. */
import { AppError } from "../errors.ts";
import type { TarEntry } from "../archive/tar.ts";

/** A layer, a manifest, a config and a few names make an entry each. */
const MAX_ENTRIES = 40_000;
/** Of files that are no part of a layout: a note somebody put there, not a hundred gigabytes to wade through. Bytes. */
const MAX_IGNORED_BYTES = 1024 * 1024 * 1024;
/** Weights shrink to a third at best; test files of zeros, however large, are not what is imported. */
const MAX_RATIO = 200;
/** Below this nothing is a bomb. Bytes. */
const FREE_BYTES = 4 * 1024 * 1024 * 1024;

/** Counts while an archive is read. Its methods throw invalid_model_file when a bound is passed. */
export class ArchiveLimits {
  #packedBytes = 0;
  #unpackedBytes = 0;
  #ignoredBytes = 0;
  #entries = 0;

  readonly #freeBytes: number;
  readonly #maxIgnoredBytes: number;

  /** @param options smaller bounds, for tests */
  constructor(options: { readonly freeBytes?: number; readonly maxIgnoredBytes?: number } = {}) {
    this.#freeBytes = options.freeBytes ?? FREE_BYTES;
    this.#maxIgnoredBytes = options.maxIgnoredBytes ?? MAX_IGNORED_BYTES;
  }

  /** The archive as it comes. */
  async *packed(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      this.#packedBytes += chunk.length;
      yield chunk;
    }
  }

  /** What decompression makes of it. */
  async *unpacked(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      this.#unpackedBytes += chunk.length;
      if (this.#unpackedBytes > this.#freeBytes + this.#packedBytes * MAX_RATIO) {
        throw refused(`it unpacks to more than ${MAX_RATIO} times its size`);
      }
      yield chunk;
    }
  }

  count({ name }: TarEntry): void {
    this.#entries += 1;
    if (this.#entries > MAX_ENTRIES) throw refused(`it has more than ${MAX_ENTRIES} entries`);
    if (name.split("/").includes("..")) throw refused("a name in it leads out of it");
  }

  /** An entry that is no part of a layout. */
  ignore({ size }: TarEntry): void {
    this.#ignoredBytes += size;
    if (this.#ignoredBytes > this.#maxIgnoredBytes) {
      throw refused("most of it is no part of a model");
    }
  }
}

// --- internal ---

function refused(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot import the archive: ${reason}`, {
    hint: "Give an archive of models, as `tug export` or `docker model package` writes it.",
  });
}
