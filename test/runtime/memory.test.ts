import { describe, expect, test } from "bun:test";

import { estimateBytes } from "../../src/runtime/memory.ts";

describe("estimateBytes", () => {
  test("memory: more weights need more memory, and always more than the weights", () => {
    const sizes = [0, 3_000_000, 300_000_000, 40_000_000_000];

    const estimates = sizes.map((weightBytes) => estimateBytes({ weightBytes }));

    expect(estimates).toEqual(estimates.toSorted((a, b) => a - b));
    expect(estimates.every((bytes, index) => bytes > (sizes[index] ?? 0))).toBe(true);
  });
});
