import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import {
  type BudgetRule,
  describeBudget,
  findBudgetWarnings,
  heldNow,
  parseBudget,
  SAFE_SHARE,
  toBudget,
  toWholeBudget,
} from "../../src/runtime/budget.ts";
import type { Device } from "../../src/runtime/hardware/devices.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

function ram(totalBytes: number, freeBytes: number | null = totalBytes): Device {
  return { id: "ram", kind: "ram", name: null, totalBytes, freeBytes };
}

function cuda(index: number, totalBytes: number, freeBytes: number | null = totalBytes): Device {
  return { id: `cuda:${index}`, kind: "cuda", name: "A card", totalBytes, freeBytes };
}

function failure(text: string): AppError {
  try {
    parseBudget(text);
  } catch (error) {
    if (error instanceof AppError) return error;
  }
  throw new Error(`\`${text}\` was taken`);
}

describe("parseBudget", () => {
  test.each([
    ["512MiB", 512 * MIB],
    ["8GB", 8e9],
    ["8g", 8e9],
    ["1.5 GiB", 1.5 * GIB],
    ["2TB", 2e12],
    [" 8000000000 ", 8e9],
    ["2048K", 2_048_000],
  ])("reads %j as a size of each device", (text, bytes) => {
    expect(parseBudget(text)).toEqual({ each: { bytes }, named: {} });
  });

  test.each(["", "  ", "auto", "AUTO"])("reads %j as a safe share", (text) => {
    expect(parseBudget(text)).toEqual(SAFE_SHARE);
  });

  test("reads shares, and amounts by device and by kind", () => {
    expect(parseBudget("60%")).toEqual({ each: { share: 0.6 }, named: {} });
    expect(parseBudget("ram=8GB, CUDA:0 = 90% ,cuda=0,vulkan:12=1GiB")).toEqual({
      each: undefined,
      named: {
        ram: { bytes: 8e9 },
        "cuda:0": { share: 0.9 },
        cuda: { bytes: 0 },
        "vulkan:12": { bytes: GIB },
      },
    });
  });

  test.each([
    ["lots", "neither a size nor a share"],
    ["-8GB", "neither a size nor a share"],
    ["8 GiB extra", "neither a size nor a share"],
    ["1e9", "neither a size nor a share"],
    ["8PB", "neither a size nor a share"],
    ["8", "no model fits into 8B"],
    ["0", "no model fits into 0B"],
    ["0%", "more than 0 %"],
    ["101%", "at most 100 %"],
    ["9999999999999999TB", "no size of a memory"],
    ["ram=8", "no model fits into 8B"],
    ["ram=", "neither a size nor a share"],
    ["ram=8GB,", "a comma too many"],
    ["ram=8GB,60%", "it does not say of which device"],
    ["ram=8GB,ram=9GB", "`ram` is there twice"],
    ["tpu:0=8GB", "`tpu:0` is no device"],
    ["ram:0=8GB", "`ram:0` is no device"],
    ["__proto__=8GB", "`__proto__` is no device"],
    ["cuda:0=8GB=9GB", "neither a size nor a share"],
    [`${"ram=8GB,".repeat(1000)}ram=1GB`, "longer than"],
  ])("refuses %j and says why", (text, reason) => {
    const error = failure(text);

    expect(error.code).toBe("usage");
    expect(error.message).toContain(reason);
    expect(error.message.length).toBeLessThan(300);
    expect(error.hint).toEndWith(".");
  });

  test("lets no control character through to a terminal", () => {
    expect(failure("\u001b[31m8GB\u0007\u009b").message).toContain("`?[31m8GB??`");
  });
});

describe("a safe share", () => {
  test.each([
    [1 * GIB, 0.5 * GIB],
    [2 * GIB, 1 * GIB],
    [4 * GIB, 2 * GIB],
    [8 * GIB, 6 * GIB],
    [16 * GIB, 16 * GIB * 0.85],
    [256 * GIB, 256 * GIB * 0.85],
  ])("of a memory of %d bytes is %d", (total, expected) => {
    expect(toWholeBudget([ram(total)], SAFE_SHARE)).toEqual({ ram: Math.floor(expected) });
  });

  test("of a GPU is 90 % without half a gibibyte, and never negative", () => {
    expect(toWholeBudget([cuda(0, 10 * GIB), cuda(1, 256 * MIB)], SAFE_SHARE)).toEqual({
      "cuda:0": 9 * GIB - 512 * MIB,
      "cuda:1": 0,
    });
  });

  test("leaves alone what other programs hold", () => {
    const devices = [ram(16 * GIB, 6 * GIB), cuda(0, 10 * GIB, 4 * GIB)];

    expect(toBudget(devices, SAFE_SHARE, {})).toEqual({
      ram: Math.floor(6 * GIB - 0.15 * 16 * GIB),
      "cuda:0": 4 * GIB - 512 * MIB,
    });
  });

  test("counts what workers hold as part of it, not as another program's", () => {
    const before = toBudget([ram(16 * GIB, 10 * GIB)], SAFE_SHARE, {});
    const after = toBudget([ram(16 * GIB, 7 * GIB)], SAFE_SHARE, { ram: 3 * GIB });

    expect(after).toEqual(before);
  });

  test("is the share of the whole where nobody tells what is free", () => {
    expect(toBudget([ram(8 * GIB, null)], SAFE_SHARE, {})).toEqual({ ram: 6 * GIB });
  });

  test("of unified memory is no more than its GPU may use", () => {
    const unified = { ...ram(16 * GIB), gpuLimitBytes: 10 * GIB };

    expect(toBudget([unified], SAFE_SHARE, {})).toEqual({ ram: 10 * GIB });
  });
});

describe("heldNow", () => {
  test("is what was measured, and what is expected where nobody measures", () => {
    const demand = { ram: 100, "cuda:0": 50 };

    expect(
      heldNow([
        { state: "ready", demand, measured: { ram: 80 } },
        { state: "draining", demand, measured: null },
      ]),
    ).toEqual({ ram: 180, "cuda:0": 100 });
    expect(heldNow([])).toEqual({});
  });

  test("leaves out what a worker that loads has yet to take", () => {
    const demand = { ram: 100, "cuda:0": 50 };

    expect(
      heldNow([
        { state: "starting", demand, measured: { ram: 10 } },
        { state: "starting", demand, measured: null },
      ]),
    ).toEqual({ ram: 10 });
  });
});

describe("an explicit budget", () => {
  test("holds whatever other programs do, up to what there is", () => {
    const devices = [ram(16 * GIB, GIB), cuda(0, 8 * GIB, 0)];

    expect(toBudget(devices, parseBudget("12GiB"), {})).toEqual({
      ram: 12 * GIB,
      "cuda:0": 8 * GIB,
    });
    expect(toBudget(devices, parseBudget("50%"), {})).toEqual({ ram: 8 * GIB, "cuda:0": 4 * GIB });
  });

  test("for a device wins over its kind, and the rest gets a safe share", () => {
    const devices = [ram(8 * GIB), cuda(0, 8 * GIB), cuda(1, 8 * GIB)];

    expect(toBudget(devices, parseBudget("cuda=0,cuda:1=4GiB"), {})).toEqual({
      ram: 6 * GIB,
      "cuda:0": 0,
      "cuda:1": 4 * GIB,
    });
  });

  test("over what there is, or for what there is not, is told", () => {
    const rule = parseBudget("ram=20GB,cuda:3=50%,vulkan=0");

    expect(findBudgetWarnings([ram(16e9)], rule)).toEqual([
      "the memory budget names `cuda:3`, which this machine or its engine does not have",
      "the memory budget names `vulkan`, which this machine or its engine does not have",
      "the memory budget is 20GB of memory, which has 16GB",
    ]);
    expect(findBudgetWarnings([{ ...ram(16e9), gpuLimitBytes: 10e9 }], parseBudget("80%"))).toEqual(
      ["the memory budget is 12.8GB of memory, of which its GPU may use 10GB"],
    );
    expect(findBudgetWarnings([ram(16e9), cuda(0, 8e9)], parseBudget("100%"))).toEqual([]);
    expect(findBudgetWarnings([ram(16e9)], SAFE_SHARE)).toEqual([]);
  });
});

test("a budget is whole, never negative, never more than there is, for any machine and rule", () => {
  const bytes = fc.integer({ min: 0, max: 2 ** 45 });
  const amount = fc.oneof(
    bytes.map((count) => ({ bytes: count })),
    fc.double({ min: 0, max: 1, noNaN: true }).map((share) => ({ share })),
  );
  const rules: fc.Arbitrary<BudgetRule> = fc.record({
    each: fc.option(amount, { nil: undefined }),
    named: fc.dictionary(fc.constantFrom("ram", "cuda", "cuda:0"), amount),
  });

  fc.assert(
    fc.property(fc.tuple(bytes, bytes, bytes, bytes), rules, ([total, free, held, limit], rule) => {
      const devices = [
        { ...ram(total, free), gpuLimitBytes: limit },
        cuda(0, total, free),
        cuda(1, total, null),
      ];
      const budget = toBudget(devices, rule, { ram: held, "cuda:0": held });
      expect(Object.keys(budget)).toEqual(["ram", "cuda:0", "cuda:1"]);
      for (const value of Object.values(budget)) {
        expect(Number.isSafeInteger(value)).toBe(true);
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThanOrEqual(total);
      }
    }),
  );
});

test("describeBudget names devices and sizes as people read them", () => {
  expect(describeBudget({})).toBe("nothing");
  expect(describeBudget({ ram: 20_400_000_000 })).toBe("20.4GB of memory");
  expect(describeBudget({ ram: 8e9, "cuda:0": 999_960, "cuda:1": 512 })).toBe(
    "8GB of memory, 1MB of cuda:0 and 512B of cuda:1",
  );
});
