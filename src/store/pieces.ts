/** What is known of a blob that is not whole yet: stretches of bytes, each with a checksum. Pure. */

export interface ByteRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** A stretch that was written in one go. It grows at its end until the next one begins. */
export interface Piece {
  readonly start: number;
  /** Exclusive. */
  end: number;
  /** CRC-32 of its bytes: fast, and it can be continued chunk by chunk. SHA-256 judges the whole; this finds the place. */
  crc: number;
}

/** Pieces by their offset. No two overlap. */
export class PieceMap {
  /** Sorted. */
  readonly #pieces: Piece[] = [];

  get all(): readonly Piece[] {
    return this.#pieces;
  }

  /** The piece with the byte at `offset`. */
  at(offset: number): Piece | undefined {
    const piece = this.#pieces[this.#after(offset) - 1];
    return piece !== undefined && offset < piece.end ? piece : undefined;
  }

  has(piece: Piece): boolean {
    return this.#pieces[this.#after(piece.start) - 1] === piece;
  }

  /** Adds a piece, and forgets those that it overlaps: what was written last counts. */
  add(piece: Piece): void {
    const [from, to] = this.#overlapping(piece);
    this.#pieces.splice(from, to - from, piece);
  }

  /** Forgets every piece that has a byte in the range. @returns what was forgotten */
  remove(range: ByteRange): Piece[] {
    const [from, to] = this.#overlapping(range);
    return this.#pieces.splice(from, to - from);
  }

  /** The gaps between the pieces, from 0 to `size`. */
  missing(size: number): ByteRange[] {
    const gaps: ByteRange[] = [];
    let known = 0;
    for (const { start, end } of this.#pieces) {
      if (start > known) gaps.push({ start: known, end: start });
      known = end;
    }
    if (known < size) gaps.push({ start: known, end: size });
    return gaps;
  }

  /** Index of the first piece that starts behind `offset`. */
  #after(offset: number): number {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#pieces[middle] as Piece).start <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #overlapping({ start, end }: ByteRange): [from: number, to: number] {
    const first = this.#after(start);
    const before = this.#pieces[first - 1];
    const isInside = before !== undefined && (before.start === start || before.end > start);
    const from = isInside ? first - 1 : first;
    return [from, Math.max(from, this.#after(end - 1))];
  }
}
