import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseDigest } from "../../src/oci/digest.ts";
import {
  journalHeader,
  journalLine,
  MAX_PIECE_BYTES,
  parseJournal,
} from "../../src/store/journal.ts";

const BLOB = { digest: parseDigest(`sha256:${"ab".repeat(32)}`), size: 100_000_000 };
const HEADER = journalHeader(BLOB);

const pieces = fc.array(
  fc
    .record({
      start: fc.integer({ min: 0, max: BLOB.size - MAX_PIECE_BYTES }),
      length: fc.integer({ min: 1, max: MAX_PIECE_BYTES }),
      crc: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    })
    .map(({ start, length, crc }) => ({ start, end: start + length, crc })),
  { maxLength: 20 },
);

describe("parseJournal", () => {
  test("journal: what was written is read", () => {
    fc.assert(
      fc.property(pieces, (written) => {
        const text = HEADER + written.map(journalLine).join("");
        expect(parseJournal(text, BLOB)).toEqual(written);
      }),
    );
  });

  test("journal: a torn end costs the torn line only", () => {
    fc.assert(
      fc.property(pieces, fc.nat(), (written, cut) => {
        const lines = written.map(journalLine);
        const text = HEADER + lines.join("");
        const kept = HEADER.length + (cut % (text.length - HEADER.length + 1));
        const found = parseJournal(text.slice(0, kept), BLOB);

        let whole = 0;
        for (let length = HEADER.length; whole < lines.length; whole += 1) {
          length += lines[whole]?.length ?? 0;
          if (length > kept) break;
        }
        expect(found).toEqual(written.slice(0, whole));
      }),
    );
  });

  test("journal: a changed character never yields a piece that was not written", () => {
    fc.assert(
      fc.property(
        pieces,
        fc.nat(),
        fc.constantFrom("0", "1", "9", " ", "a", "f", "\n"),
        (written, at, wrong) => {
          const text = HEADER + written.map(journalLine).join("");
          const index = at % text.length;
          const found = parseJournal(text.slice(0, index) + wrong + text.slice(index + 1), BLOB);

          const known = new Set(written.map(journalLine));
          for (const piece of found) expect(known.has(journalLine(piece))).toBe(true);
        },
      ),
    );
  });

  test.each([
    ["of another blob", journalHeader({ ...BLOB, size: 1 })],
    ["of another version", HEADER.replace(" 1 ", " 2 ")],
    ["that is empty", ""],
    ["that is garbage", "\0\0\0\0\n"],
  ])("journal: one %s says nothing", (_name, header) => {
    expect(parseJournal(header + journalLine({ start: 0, end: 10, crc: 1 }), BLOB)).toEqual([]);
  });

  test.each([
    ["backwards", { start: 10, end: 5, crc: 1 }],
    ["empty", { start: 10, end: 10, crc: 1 }],
    ["behind the end", { start: BLOB.size - 5, end: BLOB.size + 5, crc: 1 }],
    ["too long for memory", { start: 0, end: MAX_PIECE_BYTES + 1, crc: 1 }],
  ])("journal: a piece that is %s does not count", (_name, piece) => {
    expect(parseJournal(HEADER + journalLine(piece), BLOB)).toEqual([]);
  });

  test("journal: after a torn line that was ended, the next ones count", () => {
    const line = journalLine({ start: 0, end: 10, crc: 1 });

    expect(parseJournal(`${HEADER}0 1\n${line}`, BLOB)).toHaveLength(1);
  });
});
