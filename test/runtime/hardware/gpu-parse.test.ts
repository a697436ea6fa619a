import { describe, expect, test } from "bun:test";
import {
  parseComputeApps,
  parseNvidiaGpus,
  parseVulkanGpus,
  pickVisible,
} from "../../../src/runtime/hardware/gpu-parse.ts";
import { NVIDIA_TWO, VULKAN } from "./recorded.ts";

const MIB = 1024 * 1024;

describe("parseNvidiaGpus", () => {
  test("reads a line a GPU, in MiB", () => {
    expect(parseNvidiaGpus(NVIDIA_TWO)[1]).toEqual({
      index: 1,
      uuid: "GPU-aa11bb22-0000-1111-2222-333344445555",
      name: "NVIDIA A100-SXM4-40GB",
      totalBytes: 40_960 * MIB,
      freeBytes: 40_338 * MIB,
    });
    expect(parseNvidiaGpus(NVIDIA_TWO.replaceAll("\n", "\r\n"))).toHaveLength(2);
  });

  test("reads a name with a comma", () => {
    expect(parseNvidiaGpus("0, GPU-1, Tesla, the old one, 100, 50\n")[0]?.name).toBe(
      "Tesla, the old one",
    );
  });

  test.each([
    ["", "nothing"],
    ["No devices were found\n", "no devices"],
    ["0, GPU-1, NVIDIA GB10, [N/A], [N/A]\n", "unified memory"],
    ["0, GPU-1, NVIDIA A100, [Insufficient Permissions], 0\n", "a GPU in instances"],
    ["0, GPU-1, X, -5, 7\n", "a negative size"],
    ["0, GPU-1, X, 0, 0\n", "no memory"],
    ["0, GPU-1, X, 99999999999999999999, 0\n", "an absurd size"],
    ["<html>not a tool</html>\n\u0000\u0001", "garbage"],
  ])("leaves out %j: %s", (output) => {
    expect(parseNvidiaGpus(output)).toEqual([]);
  });

  test("takes no more free than there is", () => {
    expect(parseNvidiaGpus("0, GPU-1, X, 10, 99\n")[0]?.freeBytes).toBe(10 * MIB);
  });
});

describe("parseComputeApps", () => {
  test("reads a line a process and leaves out what is not told", () => {
    const output = "812, GPU-5f2e, 1024\n813, GPU-5f2e, [N/A]\nnonsense\n";

    expect(parseComputeApps(output)).toEqual([
      { pid: 812, uuid: "GPU-5f2e", usedBytes: 1024 * MIB },
    ]);
  });
});

describe("parseVulkanGpus", () => {
  test("reads the largest local heap of each GPU, and what of it may be used", () => {
    const gpus = parseVulkanGpus(VULKAN);

    expect(
      gpus.map(({ index, isDiscrete, isProcessor }) => [index, isDiscrete, isProcessor]),
    ).toEqual([
      [0, false, false],
      [1, true, false],
      [2, true, false],
      [3, false, true],
    ]);
    expect(gpus[1]).toMatchObject({
      name: "NVIDIA GeForce GTX 1650",
      uuid: "11112222-0000-0000-0000-000000000000",
      totalBytes: 4_120_903_680,
      freeBytes: 3_502_768_128,
    });
    expect(gpus[2]?.freeBytes).toBeNull();
  });

  test("makes nothing of a summary, which has no heaps, and of garbage", () => {
    expect(parseVulkanGpus("GPU0:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n")).toEqual(
      [],
    );
    expect(parseVulkanGpus("Cannot create Vulkan instance.\n")).toEqual([]);
    expect(parseVulkanGpus("GPU999:\nmemoryHeaps[0]:\n")).toEqual([]);
  });
});

describe("pickVisible", () => {
  const all = parseNvidiaGpus(NVIDIA_TWO);
  const pick = (wanted: string | undefined): readonly number[] =>
    pickVisible(all, wanted, (gpu) => gpu).map(({ index }) => index);

  test.each([
    [undefined, [0, 1]],
    ["", []],
    ["-1", []],
    ["1", [1]],
    ["1,0", [1, 0]],
    [" 1 , 0 ", [1, 0]],
    ["0,7,1", [0]],
    ["1,1", [1]],
    ["GPU-aa11", [1]],
    ["gpu-AA11BB22-0000-1111-2222-333344445555,0", [1, 0]],
    ["GPU-", []],
    ["MIG-1", []],
    ["NoDevFiles", []],
  ] as const)("leaves of two, for %p, those numbered %p", (wanted, expected) => {
    expect(pick(wanted)).toEqual([...expected]);
  });
});
