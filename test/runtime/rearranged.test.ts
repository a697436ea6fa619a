import { describe, expect, test } from "bun:test";
import { rearrangedBy } from "../../src/runtime/rearranged.ts";

const types = (arch: NodeJS.Architecture, ...flags: readonly string[]) => {
  const found = rearrangedBy({ arch, flags: new Set(flags) });
  return [found.rearranged, found.rearrangedExperts].map((set) => [...(set ?? [])].toSorted());
};

describe("rearrangedBy", () => {
  test("rearranged: processors with matrix units take most types, but no experts", () => {
    const [dense, experts] = types("x64", "avx2", "avx512f", "amx_int8");

    expect(dense).toEqual(expect.arrayContaining(["F16", "Q4_0", "Q8_0", "Q4_K"]));
    expect(experts).toEqual(["IQ4_NL", "Q2_K", "Q4_0", "Q4_K"]);
  });

  test("rearranged: others a few quantizations, old and unknown ones nothing", () => {
    expect(types("x64", "avx2")).toEqual([
      ["IQ4_NL", "Q4_0", "Q4_K"],
      ["IQ4_NL", "Q4_0", "Q4_K"],
    ]);
    expect(types("arm64")[0]).toContain("Q8_0");
    expect(types("x64", "sse4_2")).toEqual([[], []]);
    expect(types("riscv64", "avx2")).toEqual([[], []]);
  });
});
