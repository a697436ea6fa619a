/**
 * The digest of a file that is being written, from its beginning to where it is known without a gap. Inline it takes bytes
 * as they arrive; in a thread it reads them from the page cache, which leaves the processor that receives them free.
 */
import { crc32 } from "node:zlib";
import { readSync } from "node:fs";
import { type Digest, digestOfHex } from "../oci/digest.ts";
import type { Piece } from "./pieces.ts";

/** So often the state of the digest is remembered, so that a repair need not hash all over again. Bytes. */
const SNAPSHOT_BYTES = 64 * 1024 * 1024;

export interface Digester extends Disposable {
  /** Bytes from the beginning that are hashed. */
  readonly hashedBytes: number;
  /** What `hash` gets at once, at most. Bytes; at least one piece. */
  readonly batchBytes: number;
  /** Hashes bytes that follow those that are hashed; undefined where `hash` alone does it. */
  readonly update: ((bytes: Uint8Array) => void) | undefined;
  /**
   * Hashes pieces of the file that follow one another, after checking that their bytes are what was written. What is hashed
   * already is skipped.
   *
   * @returns how many of them are sound, up to the first that is not
   */
  hash(pieces: readonly Readonly<Piece>[]): Promise<number>;
  /** Goes back to before an offset, as little as possible. */
  rewind(to: number): Promise<void>;
  /** Of what is hashed. */
  digest(): Promise<Digest>;
}

export class InlineDigester implements Digester {
  readonly batchBytes = 1;
  readonly #file: number;
  #hasher = new Bun.CryptoHasher("sha256");
  #hashedBytes = 0;
  #snapshots: { readonly offset: number; readonly hasher: Bun.CryptoHasher }[] = [];
  #buffer = new Uint8Array(0);

  /** @param file its descriptor, open for as long as this is used */
  constructor(file: number) {
    this.#file = file;
  }

  get hashedBytes(): number {
    return this.#hashedBytes;
  }

  readonly update = (bytes: Uint8Array): void => {
    this.#hasher.update(bytes);
    this.#hashedBytes += bytes.length;
    if (this.#hashedBytes - (this.#snapshots.at(-1)?.offset ?? 0) >= SNAPSHOT_BYTES)
      this.#snapshots.push({ offset: this.#hashedBytes, hasher: this.#hasher.copy() });
  };

  // Not a word is awaited: between the look at a piece and its hashing nobody may write.
  hash(pieces: readonly Readonly<Piece>[]): Promise<number> {
    for (const [index, { start, end, crc }] of pieces.entries()) {
      if (this.#buffer.length < end - start) this.#buffer = new Uint8Array(end - start);
      const bytes = readAt(this.#file, this.#buffer.subarray(0, end - start), start);
      if (bytes.length !== end - start || crc32(bytes) !== crc) return Promise.resolve(index);
      this.update(bytes.subarray(this.#hashedBytes - start));
    }
    return Promise.resolve(pieces.length);
  }

  rewind(to: number): Promise<void> {
    this.#snapshots = this.#snapshots.filter(({ offset }) => offset <= to);
    const last = this.#snapshots.at(-1);
    this.#hasher = last?.hasher.copy() ?? new Bun.CryptoHasher("sha256");
    this.#hashedBytes = last?.offset ?? 0;
    return Promise.resolve();
  }

  digest(): Promise<Digest> {
    return Promise.resolve(digestOfHex(this.#hasher.copy().digest("hex")));
  }

  [Symbol.dispose](): void {}
}

/** Fills a buffer from a file. @returns fewer bytes where the file ends */
export function readAt(file: number, buffer: Uint8Array, offset: number): Uint8Array {
  let done = 0;
  while (done < buffer.length) {
    const count = readSync(file, buffer, done, buffer.length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return buffer.subarray(0, done);
}
