import { describe, expect, test } from "bun:test";
import { isWindows, testIf } from "../../helpers/test-if.ts";
import { writeFile } from "node:fs/promises";

import { detectGpu, physicalCores } from "../../../src/runtime/hardware/index.ts";
import {
  countPhysicalCores,
  hasNvidiaGpu,
  hasRocmGpu,
  hasVulkanGpu,
  parseCpuQuota,
} from "../../../src/runtime/hardware/parse.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const LLVMPIPE = `Devices:
========
GPU0:
	apiVersion         = 1.3.289
	deviceType         = PHYSICAL_DEVICE_TYPE_CPU
	deviceName         = llvmpipe (LLVM 19.1.7, 256 bits)
`;

function block(id: number, core: number): string {
  return `processor\t: ${id}\nphysical id\t: 0\ncore id\t\t: ${core}\n`;
}

describe("hardware parsers", () => {
  test("hardware: nvidia-smi lists devices", () => {
    const list = "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-5f2e)\nGPU 1: NVIDIA A100 (UUID: x)\n";

    expect(hasNvidiaGpu(list)).toBe(true);
    expect(hasNvidiaGpu("No devices were found\n")).toBe(false);
  });

  test("hardware: rocm-smi's JSON may follow warnings", () => {
    const json = 'WARNING: AMD GPU\n{"card0": {"Card Series": "AMD Radeon RX 7900 XTX"}}\n';

    expect(hasRocmGpu(json)).toBe(true);
    expect(hasRocmGpu("ERROR: no AMD GPUs\n{}\n")).toBe(false);
  });

  test("hardware: a software renderer is no Vulkan device", () => {
    expect(hasVulkanGpu(LLVMPIPE)).toBe(false);
    expect(hasVulkanGpu(LLVMPIPE.replace("TYPE_CPU", "TYPE_DISCRETE_GPU"))).toBe(true);
  });

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

describe("detectGpu", () => {
  const linux = { platform: "linux", arch: "x64" } as const;

  test("detectGpu: the environment decides", async () => {
    expect(await detectGpu(linux, { TUG_GPU: "rocm", PATH: "" })).toBe("rocm");
  });

  test("detectGpu: Apple silicon has Metal, Intel Macs have nothing", async () => {
    expect(await detectGpu({ platform: "darwin", arch: "arm64" }, {})).toBe("metal");
    expect(await detectGpu({ platform: "darwin", arch: "x64" }, {})).toBe("none");
  });

  test("detectGpu: without tools there is no GPU", async () => {
    expect(await detectGpu(linux, { PATH: "/nonexistent" })).toBe("none");
  });

  testIf(!isWindows, "Windows works otherwise")(
    "detectGpu: tools on PATH are asked, best first, and failures mean no",
    async () => {
      await using directory = await tempDir();
      const write = (name: string, text: string): Promise<void> =>
        writeFile(`${directory.path}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      const env = { PATH: directory.path };

      await write("vulkaninfo", "echo 'deviceType = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU'");
      await write("nvidia-smi", "echo 'GPU 0: broken'; exit 9");
      expect(await detectGpu(linux, env)).toBe("vulkan");

      await write("nvidia-smi", "echo 'GPU 0: NVIDIA T4 (UUID: GPU-1)'");
      expect(await detectGpu(linux, env)).toBe("cuda");
      expect(await detectGpu(linux, { ...env, CUDA_VISIBLE_DEVICES: "" })).toBe("vulkan");
    },
  );
});
