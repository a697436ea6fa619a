import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import { type Candidate, chooseEvictions } from "../../src/runtime/eviction.ts";

const NOW = 100_000;

function candidate(id: number, overrides: Partial<Candidate> = {}): Candidate {
  return { id, bytes: 10, loadMs: 1000, lastUsedMs: NOW - 1000, ...overrides };
}

describe("chooseEvictions", () => {
  test("eviction: nothing is evicted when nothing is missing", () => {
    expect(chooseEvictions({ workers: 0, bytes: 0 }, [candidate(1)], NOW)).toEqual([]);
  });

  test("eviction: among equals in cost the least recently used goes first", () => {
    const candidates = [candidate(1), candidate(2, { lastUsedMs: NOW - 9000 }), candidate(3)];

    expect(chooseEvictions({ workers: 1, bytes: 0 }, candidates, NOW)).toEqual([2]);
  });

  test("eviction: among equals in age the cheapest to reload goes first", () => {
    const candidates = [candidate(1), candidate(2, { loadMs: 200 }), candidate(3)];

    expect(chooseEvictions({ workers: 1, bytes: 0 }, candidates, NOW)).toEqual([2]);
  });

  test("eviction: a dear model stays for a while, not for ever", () => {
    const cheap = candidate(1, { loadMs: 1000, lastUsedMs: NOW - 10_000 });
    const dear = candidate(2, { loadMs: 60_000, lastUsedMs: NOW - 20_000 });
    const later = NOW + 3_600_000;

    expect(chooseEvictions({ workers: 1, bytes: 0 }, [cheap, dear], NOW)).toEqual([1]);
    const fresh = { ...cheap, lastUsedMs: later - 10_000 };
    expect(chooseEvictions({ workers: 1, bytes: 0 }, [fresh, dear], later)).toEqual([2]);
  });

  test("eviction: one that turns out to be unnecessary is spared", () => {
    const small = candidate(1, { bytes: 5, lastUsedMs: 0 });
    const big = candidate(2, { bytes: 50 });

    expect(chooseEvictions({ workers: 0, bytes: 40 }, [small, big], NOW)).toEqual([2]);
  });

  test("eviction: nobody is evicted in vain", () => {
    expect(chooseEvictions({ workers: 0, bytes: 40 }, [candidate(1)], NOW)).toBeUndefined();
  });

  test("eviction: what is chosen is enough, and no part of it can stay", () => {
    const anyCandidate = fc.record({
      bytes: fc.nat(100),
      loadMs: fc.nat(60_000),
      lastUsedMs: fc.nat(NOW),
    });
    const missing = fc.record({ workers: fc.nat(3), bytes: fc.nat(200) });
    fc.assert(
      fc.property(missing, fc.array(anyCandidate, { maxLength: 8 }), (room, facts) => {
        const candidates = facts.map((fact, id) => ({ id, ...fact }));
        const total = candidates.reduce((sum, { bytes }) => sum + bytes, 0);

        const chosen = chooseEvictions(room, candidates, NOW);

        const canBe = candidates.length >= room.workers && total >= room.bytes;
        expect(chosen !== undefined).toBe(canBe);
        const freed = (ids: readonly number[]): boolean =>
          ids.length >= room.workers &&
          ids.reduce((sum, id) => sum + (candidates[id]?.bytes ?? 0), 0) >= room.bytes;
        expect(chosen === undefined || freed(chosen)).toBe(true);
        const spare = chosen?.find((id) => freed(chosen.filter((other) => other !== id)));
        expect(spare).toBeUndefined();
      }),
    );
  });
});
