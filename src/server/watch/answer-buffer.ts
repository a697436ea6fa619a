/** The beginning and the end of an answer, copied as it passes: some tens of nanoseconds a token. */

/** The last events of a stream, with its usage, are shorter. Bytes. */
const TAIL_BYTES = 16 * 1024;
const FIRST_BYTES = 4096;

export class AnswerBuffer {
  readonly #maxBytes: number;
  #head = new Uint8Array(0);
  #headBytes = 0;
  #tail: Uint8Array[] = [];
  #tailBytes = 0;
  #bytes = 0;

  /** @param maxBytes kept of its beginning; beyond, its last 16 KiB */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  add(chunk: Uint8Array): void {
    const { byteLength } = chunk;
    this.#bytes += byteLength;
    if (this.#tailBytes > 0 || this.#headBytes + byteLength > this.#maxBytes) {
      this.#addToTail(chunk);
      return;
    }
    const needed = this.#headBytes + byteLength;
    if (needed > this.#head.byteLength) this.#grow(needed);
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

  #grow(needed: number): void {
    const size = Math.min(this.#maxBytes, Math.max(FIRST_BYTES, 2 * needed));
    const larger = new Uint8Array(size);
    larger.set(this.#head.subarray(0, this.#headBytes));
    this.#head = larger;
  }

  #addToTail(chunk: Uint8Array): void {
    const room = this.#maxBytes - this.#headBytes;
    const rest = this.#tailBytes === 0 && room > 0 ? this.#fill(chunk, room) : chunk;
    // What is longer than all that is kept is kept by its own end.
    const end = rest.slice(-TAIL_BYTES);
    this.#tail.push(end);
    this.#tailBytes += end.byteLength;
    while (this.#tailBytes - (this.#tail[0]?.byteLength ?? 0) >= TAIL_BYTES) {
      this.#tailBytes -= this.#tail.shift()?.byteLength ?? 0;
    }
  }

  /** @returns what did not fit */
  #fill(chunk: Uint8Array, room: number): Uint8Array {
    this.#grow(this.#maxBytes);
    this.#head.set(chunk.subarray(0, room), this.#headBytes);
    this.#headBytes = this.#maxBytes;
    return chunk.subarray(room);
  }
}
