import { describe, expect, test } from "bun:test";

import {
  describeDemand,
  isDemand,
  isNothing,
  maxDemand,
  minDemand,
  NOTHING,
  remaining,
  scaleDemand,
  sharesDevice,
  shortage,
  sumDemands,
  totalBytes,
} from "../../src/runtime/demand.ts";

describe("Demand", () => {
  test("demand: sums, maxima and minima are taken device by device", () => {
    const [one, other] = [
      { ram: 5, "cuda:0": 1 },
      { ram: 3, "cuda:1": 2 },
    ];

    expect(sumDemands([one, other])).toEqual({ ram: 8, "cuda:0": 1, "cuda:1": 2 });
    expect(maxDemand(one, other)).toEqual({ ram: 5, "cuda:0": 1, "cuda:1": 2 });
    expect(minDemand(one, other)).toEqual({ ram: 3 });
    expect(minDemand({ ram: 3 }, { ram: -1 })).toEqual({});
    expect(totalBytes(one)).toBe(6);
  });

  test("demand: scaled amounts are whole bytes, rounded up", () => {
    expect(scaleDemand({ ram: 5, "cuda:0": 0 }, 1.25)).toEqual({ ram: 7, "cuda:0": 0 });
  });

  test("demand: what is left of a budget may be negative, and is then missing to all who need some of it", () => {
    const room = remaining({ ram: 10, "cuda:0": 5 }, { ram: 12 });

    expect(room).toEqual({ ram: -2, "cuda:0": 5 });
    expect(shortage({ ram: 1, "cuda:0": 5, "cuda:1": 1 }, room)).toEqual({ ram: 3, "cuda:1": 1 });
    expect(shortage({ ram: 0 }, room)).toEqual({});
  });

  test("demand: nothing is nothing, also on devices that are named", () => {
    expect([NOTHING, { ram: 0 }, { ram: 0, "cuda:0": 1 }].map(isNothing)).toEqual([
      true,
      true,
      false,
    ]);
  });

  test("demand: a device is shared only if both hold bytes of it", () => {
    expect(sharesDevice({ ram: 1, "cuda:0": 1 }, { "cuda:0": 1 })).toBe(true);
    expect(sharesDevice({ ram: 1, "cuda:0": 0 }, { "cuda:0": 1 })).toBe(false);
  });

  test("demand: negative amounts and NaN are none, endless ones are", () => {
    expect([{ ram: -1 }, { ram: Number.NaN }, { ram: Infinity }, {}].map(isDemand)).toEqual([
      false,
      false,
      true,
      true,
    ]);
  });

  test.each([
    [{}, "nothing"],
    [{ ram: 0 }, "0B of memory"],
    [{ ram: -5 }, "0B of memory"],
    [{ ram: 999 }, "999B of memory"],
    [{ ram: 1000 }, "1.00kB of memory"],
    [{ ram: 999_999 }, "1.00MB of memory"],
    [{ ram: 5.2e9, "cuda:0": 9e8 }, "5.20GB of memory and 900.00MB on cuda:0"],
    [{ ram: 1, "cuda:0": 0 }, "1B of memory"],
    [{ ram: 5e19 }, "50000.00PB of memory"],
    [{ "cuda:0": Infinity }, "an unknown amount on cuda:0"],
  ])("demand: %j reads as %s", (demand, text) => {
    expect(describeDemand(demand)).toBe(text);
  });
});
