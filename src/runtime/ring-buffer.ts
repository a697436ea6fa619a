/** The last bytes of a stream. Appending never allocates more than the capacity. */
export class RingBuffer {
  readonly #bytes: Uint8Array;
  /** Where the next byte goes. */
  #position = 0;
  #isFull = false;

  constructor(capacityBytes: number) {
    this.#bytes = new Uint8Array(capacityBytes);
  }

  append(chunk: Uint8Array): void {
    const capacity = this.#bytes.length;
    const kept = chunk.subarray(Math.max(0, chunk.length - capacity));
    const fitting = Math.min(kept.length, capacity - this.#position);
    this.#bytes.set(kept.subarray(0, fitting), this.#position);
    this.#bytes.set(kept.subarray(fitting), 0);
    this.#isFull ||= this.#position + kept.length >= capacity;
    this.#position = (this.#position + kept.length) % capacity;
  }

  /** Oldest byte first. A character that was cut in two at the start is left out. */
  text(): string {
    const end = this.#bytes.subarray(0, this.#position);
    if (!this.#isFull) return new TextDecoder().decode(end);
    const joined = Buffer.concat([this.#bytes.subarray(this.#position), end]);
    return new TextDecoder().decode(joined.subarray(continuationLength(joined)));
  }
}

// --- internal ---

/** UTF-8 continuation bytes (RFC 3629 section 3) before the first character; at most three belong to one. */
function continuationLength(bytes: Uint8Array): number {
  const start = bytes.findIndex((byte) => (byte & 0xc0) !== 0x80);
  return start >= 0 && start <= 3 ? start : 0;
}
