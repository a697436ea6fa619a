/** A whole body, of which only what is missing is written. */
import type { ByteRange } from "../http/blob-source.ts";
import type { PartialBlob } from "../store/store.ts";

export class GapWriter implements Disposable {
  readonly #partial: PartialBlob;
  /** What is still missing, in order. */
  readonly #gaps: ByteRange[];
  #writer: ReturnType<PartialBlob["writeFrom"]> | undefined;
  #offset = 0;

  constructor(partial: PartialBlob) {
    this.#partial = partial;
    this.#gaps = partial.missing;
  }

  get isDone(): boolean {
    return this.#gaps.length === 0;
  }

  /** Takes the next bytes of the body, which begins at the beginning. */
  write(bytes: Uint8Array): void {
    const [start, end] = [this.#offset, this.#offset + bytes.length];
    this.#offset = end;
    for (let gap = this.#gaps[0]; gap !== undefined && gap.start < end; gap = this.#gaps[0]) {
      const from = Math.max(gap.start, start);
      const to = Math.min(gap.end, end);
      this.#writer ??= this.#partial.writeFrom(from);
      this.#writer.write(bytes.subarray(from - start, to - start));
      if (to < gap.end) return;
      this[Symbol.dispose]();
      this.#gaps.shift();
    }
  }

  [Symbol.dispose](): void {
    this.#writer?.[Symbol.dispose]();
    this.#writer = undefined;
  }
}
