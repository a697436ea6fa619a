import { describe, expect, test } from "bun:test";

import { physicalCores } from "../../../src/runtime/hardware/index.ts";
import { countPhysicalCores, parseCpuQuota } from "../../../src/runtime/hardware/parse.ts";

function block(id: number, core: number): string {
  return `processor\t: ${id}\nphysical id\t: 0\ncore id\t\t: ${core}\n`;
}

describe("hardware parsers", () => {
  test("hardware: hyper-threads count once", () => {
    const cpuinfo = [block(0, 0), block(1, 0), block(2, 1), block(3, 1)].join("\n");

    expect(countPhysicalCores(cpuinfo)).toBe(2);
    expect(countPhysicalCores("processor\t: 0\nBogoMIPS\t: 50.00\n")).toBeUndefined();
  });

  test.each([
    ["max 100000", undefined],
    ["150000 100000", 1],
    ["400000 100000\n", 4],
    ["50000 100000", 1],
    ["", undefined],
  ])("hardware: the quota `%s` is %p processors", (text, expected) => {
    expect(parseCpuQuota(text)).toBe(expected);
  });

  test("hardware: there is at least one physical core, and no more than logical ones", async () => {
    const cores = await physicalCores();

    expect(cores).toBeGreaterThanOrEqual(1);
    expect(cores).toBeLessThanOrEqual(navigator.hardwareConcurrency);
  });
});
