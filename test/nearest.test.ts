import { describe, expect, test } from "bun:test";

import { nearest } from "../src/nearest.ts";

describe("nearest", () => {
  test.each([
    ["lst", "list"],
    ["pacakge", "package"],
    ["statsu", "status"],
    ["xyzzy", undefined],
  ])("takes %p for %p", (typed, meant) => {
    expect(nearest(typed, ["list", "package", "status", "run"])).toBe(meant);
  });
});
