/**
 * A blob that is being fetched: a file that is written at any offset, a journal of what in it may be trusted, and its
 * digest, which follows the bytes that are there without a gap.
 */
import {
  closeSync,
  fchmodSync,
  fstatSync,
  fdatasync,
  fsync,
  ftruncateSync,
  openSync,
  writeSync,
} from "node:fs";
import { chmod } from "node:fs/promises";
import { promisify } from "node:util";
import { crc32 } from "node:zlib";
import { assert } from "../errors.ts";
import { log } from "../log.ts";
import type { Digest } from "../oci/digest.ts";
import type { BlobId } from "./blobs.ts";
import { type Digester, InlineDigester, readAt } from "./digester.ts";
import { orIfMissing } from "./files.ts";
import { requireSpace, writeFailure } from "./ingest.ts";
import { journalHeader, journalLine, parseJournal } from "./journal.ts";
import { exclusively, type Layout } from "./layout.ts";
import {
  markFetched,
  partialPath,
  readJournal,
  removePartial,
  unlockPartial,
} from "./partial-files.ts";
import { type ByteRange, type Piece, PieceMap } from "./pieces.ts";
import { isSoundBlob, publishPart } from "./publish.ts";
import { ThreadDigester } from "./thread-digester.ts";

/**
 * What a kill costs is what is not yet journaled: half a piece a connection. A piece is 1/4096 of the blob, so that eight
 * connections lose a thousandth of it on average, within bounds that keep the journal small.
 */
const PIECES_A_BLOB = 4096;
const SMALLEST_PIECE_BYTES = 64 * 1024;
const LARGEST_PIECE_BYTES = 1024 * 1024;

/** A line is about 50 bytes: room for a terabyte. A longer journal was not written by us. */
const MAX_JOURNAL_BYTES = 64 * 1024 * 1024;

/** So often what was written is sent to the disk, which has time now: else all of it is waited for at the end. */
const FLUSH_BYTES = 128 * 1024 * 1024;

const synchronise = promisify(fsync);
const flush = promisify(fdatasync);

/** Writes onwards from one offset. What it wrote since the last journal entry is entered when it is disposed. */
export interface PieceWriter extends Disposable {
  /** @throws insufficient_storage */
  write(bytes: Uint8Array): void;
}

export interface PartialBlobOptions {
  /** Whether its bytes are hashed in a thread of their own, which costs some memory and pays for large blobs. */
  readonly isThreaded?: boolean;
}

interface OpenOptions extends PartialBlobOptions {
  readonly lock: Disposable;
}

export class PartialBlob implements AsyncDisposable {
  readonly blob: BlobId;
  readonly #layout: Layout;
  readonly #lock: Disposable;
  readonly #pieceBytes: number;
  readonly #part: number;
  readonly #journal: number;
  readonly #digester: Digester;
  readonly #pieces = new PieceMap();
  #doneBytes = 0;
  #isOpen = true;
  #isPublished = false;

  /** Pieces that somebody is writing. */
  readonly #growing = new Set<Piece | undefined>();
  #buffer = new Uint8Array(0);
  #unflushedBytes = 0;
  #flushing: Promise<void> | undefined;
  /** A disk says only once that it could not write. */
  #flushFailure: { readonly error: unknown } | undefined;

  /** Where bytes that were written over others differed from them first. */
  #changedFrom: number | undefined;

  private constructor(layout: Layout, blob: BlobId, options: OpenOptions) {
    this.blob = blob;
    this.#layout = layout;
    this.#lock = options.lock;
    this.#pieceBytes = Math.min(
      Math.max(Math.ceil(blob.size / PIECES_A_BLOB), SMALLEST_PIECE_BYTES),
      LARGEST_PIECE_BYTES,
    );
    this.#part = openSync(partialPath(layout, blob.digest, "part"), "r+");
    try {
      this.#journal = openSync(partialPath(layout, blob.digest, "journal"), "a", 0o600);
    } catch (error) {
      closeSync(this.#part);
      throw error;
    }
    this.#digester =
      options.isThreaded === true ? new ThreadDigester(this.#part) : new InlineDigester(this.#part);
  }

  /** Takes up what an earlier attempt left. The partial blob owns the lock; whoever opens it disposes of it. */
  static async open(layout: Layout, blob: BlobId, options: OpenOptions): Promise<PartialBlob> {
    const part = partialPath(layout, blob.digest, "part");
    // A crash between the last two steps leaves it read-only.
    await orIfMissing(chmod(part, 0o600), undefined);
    closeSync(openSync(part, "a", 0o600));
    const partial = new PartialBlob(layout, blob, options);
    try {
      await partial.#load();
      return partial;
    } catch (error) {
      await partial.#close();
      throw writeFailure(error);
    }
  }

  /** Bytes that are there, in pieces anywhere. */
  get doneBytes(): number {
    return this.#doneBytes;
  }

  /** Bytes from the beginning that are hashed. */
  get hashedBytes(): number {
    return this.#digester.hashedBytes;
  }

  get isWhole(): boolean {
    return this.#doneBytes === this.blob.size;
  }

  /** Where bytes are missing. */
  get missing(): ByteRange[] {
    return this.#pieces.missing(this.blob.size);
  }

  /** Where pieces are, in order. */
  get pieces(): readonly ByteRange[] {
    return this.#pieces.all;
  }

  /** Of all bytes; undefined while some are not hashed. */
  async digest(): Promise<Digest | undefined> {
    return this.hashedBytes === this.blob.size ? this.#digester.digest() : undefined;
  }

  /** @throws insufficient_storage if the disk has not room for what is missing and for `besides` bytes */
  async requireSpace(besides = 0): Promise<void> {
    const needed = this.blob.size - this.#doneBytes;
    if (needed > 0) await requireSpace(this.#layout.ingest, needed + besides);
  }

  /** Two writers must not meet: the caller hands out ranges that are missing. */
  writeFrom(start: number): PieceWriter {
    let position = start;
    let piece: Piece | undefined;
    const finish = (): void => {
      this.#growing.delete(piece);
      if (piece !== undefined && this.#pieces.has(piece)) this.#enter(piece);
      piece = undefined;
    };
    return {
      write: (bytes) => {
        assert(this.#isOpen, "nothing is written to a blob that was left");
        assert(position + bytes.length <= this.blob.size, "nothing is written behind the end");
        for (let from = 0; from < bytes.length;) {
          const room = this.#pieceBytes - (piece === undefined ? 0 : piece.end - piece.start);
          const slice = bytes.subarray(from, from + room);
          piece = this.#write(slice, position, piece);
          position += slice.length;
          from += slice.length;
          if (piece.end - piece.start === this.#pieceBytes) finish();
        }
      },
      [Symbol.dispose]: () => {
        try {
          finish();
        } catch (error) {
          // Nothing but the next attempt needs it, and what failed before is what there is to say.
          log.debug(`store: a journal entry was not written error=${String(error)}`);
        }
      },
    };
  }

  /**
   * Hashes the next pieces on disk, if they are there. Not to be called while it is under way.
   *
   * @returns undefined if there is nothing to hash now; else the range that is lost, because its bytes are not those
   *          which were written, or an empty one
   */
  async hashNext(): Promise<ByteRange | undefined> {
    const pieces = this.#isOpen ? this.#nextPieces() : [];
    if (pieces.length === 0) return undefined;
    const lost = pieces[await this.#digester.hash(pieces)];
    if (lost === undefined) return { start: this.hashedBytes, end: this.hashedBytes };
    this.forget(lost);
    return { start: lost.start, end: lost.end };
  }

  /** Whether `hashNext` has something to do. */
  get canHash(): boolean {
    return this.#hashable(this.hashedBytes) !== undefined;
  }

  /**
   * Counts a range as missing, so that it can be written again; only bytes that differ are then written. The digest stays
   * where it is until `rehash`.
   */
  forget(range: ByteRange): void {
    for (const { start, end } of this.#pieces.remove(range)) this.#doneBytes -= end - start;
  }

  /** Goes back with the digest to before the first byte that changed. @returns false if none did */
  async rehash(): Promise<boolean> {
    const changedFrom = this.#changedFrom;
    this.#changedFrom = undefined;
    if (changedFrom === undefined || changedFrom >= this.hashedBytes) return false;
    await this.#digester.rewind(changedFrom);
    return true;
  }

  /** Nothing of it is trusted any more: the next attempt starts from the beginning. */
  distrust(): void {
    ftruncateSync(this.#journal, 0);
  }

  /** Turns it into a blob: its digest must be the right one. Somebody must have pinned it. */
  async publish(): Promise<void> {
    const { digest, size } = this.blob;
    const isVerified = this.isWhole && (await this.digest()) === digest;
    assert(isVerified, "only verified bytes become a blob");
    assert(fstatSync(this.#part).size === size, "the file is as long as the blob");
    fchmodSync(this.#part, 0o444);
    await this.#flushing;
    try {
      await synchronise(this.#part);
    } catch (error) {
      this.#flushFailure ??= { error };
    }
    if (this.#flushFailure !== undefined) throw writeFailure(this.#flushFailure.error);
    // Before the lock: it may take as long as the disk takes to read it.
    const isSound = await isSoundBlob(this.#layout, this.blob);
    await this.#close();
    await exclusively(this.#layout, async () => {
      await markFetched(this.#layout, digest);
      const part = partialPath(this.#layout, digest, "part");
      await publishPart(this.#layout, this.blob, { part, isSound });
      this.#isPublished = true;
      await removePartial(this.#layout, digest, ["journal"]);
      await unlockPartial(this.#layout, digest, this.#lock);
    });
  }

  /** Keeps what is there for the next attempt. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
    if (this.#isPublished) return;
    try {
      if (this.#doneBytes > 0) return;
      await exclusively(this.#layout, async () => {
        await removePartial(this.#layout, this.blob.digest, ["part", "journal"]);
        await unlockPartial(this.#layout, this.blob.digest, this.#lock);
      });
    } finally {
      this.#lock[Symbol.dispose]();
    }
  }

  async #load(): Promise<void> {
    const path = partialPath(this.#layout, this.blob.digest, "journal");
    const text = await readJournal(path, MAX_JOURNAL_BYTES);
    const onDisk = fstatSync(this.#part).size;
    for (const piece of parseJournal(text, this.blob))
      if (piece.end <= onDisk) this.#pieces.add(piece);
    for (const { start, end } of this.#pieces.all) this.#doneBytes += end - start;
    if (this.#doneBytes === 0) {
      ftruncateSync(this.#journal, 0);
      this.#append(journalHeader(this.blob));
    } else if (!text.endsWith("\n")) {
      // The end of a torn line; it spoils no other.
      this.#append("\n");
    }
    if (onDisk > this.blob.size) ftruncateSync(this.#part, this.blob.size);
  }

  #write(bytes: Uint8Array, offset: number, piece: Piece | undefined): Piece {
    const isNew = piece === undefined || !this.#pieces.has(piece);
    if (isNew) this.#growing.delete(piece);
    const current = isNew ? { start: offset, end: offset, crc: 0 } : piece;
    if (!this.#isSame(bytes, offset)) this.#writeAll(bytes, offset);
    current.crc = crc32(bytes, current.crc);
    current.end = offset + bytes.length;
    if (isNew) {
      this.#pieces.add(current);
      this.#growing.add(current);
    }
    this.#doneBytes += bytes.length;
    this.#unflushedBytes += bytes.length;
    if (this.#unflushedBytes >= FLUSH_BYTES) this.#startFlush();
    if (offset === this.hashedBytes) this.#digester.update?.(bytes);
    return current;
  }

  /** Where the digest has been already, bytes are compared with those that it has seen. */
  #isSame(bytes: Uint8Array, offset: number): boolean {
    if (offset >= this.hashedBytes) return false;
    if (this.#buffer.length < bytes.length) this.#buffer = new Uint8Array(bytes.length);
    const before = readAt(this.#part, this.#buffer.subarray(0, bytes.length), offset);
    if (Buffer.compare(before, bytes) === 0) return true;
    this.#changedFrom = Math.min(this.#changedFrom ?? offset, offset);
    return false;
  }

  #writeAll(bytes: Uint8Array, offset: number): void {
    try {
      for (let done = 0; done < bytes.length;)
        done += writeSync(this.#part, bytes, done, bytes.length - done, offset + done);
    } catch (error) {
      throw writeFailure(error);
    }
  }

  /** Copies of pieces that follow where the digest stands: they may grow while they are hashed. */
  #nextPieces(): Piece[] {
    const pieces: Piece[] = [];
    let end = this.hashedBytes;
    for (let piece = this.#hashable(end); piece !== undefined; piece = this.#hashable(end)) {
      pieces.push({ ...piece });
      end = piece.end;
      if (end - this.hashedBytes >= this.#digester.batchBytes) break;
    }
    return pieces;
  }

  /** A thread gets pieces that are finished: it would read one that grows again and again. */
  #hashable(offset: number): Piece | undefined {
    const piece = this.#pieces.at(offset);
    const isReady = this.#digester.update !== undefined || !this.#growing.has(piece);
    return isReady ? piece : undefined;
  }

  #enter(piece: Piece): void {
    if (this.#isOpen) this.#append(journalLine(piece));
  }

  #append(text: string): void {
    try {
      writeSync(this.#journal, text);
    } catch (error) {
      throw writeFailure(error);
    }
  }

  #startFlush(): void {
    if (this.#flushing !== undefined) return;
    this.#unflushedBytes = 0;
    this.#flushing = flush(this.#part)
      .catch((error: unknown) => (this.#flushFailure = { error }))
      .then(() => (this.#flushing = undefined));
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#flushing;
    this.#digester[Symbol.dispose]();
    closeSync(this.#part);
    closeSync(this.#journal);
  }
}
