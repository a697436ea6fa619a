import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Piece, PieceMap } from "../../src/store/pieces.ts";

function piece(start: number, end: number): Piece {
  return { start, end, crc: 0 };
}

describe("PieceMap", () => {
  test("pieces: the gaps are what no piece covers", () => {
    const map = new PieceMap();
    map.add(piece(10, 20));
    map.add(piece(40, 50));
    map.add(piece(20, 30));

    expect(map.missing(60)).toEqual([
      { start: 0, end: 10 },
      { start: 30, end: 40 },
      { start: 50, end: 60 },
    ]);
    expect([map.at(9), map.at(19)?.start, map.at(20)?.start, map.at(30)]).toEqual([
      undefined,
      10,
      20,
      undefined,
    ]);
  });

  test("pieces: a piece that grows is found where it has come to", () => {
    const map = new PieceMap();
    const growing = piece(0, 5);
    map.add(growing);
    growing.end = 10;

    expect([map.at(9), map.at(10), map.has(growing), map.has(piece(0, 10))]).toEqual([
      growing,
      undefined,
      true,
      false,
    ]);
  });

  test("pieces: whatever is added and removed, none overlap, and the last counts", () => {
    const range = fc
      .tuple(fc.nat(200), fc.integer({ min: 1, max: 60 }))
      .map(([start, length]) => ({ start, end: start + length }));
    fc.assert(
      fc.property(
        fc.array(fc.record({ range, isAdded: fc.boolean() }), { maxLength: 60 }),
        (steps) => {
          const map = new PieceMap();
          const model = Array.from({ length: 300 }, (): Piece | undefined => undefined);
          for (const { range: given, isAdded } of steps) {
            const added = { ...given, crc: 0 };
            const gone = new Set(model.slice(given.start, given.end).filter((one) => one));
            const removed = isAdded ? undefined : map.remove(given);
            if (isAdded) map.add(added);
            if (removed !== undefined) expect(new Set(removed)).toEqual(gone as Set<Piece>);
            for (const [index, one] of model.entries()) if (gone.has(one)) model[index] = undefined;
            const filled = isAdded ? given.end : given.start;
            for (let at = given.start; at < filled; at += 1) model[at] = added;
          }
          for (const [offset, expected] of model.entries()) expect(map.at(offset)).toBe(expected);
          const covered = new Set(
            map
              .missing(300)
              .flatMap(({ start, end }) =>
                Array.from({ length: end - start }, (_, index) => start + index),
              ),
          );
          for (const [offset, expected] of model.entries())
            expect(covered.has(offset)).toBe(expected === undefined);
        },
      ),
    );
  });
});
