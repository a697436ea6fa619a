/**
 * Finds the wrong bytes of a blob that is whole and has the wrong digest. Its pieces are what was received, so the bytes
 * were wrong when they came, and nothing on this side can tell which: ranges are fetched again, one after the other and
 * those first that came in a doubtful way, until the digest fits. That costs one more pass at worst. (Bytes that the disk
 * changed are found by their checksums before it comes to this, and only they are fetched again.)
 */
import { AppError } from "../errors.ts";
import type { ByteRange } from "../http/blob-source.ts";
import type { PartialBlob } from "../store/store.ts";

export interface RepairOptions {
  readonly partial: PartialBlob;
  /** A range, at most. */
  readonly bytes: number;
  /** Higher for ranges that are more likely to be wrong. */
  readonly suspicion: (range: ByteRange) => number;
  /** Fetches what is missing, and hashes what can be hashed. */
  readonly complete: () => Promise<void>;
}

/** @throws digest_mismatch if the source has other bytes */
export async function repair({
  partial,
  bytes,
  suspicion,
  complete,
}: RepairOptions): Promise<void> {
  const { digest } = partial.blob;
  const ranges = groupRanges(partial.pieces, bytes)
    .map((range) => ({ range, score: suspicion(range) }))
    .toSorted((a, b) => b.score - a.score);
  for (const { range } of ranges) {
    partial.forget(range);
    await complete();
    if (!(await partial.rehash())) continue;
    await complete();
    if ((await partial.digest()) === digest) return;
  }
  partial.distrust();
  throw new AppError(
    "digest_mismatch",
    `cannot fetch blob \`${digest}\`: what comes is \`${await partial.digest()}\`, also when it is fetched again`,
    { hint: "Try again later or another source: the blob is damaged where it comes from." },
  );
}

/** Neighbouring pieces together, up to a size; each piece is in one range, whole. */
export function groupRanges(pieces: readonly ByteRange[], bytes: number): ByteRange[] {
  const groups: { start: number; end: number }[] = [];
  for (const { start, end } of pieces) {
    const last = groups.at(-1);
    if (last?.end === start && end - last.start <= bytes) last.end = end;
    else groups.push({ start, end });
  }
  return groups;
}
