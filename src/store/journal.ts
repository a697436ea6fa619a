/**
 * The journal of a blob that is being fetched: what of its file may be trusted. Text, appended to only:
 *
 *     tug-journal 1 sha256:<hex> <size>
 *     <start> <end> <CRC-32 of the bytes> <CRC-32 of the line so far>
 *
 * A line that was torn by a crash, or that says something impossible, does not count. A line may contradict an earlier
 * one: then the later counts. Pure.
 */
import { crc32 } from "node:zlib";
import type { BlobId } from "./blobs.ts";
import type { Piece } from "./pieces.ts";

/** Longer ones are read into memory at once when the file is hashed again; we write at most a quarter of it. */
export const MAX_PIECE_BYTES = 8 * 1024 * 1024;

export function journalHeader({ digest, size }: BlobId): string {
  return `tug-journal 1 ${digest} ${size}\n`;
}

export function journalLine({ start, end, crc }: Piece): string {
  const facts = `${start} ${end} ${hex(crc)}`;
  return `${facts} ${hex(crc32(facts))}\n`;
}

/**
 * The pieces in the order in which they were written; none if the journal is one of another blob.
 *
 * @param text may end amid a line
 */
export function parseJournal(text: string, blob: BlobId): Piece[] {
  const header = journalHeader(blob);
  if (!text.startsWith(header)) return [];
  const lines = text.slice(header.length).split("\n");
  // What follows the last line feed is torn, or nothing.
  lines.pop();
  return lines.flatMap((line) => parseLine(line, blob.size) ?? []);
}

// --- internal ---

const LINE = /^((\d{1,16}) (\d{1,16}) ([0-9a-f]{8})) ([0-9a-f]{8})$/;

function parseLine(line: string, size: number): Piece | undefined {
  const [, facts = "", start, end, crc = "", check] = LINE.exec(line) ?? [];
  if (check === undefined || hex(crc32(facts)) !== check) return undefined;
  const piece = { start: Number(start), end: Number(end), crc: Number.parseInt(crc, 16) };
  const length = piece.end - piece.start;
  return length > 0 && length <= MAX_PIECE_BYTES && piece.end <= size ? piece : undefined;
}

function hex(number: number): string {
  return number.toString(16).padStart(8, "0");
}
