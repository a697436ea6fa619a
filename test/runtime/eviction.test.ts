import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import {
  type Candidate,
  chooseEvictions,
  chooseTrimming,
  isEnough,
  type Room,
} from "../../src/runtime/eviction.ts";

const NOW = 100_000;
const ONE_PLACE: Room = { workers: 1, bytes: {} };

function candidate(id: number, overrides: Partial<Candidate> = {}): Candidate {
  return { id, demand: { ram: 10 }, loadMs: 1000, lastUsedMs: NOW - 5000, ...overrides };
}

function bytes(demand: Room["bytes"]): Room {
  return { workers: 0, bytes: demand };
}

describe("chooseEvictions", () => {
  test("eviction: nothing is evicted when nothing is missing", () => {
    expect(chooseEvictions(bytes({ ram: 0 }), [candidate(1)], NOW)).toEqual([]);
  });

  test("eviction: among equals in cost the least recently used goes first", () => {
    const candidates = [candidate(1), candidate(2, { lastUsedMs: NOW - 9000 }), candidate(3)];

    expect(chooseEvictions(ONE_PLACE, candidates, NOW)).toEqual([2]);
  });

  test("eviction: among equals in age the cheapest to reload goes first", () => {
    const candidates = [candidate(1), candidate(2, { loadMs: 200 }), candidate(3)];

    expect(chooseEvictions(ONE_PLACE, candidates, NOW)).toEqual([2]);
  });

  test("eviction: among equals in age and load time, the one that frees what is missing goes first", () => {
    const candidates = [candidate(1), candidate(2, { demand: { ram: 40 } })];

    expect(chooseEvictions(bytes({ ram: 10 }), candidates, NOW)).toEqual([1]);
    expect(chooseEvictions(bytes({ ram: 20 }), candidates, NOW)).toEqual([2]);
  });

  test("eviction: what frees more per second of reloading goes first", () => {
    // Two small ones that load in 1 s each give as much as a big one that loads in 10 s.
    const big = candidate(1, { demand: { ram: 40 }, loadMs: 10_000 });
    const small = [2, 3].map((id) => candidate(id, { demand: { ram: 20 } }));

    expect(chooseEvictions(bytes({ ram: 40 }), [big, ...small], NOW)).toEqual([2, 3]);
  });

  test("eviction: a worker on another device is left alone", () => {
    const other = candidate(1, { demand: { "cuda:0": 90 }, lastUsedMs: 0, loadMs: 1 });
    const near = candidate(2, { demand: { "cuda:1": 50, ram: 5 } });

    expect(chooseEvictions(bytes({ "cuda:1": 40 }), [other, near], NOW)).toEqual([2]);
    expect(chooseEvictions(bytes({ "cuda:1": 40 }), [other], NOW)).toBeUndefined();
  });

  test("eviction: every device that lacks is freed", () => {
    const candidates = [
      candidate(1, { demand: { ram: 50 } }),
      candidate(2, { demand: { "cuda:0": 50 } }),
    ];

    const chosen = chooseEvictions(bytes({ ram: 30, "cuda:0": 30 }), candidates, NOW);

    expect(chosen?.toSorted()).toEqual([1, 2]);
  });

  test("eviction: a dear model stays for a while, not for ever", () => {
    const cheap = candidate(1, { loadMs: 1000, lastUsedMs: NOW - 10_000 });
    const dear = candidate(2, { loadMs: 60_000, lastUsedMs: NOW - 20_000 });
    const later = NOW + 3_600_000;

    expect(chooseEvictions(ONE_PLACE, [cheap, dear], NOW)).toEqual([1]);
    const fresh = { ...cheap, lastUsedMs: later - 10_000 };
    expect(chooseEvictions(ONE_PLACE, [fresh, dear], later)).toEqual([2]);
  });

  test("eviction: milliseconds of idling do not outweigh the cost of a reload", () => {
    const cheap = candidate(1, { loadMs: 1000, lastUsedMs: NOW - 1 });
    const dear = candidate(2, { loadMs: 60_000, lastUsedMs: NOW - 500 });

    expect(chooseEvictions(ONE_PLACE, [dear, cheap], NOW)).toEqual([1]);
  });

  test("eviction: one that turns out to be unnecessary is spared", () => {
    const small = candidate(1, { demand: { ram: 5 }, lastUsedMs: 0 });
    const big = candidate(2, { demand: { ram: 50 } });

    expect(chooseEvictions(bytes({ ram: 40 }), [small, big], NOW)).toEqual([2]);
  });

  test("eviction: nobody is evicted in vain", () => {
    expect(chooseEvictions(bytes({ ram: 40 }), [candidate(1)], NOW)).toBeUndefined();
  });

  test("eviction: workers that never were ready are told apart, too", () => {
    const candidates = [2, 1].map((id) => candidate(id, { loadMs: Infinity, lastUsedMs: NOW }));

    expect(chooseEvictions(ONE_PLACE, candidates, NOW)).toEqual([1]);
  });

  test("eviction: what is chosen is enough, and no part of it can stay", () => {
    const demand = fc.record({ ram: fc.nat(100), "cuda:0": fc.nat(100) });
    const anyCandidate = fc.record({ demand, loadMs: fc.nat(60_000), lastUsedMs: fc.nat(NOW) });
    const missing = fc.record({ workers: fc.nat(3), bytes: demand });
    fc.assert(
      fc.property(missing, fc.array(anyCandidate, { maxLength: 8 }), (room, facts) => {
        const candidates = facts.map((fact, id) => ({ id, ...fact }));
        const freed = (ids: readonly number[]): boolean =>
          ids.length >= room.workers &&
          (["ram", "cuda:0"] as const).every((device) => {
            const sum = ids.reduce((all, id) => all + (facts[id]?.demand[device] ?? 0), 0);
            return sum >= room.bytes[device];
          });

        const chosen = chooseEvictions(room, candidates, NOW);

        expect(chosen !== undefined).toBe(freed(candidates.map(({ id }) => id)));
        expect(chosen === undefined || freed(chosen)).toBe(true);
        const spare = chosen?.find((id) => freed(chosen.filter((other) => other !== id)));
        expect(spare).toBeUndefined();
      }),
    );
  });
});

describe("chooseTrimming", () => {
  test("eviction: as few leave as for room, where that is enough", () => {
    const candidates = [candidate(1), candidate(2, { lastUsedMs: 0 })];

    expect(chooseTrimming(bytes({ ram: 10 }), candidates, NOW)).toEqual([2]);
  });

  test("eviction: where all together are not enough, all that hold something of it leave", () => {
    const candidates = [candidate(1), candidate(2, { demand: { "cuda:0": 90 } })];

    expect(chooseTrimming(bytes({ ram: 40 }), candidates, NOW)).toEqual([1]);
  });
});

describe("isEnough", () => {
  test("eviction: room is enough when neither places nor bytes are missing", () => {
    expect(isEnough({ workers: 0, bytes: { ram: 0 } })).toBe(true);
    expect(isEnough({ workers: 1, bytes: {} })).toBe(false);
    expect(isEnough({ workers: 0, bytes: { ram: 0, "cuda:0": 1 } })).toBe(false);
  });
});
