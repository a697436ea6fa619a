import { describe, expect, test } from "bun:test";

import { findBudgetWarnings, parseBudget, toWholeBudget } from "../../src/runtime/budget.ts";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import { mergeDevices } from "../../src/runtime/machine.ts";

const CUDA: Device = { id: "cuda:0", kind: "cuda", name: "A", totalBytes: 8e9, freeBytes: 7e9 };
const VULKAN: Device = { ...CUDA, alias: "vulkan:0", kind: "vulkan", totalBytes: 7.9e9 };

describe("mergeDevices", () => {
  test("merge: one GPU that two engines use is one place, by all its names", () => {
    for (const all of [
      [CUDA, VULKAN],
      [VULKAN, CUDA],
    ]) {
      const merged = mergeDevices(all);

      expect(merged).toMatchObject([{ id: "cuda:0", alias: "vulkan:0" }]);
      for (const text of ["vulkan:0=2GB", "vulkan=2GB", "cuda=2GB", "cuda:0=2GB,vulkan=1GB"]) {
        expect(toWholeBudget(merged, parseBudget(text))).toEqual({ "cuda:0": 2e9 });
        expect(findBudgetWarnings(merged, parseBudget(text))).toEqual([]);
      }
    }
  });

  test("merge: of memory that GPUs share, the least that one may use", () => {
    const ram: Device = { id: "ram", kind: "ram", name: null, totalBytes: 8e9, freeBytes: 7e9 };

    expect(mergeDevices([ram, { ...ram, gpuLimitBytes: 6e9 }])).toMatchObject([
      { gpuLimitBytes: 6e9 },
    ]);
    expect(mergeDevices([ram, CUDA]).map(({ id }) => id)).toEqual(["ram", "cuda:0"]);
  });
});
