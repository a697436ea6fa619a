/** The beginning and the end of an answer, copied as it passes: some tens of nanoseconds a token. */

/** The last events of a stream, with its usage, are shorter. Bytes. */
const TAIL_BYTES = 16 * 1024;
/** The very last one is, where there is no room for more. Bytes. */
const SHORT_TAIL_BYTES = 2 * 1024;
const FIRST_BYTES = 4096;
/** Some hundred answers at once in full, or eight of the longest; a thousand have as little as their ends. Bytes. */
const POOL_BYTES = 8 * 1024 * 1024;

/** What all answers that are kept at the same time may take. */
export class AnswerPool {
  #freeBytes: number;

  constructor(bytes: number = POOL_BYTES) {
    this.#freeBytes = bytes;
  }

  take(bytes: number): boolean {
    if (bytes > this.#freeBytes) return false;
    this.#freeBytes -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#freeBytes += bytes;
  }
}

export class AnswerBuffer implements Disposable {
  readonly #pool: AnswerPool;
  #maxBytes: number;
  #tailLimit = TAIL_BYTES;
  #pooledBytes = 0;
  #head = new Uint8Array(0);
  #headBytes = 0;
  #tail: Uint8Array[] = [];
  #tailBytes = 0;
  #bytes = 0;

  /** @param maxBytes kept of its beginning, if the pool has as much; beyond, its last 16 KiB, or 2 KiB */
  constructor(maxBytes: number, pool: AnswerPool = new AnswerPool()) {
    this.#maxBytes = maxBytes;
    this.#pool = pool;
  }

  /** Nothing is added any more, and what was kept is about to be let go: its room is for others. */
  [Symbol.dispose](): void {
    this.#pool.give(this.#pooledBytes);
    this.#pooledBytes = 0;
  }

  add(chunk: Uint8Array): void {
    const { byteLength } = chunk;
    this.#bytes += byteLength;
    const needed = this.#headBytes + byteLength;
    const fits = this.#tailBytes === 0 && needed <= this.#maxBytes;
    if (!fits || (needed > this.#head.byteLength && !this.#grow(needed))) {
      this.#addToTail(chunk);
      return;
    }
    this.#head.set(chunk, this.#headBytes);
    this.#headBytes = needed;
  }

  kept(): {
    readonly head: Uint8Array;
    readonly tail: Uint8Array;
    readonly lostBytes: number;
  } {
    const tail = Buffer.concat(this.#tail);
    return {
      head: this.#head.subarray(0, this.#headBytes),
      tail,
      lostBytes: this.#bytes - this.#headBytes - tail.byteLength,
    };
  }

  // --- internal ---

  /** @returns false if others have what it would need: it keeps what it has */
  #grow(needed: number): boolean {
    const size = Math.min(this.#maxBytes, Math.max(FIRST_BYTES, 2 * needed));
    if (!this.#pool.take(size - this.#head.byteLength)) {
      this.#maxBytes = this.#headBytes;
      this.#tailLimit = SHORT_TAIL_BYTES;
      return false;
    }
    this.#pooledBytes = size;
    const larger = new Uint8Array(size);
    larger.set(this.#head.subarray(0, this.#headBytes));
    this.#head = larger;
    return true;
  }

  #addToTail(chunk: Uint8Array): void {
    const room = this.#maxBytes - this.#headBytes;
    const rest = this.#tailBytes === 0 && room > 0 ? this.#fill(chunk, room) : chunk;
    // What is longer than all that is kept is kept by its own end.
    const end = rest.slice(-this.#tailLimit);
    this.#tail.push(end);
    this.#tailBytes += end.byteLength;
    while (this.#tailBytes - (this.#tail[0]?.byteLength ?? 0) >= this.#tailLimit) {
      this.#tailBytes -= this.#tail.shift()?.byteLength ?? 0;
    }
  }

  /** @returns what did not fit */
  #fill(chunk: Uint8Array, room: number): Uint8Array {
    if (this.#maxBytes > this.#head.byteLength && !this.#grow(this.#maxBytes)) return chunk;
    this.#head.set(chunk.subarray(0, room), this.#headBytes);
    this.#headBytes = this.#maxBytes;
    return chunk.subarray(room);
  }
}
