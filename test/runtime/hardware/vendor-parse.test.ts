import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { readdirSync } from "node:fs";
import {
  NVIDIA_FIELDS,
  NVIDIA_OLD_FIELDS,
  parseNvidiaFacts,
  parseNvidiaGpus,
} from "../../../src/runtime/hardware/gpu-parse.ts";
import {
  parseAscend,
  parseClinfo,
  parseDisplayDrivers,
  parseKfdTarget,
  parseMthreads,
  parseRocminfo,
  parseRocmSmi,
  parseSyclLs,
  parseVulkanSummary,
} from "../../../src/runtime/hardware/vendor-parse.ts";
import { recorded } from "./machine-of.ts";

const MIB = 1024 * 1024;

const PARSERS: Readonly<Record<string, (output: string) => readonly unknown[]>> = {
  nvidia: (output) => parseNvidiaFacts(output, NVIDIA_FIELDS),
  "nvidia, old": (output) => parseNvidiaFacts(output, NVIDIA_OLD_FIELDS),
  "nvidia, memory": parseNvidiaGpus,
  rocminfo: parseRocminfo,
  "rocm-smi": parseRocmSmi,
  kfd: (output) => [parseKfdTarget(output)].filter((target) => target !== undefined),
  mthreads: parseMthreads,
  ascend: parseAscend,
  sycl: parseSyclLs,
  clinfo: parseClinfo,
  vulkan: parseVulkanSummary,
  reg: parseDisplayDrivers,
};
const FIXTURES = readdirSync(`${import.meta.dir}/../../fixtures/hardware`);

describe("parseNvidiaFacts", () => {
  test.each([
    ["nvidia-580.csv", [["NVIDIA GeForce RTX 4090", "580.65.06", 8.9, false, 24_564]]],
    [
      "nvidia-570-two.csv",
      [
        ["NVIDIA TITAN V", "570.86.15", 7, false, 12_288],
        ["NVIDIA RTX 5880 Ada Generation", "570.86.15", 8.9, false, 49_140],
      ],
    ],
    [
      "nvidia-535-mig.csv",
      [
        ["NVIDIA A100-SXM4-80GB", "535.216.01", 8, true, 81_920],
        ["NVIDIA A100-SXM4-80GB", "535.216.01", 8, false, 81_920],
      ],
    ],
    ["nvidia-550-mig-container.csv", [["NVIDIA H100 PCIe", "550.127.08", 9, true, null]]],
    ["nvidia-580-gb10.csv", [["NVIDIA GB10", "580.95.05", 12.1, false, null]]],
    [
      "nvidia-535-mixed.csv",
      [
        ["NVIDIA GeForce RTX 3090", "535.183.01", 8.6, false, 24_576],
        ["NVIDIA GRID K2, Special", "535.183.01", 3, false, 4096],
      ],
    ],
    ["nvidia-470-refused.txt", []],
    ["nvidia-no-devices.txt", []],
    ["nvidia-no-driver.txt", []],
    ["nvidia-mismatch.txt", []],
    ["nvidia-smi-l-mig.txt", []],
  ])("reads %s", async (name, expected) => {
    const facts = parseNvidiaFacts(await recorded(name), NVIDIA_FIELDS);

    expect(
      facts.map(({ name: gpu, driver, compute, isSplit, totalBytes }) => [
        gpu,
        driver,
        compute,
        isSplit,
        totalBytes === null ? null : totalBytes / MIB,
      ]),
    ).toEqual(expected);
  });

  test("reads what old drivers tell", async () => {
    const [gpu] = parseNvidiaFacts(await recorded("nvidia-470-old-fields.csv"), NVIDIA_OLD_FIELDS);

    expect(gpu).toEqual({
      index: 0,
      uuid: "GPU-a230e637-0000-1111-2222-333344445555",
      name: "Tesla V100-SXM2-16GB",
      totalBytes: 16_160 * MIB,
      driver: "470.182.03",
      compute: null,
      isSplit: false,
    });
  });

  test("takes nothing for a driver or a capability that does not look like one", () => {
    const [gpu] = parseNvidiaFacts("0, GPU-1, X, 1, [N/A]; rm, Perhaps, 8.9.1\n", NVIDIA_FIELDS);

    expect(gpu).toMatchObject({ driver: null, compute: null, isSplit: false });
  });
});

describe("AMD", () => {
  test.each([
    [
      "rocminfo-gfx1100.txt",
      [
        { name: "Radeon RX 7900 XTX", target: "gfx1100" },
        { name: "AMD Radeon Graphics", target: "gfx1036" },
      ],
    ],
    ["rocminfo-gfx803.txt", [{ name: "Radeon RX 580 Series", target: "gfx803" }]],
    ["rocminfo-no-name.txt", [{ name: "gfx1151", target: "gfx1151" }]],
    ["rocminfo-cpu-only.txt", []],
    ["rocminfo-no-module.txt", []],
  ])("parseRocminfo reads %s", async (name, expected) => {
    expect(parseRocminfo(await recorded(name))).toEqual(expected);
  });

  test.each([
    ["rocm-smi-6.json", [{ name: "AMD INSTINCT MI200 (MCM) OAM LC MBA HPE C2", target: "gfx90a" }]],
    [
      "rocm-smi-5.json",
      [
        { name: "Arcturus GL-XL [AMD Instinct MI100]", target: null },
        { name: "AMD GPU", target: null },
      ],
    ],
    ["rocm-smi-none.txt", []],
  ])("parseRocmSmi reads %s", async (name, expected) => {
    expect(parseRocmSmi(await recorded(name))).toEqual(expected);
  });

  test.each(["{", "[]", "null", '{"card0": 7}', '{"card0": {"GFX Version": 7}}', '{"cardX": {}}'])(
    "parseRocmSmi takes no names from %s",
    (output) => {
      expect(parseRocmSmi(output).filter(({ name }) => name !== "AMD GPU")).toEqual([]);
    },
  );

  test("parseKfdTarget writes the stepping in hexadecimal, and knows processors", async () => {
    expect(parseKfdTarget(await recorded("kfd-gfx942.txt"))).toBe("gfx942");
    expect(parseKfdTarget("gfx_target_version 90010\n")).toBe("gfx90a");
    expect(parseKfdTarget("gfx_target_version 110501\n")).toBe("gfx1151");
    expect(parseKfdTarget("gfx_target_version 80003\n")).toBe("gfx803");
    expect(parseKfdTarget(await recorded("kfd-cpu.txt"))).toBeUndefined();
  });
});

describe("other vendors", () => {
  test.each([
    [
      "mthreads-s5000.txt",
      [
        { name: "Moore Threads MTT S5000", totalBytes: 81_920 * MIB },
        { name: "Moore Threads MTT S5000", totalBytes: 81_920 * MIB },
      ],
    ],
    ["mthreads-s80.txt", [{ name: "Moore Threads MTT S80", totalBytes: 16_384 * MIB }]],
  ])("parseMthreads reads %s", async (name, expected) => {
    expect(parseMthreads(await recorded(name))).toEqual(expected);
  });

  test.each([
    [
      "npu-910.txt",
      [
        { name: "Ascend 910", totalBytes: 65_536 * MIB },
        { name: "Ascend 910", totalBytes: 65_536 * MIB },
      ],
    ],
    ["npu-910b4.txt", [{ name: "Ascend 910B4-1", totalBytes: 65_536 * MIB }]],
    ["npu-310p.txt", [{ name: "Ascend 310P3", totalBytes: 44_280 * MIB }]],
    ["npu-no-driver.txt", []],
  ])("parseAscend reads %s", async (name, expected) => {
    expect(parseAscend(await recorded(name))).toEqual(expected);
  });

  test.each([
    ["sycl-ls-2023.txt", ["Intel(R) Arc(TM) A770 Graphics"]],
    ["sycl-ls-2025.txt", ["Intel(R) Arc(TM) B580 Graphics"]],
    ["sycl-ls-cpu.txt", []],
  ])("parseSyclLs reads %s", async (name, expected) => {
    expect(parseSyclLs(await recorded(name)).map((gpu) => gpu.name)).toEqual(expected);
  });

  test.each([
    ["clinfo-adreno.txt", [{ name: "QUALCOMM Adreno(TM) 750", totalBytes: 7_946_760_192 }]],
    ["clinfo-cpu.txt", []],
    ["clinfo-none.txt", []],
  ])("parseClinfo reads %s", async (name, expected) => {
    expect(parseClinfo(await recorded(name))).toEqual(expected);
  });

  test.each([
    ["vulkan-llvmpipe.txt", []],
    ["vulkan-intel.txt", ["Intel(R) Arc(tm) A770 Graphics (DG2)"]],
    ["vulkan-amd-twice.txt", ["AMD Radeon RX 7900 XTX"]],
    ["vulkan-nvidia.txt", ["NVIDIA GeForce GT 710"]],
    ["vulkan-adreno.txt", ["Qualcomm(R) Adreno(TM) X1-85 GPU"]],
    ["vulkan-no-instance.txt", []],
  ])("parseVulkanSummary reads %s", async (name, expected) => {
    expect(parseVulkanSummary(await recorded(name)).map((gpu) => gpu.name)).toEqual(expected);
  });

  test("parseDisplayDrivers reads names, also with Windows' line ends", async () => {
    expect(parseDisplayDrivers(await recorded("reg-adreno.txt"))).toEqual([
      "Qualcomm(R) Adreno(TM) X1-85 GPU",
    ]);
    const laptop = (await recorded("reg-laptop.txt")).replaceAll("\n", "\r\n");
    expect(parseDisplayDrivers(laptop)).toEqual([
      "Intel(R) UHD Graphics 770",
      "NVIDIA GeForce RTX 4070 Laptop GPU",
      "Microsoft Basic Display Adapter",
    ]);
  });

  test("names are bounded and have no control characters", () => {
    const name = `A\u001B[31m${"x".repeat(500)}`;
    const output = `GPU0:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n\tdeviceName = ${name}\n`;

    const [gpu] = parseVulkanSummary(output);

    expect(gpu?.name).toHaveLength(200);
    expect(gpu?.name).not.toMatch(/\p{Cc}/u);
  });
});

describe.each(Object.entries(PARSERS))("any parser: %s", (_, parse) => {
  test.each(FIXTURES)("understands or leaves what begins like %s, cut anywhere", async (name) => {
    const text = await recorded(name);
    const whole = parse(text).length;

    for (let end = 0; end <= text.length; end += 7) {
      const part = parse(text.slice(0, end));
      expect(part.length).toBeLessThanOrEqual(Math.max(whole, 2));
    }
  });

  test("makes at most 64 GPUs of anything, and never throws", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 500 }), (text) => {
        expect(parse(text).length).toBeLessThanOrEqual(64);
      }),
      { numRuns: 200 },
    );
  });

  test("makes at most 64 GPUs of an endless list, in no time", async () => {
    const texts = await Promise.all(FIXTURES.map(recorded));
    const startedAt = performance.now();

    for (const text of texts) expect(parse(text.repeat(300)).length).toBeLessThanOrEqual(64);
    expect(parse("| ".repeat(200_000)).length).toBe(0);
    expect(parse(`0 MTT S${" ".repeat(200_000)}|`).length).toBe(0);
    expect(parse(`[level_zero:gpu${"a, ".repeat(100_000)}`).length).toBe(0);

    expect(performance.now() - startedAt).toBeLessThan(3000);
  });
});
