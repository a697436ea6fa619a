import { describe, expect, test } from "bun:test";
import type { Machine } from "../../../src/runtime/backend.ts";
import { type GpuFacts, readGpuFacts } from "../../../src/runtime/hardware/gpu-facts.ts";
import { machineOf, type Recorded, recorded } from "./machine-of.ts";

const LINUX = { platform: "linux", arch: "x64" } as const;
const WINDOWS = { platform: "win32", arch: "x64" } as const;
const WINDOWS_ARM = { platform: "win32", arch: "arm64" } as const;
const QUERY = "--format=csv,noheader,nounits";
const FULL = `nvidia-smi --query-gpu=index,uuid,name,memory.total,driver_version,mig.mode.current,compute_cap ${QUERY}`;
const OLD = `nvidia-smi --query-gpu=index,uuid,name,memory.total,driver_version ${QUERY}`;

function pci(vendor: string, kind = "0x030000", slot = "0000:01:00.0"): Record<string, string> {
  const directory = `/sys/bus/pci/devices/${slot}`;
  return { [`${directory}/vendor`]: `${vendor}\n`, [`${directory}/class`]: `${kind}\n` };
}

function facts(
  machine: Recorded,
  { on = LINUX, env = {} }: { on?: Machine; env?: Record<string, string> } = {},
): Promise<GpuFacts> {
  return readGpuFacts(on, machineOf(machine), env);
}

describe("readGpuFacts", () => {
  test("a machine with nothing has nothing, and says where it looked", async () => {
    const io = machineOf({});

    const found = await readGpuFacts(LINUX, io, {});

    expect(found.adapters).toEqual([]);
    expect(found.nvidia).toEqual({ found: [], problem: "`nvidia-smi` is not on PATH" });
    expect(found.amd.problem).toBe("`rocminfo` is not on PATH");
    expect(found.moore.problem).toBe("`mthreads-gmi` is not on PATH");
    expect(found.ascend.problem).toBe("`npu-smi` is not on PATH");
    expect(found.vulkan.problem).toBe("`vulkaninfo` is not on PATH");
    expect(io.asked).toEqual([]);
  });

  test("macOS is asked nothing", async () => {
    const io = machineOf({ tools: { "nvidia-smi": "0, GPU-1, X, 1, 580.1, [N/A], 8.9" } });

    const found = await readGpuFacts({ platform: "darwin", arch: "arm64" }, io, {});

    expect(io.asked).toEqual([]);
    expect(found.nvidia.found).toEqual([]);
  });

  test("adapters are those that compute, by PCI's numbers", async () => {
    const { adapters } = await facts({
      files: {
        ...pci("0x10de", "0x030000", "0000:01:00.0"),
        ...pci("0x10de", "0x040300", "0000:01:00.1"),
        ...pci("0x1002", "0x120000", "0000:02:00.0"),
        ...pci("0x8086", "0x030000", "0000:00:02.0"),
        // An NPU of Intel's, a network card, and displays of a server's management and of a virtual machine.
        ...pci("0x8086", "0x120000", "0000:00:0b.0"),
        ...pci("0x8086", "0x020000", "0000:00:1f.6"),
        ...pci("0x19e5", "0x030000", "0000:03:00.0"),
        ...pci("0x1a03", "0x030000", "0000:04:00.0"),
        ...pci("0x1af4", "0x038000", "0000:05:00.0"),
        ...pci("0x19e5", "0x120000", "0000:06:00.0"),
        ...pci("0x1ed5", "0x030000", "0000:07:00.0"),
      },
    });

    expect(adapters.map(({ vendor }) => vendor).toSorted()).toEqual([
      "amd",
      "huawei",
      "intel",
      "moore",
      "nvidia",
    ]);
  });

  test("Windows names its adapters, though `reg` fails in the end", async () => {
    const laptop = await recorded("reg-laptop.txt");

    const { adapters, vulkan } = await facts({ failing: { reg: laptop } }, { on: WINDOWS });

    expect(adapters).toEqual([
      { vendor: "intel", name: "Intel(R) UHD Graphics 770" },
      { vendor: "nvidia", name: "NVIDIA GeForce RTX 4070 Laptop GPU" },
    ]);
    expect(vulkan.found.map(({ name }) => name)).toEqual(adapters.map(({ name }) => name ?? ""));
  });
});

describe("readGpuFacts: NVIDIA", () => {
  test("is asked once", async () => {
    const io = machineOf({ tools: { [FULL]: await recorded("nvidia-580.csv") } });

    const { nvidia } = await readGpuFacts(LINUX, io, {});

    expect(nvidia.found.map(({ name }) => name)).toEqual(["NVIDIA GeForce RTX 4090"]);
    expect(io.asked).toEqual([FULL]);
  });

  test("a driver that does not know a field is asked without it", async () => {
    const io = machineOf({
      failing: { [FULL]: await recorded("nvidia-470-refused.txt") },
      tools: { [OLD]: await recorded("nvidia-470-old-fields.csv") },
    });

    const { nvidia } = await readGpuFacts(LINUX, io, {});

    expect(nvidia.found).toMatchObject([{ driver: "470.182.03", compute: null }]);
    expect(io.asked).toEqual([FULL, OLD]);
  });

  test("its tool is found where Windows puts it for Linux", async () => {
    const tool = "/usr/lib/wsl/lib/nvidia-smi";

    const { nvidia } = await facts({ tools: { [tool]: await recorded("nvidia-580.csv") } });

    expect(nvidia.found).toHaveLength(1);
  });

  test.each([
    ["nvidia-no-devices.txt", "`nvidia-smi` says: No devices were found"],
    [
      "nvidia-mismatch.txt",
      "`nvidia-smi` says: Failed to initialize NVML: Driver/library version mismatch",
    ],
    [
      "nvidia-no-driver.txt",
      "`nvidia-smi` says: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running",
    ],
  ])("that fails like %s says so", async (name, problem) => {
    const { nvidia } = await facts({ failing: { "nvidia-smi": await recorded(name) } });

    expect(nvidia).toEqual({ found: [], problem });
  });

  test.each([
    [{ CUDA_VISIBLE_DEVICES: "" }, []],
    [{ CUDA_VISIBLE_DEVICES: "-1" }, []],
    [{ CUDA_VISIBLE_DEVICES: "1" }, [1]],
    [{ CUDA_VISIBLE_DEVICES: "7" }, []],
    [{ CUDA_VISIBLE_DEVICES: "MIG-ce861fb0-0000-1111-2222-333344445555" }, [0]],
    [{}, [0, 1]],
  ])("with %j, those numbered %j are visible", async (env, expected) => {
    const tools = { "nvidia-smi": await recorded("nvidia-535-mig.csv") };

    const { nvidia } = await facts({ tools }, { env });

    expect(nvidia.found.map(({ index }) => index)).toEqual(expected);
    expect(nvidia.problem).toBe(
      expected.length === 0 ? "CUDA_VISIBLE_DEVICES hides all of them" : null,
    );
  });

  test("garbage is no GPU", async () => {
    const { nvidia } = await facts({ tools: { "nvidia-smi": "\u0000<html>" } });

    expect(nvidia).toEqual({ found: [], problem: "`nvidia-smi` lists none" });
  });
});

describe("readGpuFacts: others", () => {
  test("rocminfo is asked, and rocm-smi only where it is missing", async () => {
    const smi = { "rocm-smi": await recorded("rocm-smi-6.json") };
    const both = machineOf({ tools: { rocminfo: await recorded("rocminfo-gfx803.txt"), ...smi } });

    const { amd } = await readGpuFacts(LINUX, both, {});

    expect(amd.found).toEqual([{ name: "Radeon RX 580 Series", target: "gfx803" }]);
    expect(both.asked).toEqual(["rocminfo"]);
    expect((await facts({ tools: smi })).amd.found).toMatchObject([{ target: "gfx90a" }]);
  });

  test("ROCm is found where it installs itself, and its variables hide all", async () => {
    const tools = { "/opt/rocm/bin/rocminfo": await recorded("rocminfo-gfx1100.txt") };

    expect((await facts({ tools })).amd.found).toHaveLength(2);
    expect((await facts({ tools }, { env: { HIP_VISIBLE_DEVICES: "-1" } })).amd).toEqual({
      found: [],
      problem: "HIP_VISIBLE_DEVICES hides all of them",
    });
  });

  test("the kernel names AMD's chips", async () => {
    const nodes = "/sys/class/kfd/kfd/topology/nodes";

    const { amdTargets } = await facts({
      files: {
        [`${nodes}/0/properties`]: await recorded("kfd-cpu.txt"),
        [`${nodes}/1/properties`]: await recorded("kfd-gfx942.txt"),
      },
    });

    expect(amdTargets).toEqual(["gfx942"]);
  });

  test.each([
    ["mthreads-gmi", "mthreads-s80.txt", "moore", "Moore Threads MTT S80"],
    ["npu-smi", "npu-910b4.txt", "ascend", "Ascend 910B4-1"],
    ["sycl-ls", "sycl-ls-2025.txt", "oneapi", "Intel(R) Arc(TM) B580 Graphics"],
    ["vulkaninfo", "vulkan-intel.txt", "vulkan", "Intel(R) Arc(tm) A770 Graphics (DG2)"],
  ] as const)("%s is read", async (...[tool, file, member, name]) => {
    const found = await facts({ tools: { [tool]: await recorded(file) } });

    expect(found[member].found.map((gpu) => gpu.name)).toEqual([name]);
  });

  test("without vulkaninfo a driver's manifest beside its adapter is enough, and both are needed", async () => {
    const manifest = { "/usr/share/vulkan/icd.d/radeon_icd.x86_64.json": "{}" };
    const software = { "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json": "{}" };

    const amd = await facts({ files: { ...pci("0x1002"), ...manifest, ...software } });
    const driverless = await facts({ files: { ...pci("0x1002"), ...software } });
    const absent = await facts({ files: manifest });

    expect(amd.vulkan.found.map(({ name }) => name)).toEqual(["an AMD GPU"]);
    expect(driverless.vulkan.found).toEqual([]);
    expect(absent.vulkan.found).toEqual([]);
  });

  test("what vulkaninfo says counts more than a manifest", async () => {
    const { vulkan } = await facts({
      files: { ...pci("0x8086"), "/usr/share/vulkan/icd.d/intel_icd.x86_64.json": "{}" },
      tools: { vulkaninfo: await recorded("vulkan-llvmpipe.txt") },
    });

    expect(vulkan).toEqual({ found: [], problem: "`vulkaninfo` lists none" });
  });

  test.each([
    ["Qualcomm(R) Adreno(TM) X1-85 GPU", 1],
    ["Snapdragon(R) X Elite - X1E78100 - Qualcomm(R) Adreno(TM) GPU", 1],
    ["Qualcomm(R) Adreno(TM) 690 GPU", 0],
    ["Microsoft Basic Display Adapter", 0],
  ])("on Windows for ARM, %s gives %p for OpenCL", async (name, count) => {
    const reg = `    DriverDesc    REG_SZ    ${name}\n`;

    const { adreno } = await facts({ tools: { reg } }, { on: WINDOWS_ARM });

    expect(adreno.found).toHaveLength(count);
  });

  test("where the registry is silent, clinfo is asked, on Windows for ARM alone", async () => {
    const tools = { clinfo: await recorded("clinfo-adreno.txt") };

    expect((await facts({ tools }, { on: WINDOWS_ARM })).adreno.found).toHaveLength(1);
    expect((await facts({ tools }, { on: WINDOWS })).adreno.found).toEqual([]);
  });
});
