/** The beginning and the end of an answer, copied as it passes: some tens of nanoseconds a token. */

/** The last events of a stream, with its usage, are shorter. Bytes. */
const TAIL_BYTES = 16 * 1024;
/** The very last one is, where there is no room for more. Bytes. */
const SHORT_TAIL_BYTES = 2 * 1024;
/** Room comes in these sizes, so that it can be used again. Bytes; the last is the most that anybody keeps. */
const SIZES = [4, 16, 64, 256, 1024].map((kibibytes) => kibibytes * 1024);
/** Some hundred answers at once in full, or eight of the longest; a thousand have as little as their ends. Bytes. */
const POOL_BYTES = 8 * 1024 * 1024;
/** Of each size, for the next answers: as many as are given at once. Left to the collector they would pile up for seconds. */
const MAX_SPARE = 16;
/** Longer answers are rare. Bytes. */
const MAX_SPARE_BYTES = 64 * 1024;

/** What all answers that are kept at the same time may take. */
export class AnswerPool {
  readonly #spare = new Map<number, Uint8Array<ArrayBuffer>[]>();
  #freeBytes: number;

  constructor(bytes: number = POOL_BYTES) {
    this.#freeBytes = bytes;
  }

  /** @returns at least so many bytes, whatever is in them; undefined if others have them */
  take(bytes: number): Uint8Array<ArrayBuffer> | undefined {
    const size = SIZES.find((one) => one >= bytes) ?? bytes;
    if (size > this.#freeBytes) return undefined;
    this.#freeBytes -= size;
    return this.#spare.get(size)?.pop() ?? new Uint8Array(size);
  }

  /** Nobody reads them any more. */
  give(room: Uint8Array<ArrayBuffer>): void {
    const { byteLength } = room;
    this.#freeBytes += byteLength;
    if (byteLength === 0 || byteLength > MAX_SPARE_BYTES) return;
    const spare = this.#spare.get(byteLength) ?? [];
    if (spare.length < MAX_SPARE) spare.push(room);
    this.#spare.set(byteLength, spare);
  }
}

const NOTHING = new Uint8Array(0);

export class AnswerBuffer implements Disposable {
  readonly #pool: AnswerPool;
  #maxBytes: number;
  #tailLimit = TAIL_BYTES;
  #head: Uint8Array<ArrayBuffer> = NOTHING;
  #headBytes = 0;
  #tail: Uint8Array[] = [];
  #tailBytes = 0;
  #bytes = 0;

  /** @param maxBytes kept of its beginning, if the pool has as much; beyond, its last 16 KiB, or 2 KiB */
  constructor(maxBytes: number, pool: AnswerPool = new AnswerPool()) {
    this.#maxBytes = maxBytes;
    this.#pool = pool;
  }

  /** Its room is for others: nothing of it is kept any more. */
  [Symbol.dispose](): void {
    this.#pool.give(this.#head);
    this.#head = NOTHING;
    this.#headBytes = 0;
    this.#tail = [];
    this.#tailBytes = 0;
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
    const larger = this.#pool.take(needed);
    if (larger === undefined) {
      this.#maxBytes = this.#headBytes;
      this.#tailLimit = SHORT_TAIL_BYTES;
      return false;
    }
    larger.set(this.#head.subarray(0, this.#headBytes));
    this.#pool.give(this.#head);
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
