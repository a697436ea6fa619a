import { describe, expect, test } from "bun:test";
import { totalmem } from "node:os";
import { type Device, readDevices } from "../../../src/runtime/hardware/devices.ts";
import { isLinux, testIf } from "../../helpers/test-if.ts";
import { machineOf, recorded } from "./machine-of.ts";
import {
  LIMITS,
  MEMINFO,
  MOUNTS_HYBRID,
  MOUNTS_V2,
  NVIDIA_TWO,
  VM_STAT,
  VULKAN,
} from "./recorded.ts";

const GIB = 1024 ** 3;
const LINUX = { platform: "linux", arch: "x64" } as const;
const MAC = { platform: "darwin", arch: "arm64" } as const;
const CARD = "/sys/class/drm/card";

async function ramOf(files: Readonly<Record<string, string>>): Promise<Device | undefined> {
  const io = machineOf({ files: { "/proc/meminfo": MEMINFO, ...files } });
  return (await readDevices({ machine: LINUX, env: {}, variant: "cpu", io }))[0];
}

function amdCard(card: number, amounts: { vram: number; used?: number; gtt: number }) {
  const directory = `${CARD}${card}/device`;
  return {
    [`${directory}/vendor`]: "0x1002\n",
    [`${directory}/mem_info_vram_total`]: `${amounts.vram}\n`,
    [`${directory}/mem_info_vram_used`]: `${amounts.used ?? 0}\n`,
    [`${directory}/mem_info_gtt_total`]: `${amounts.gtt}\n`,
  };
}

function readIntelOf(vulkaninfo: string): Promise<readonly Device[]> {
  return readDevices({
    machine: LINUX,
    env: { GGML_VK_VISIBLE_DEVICES: "0" },
    variant: "sycl",
    io: machineOf({ tools: { vulkaninfo } }),
  });
}

describe("readDevices: main memory", () => {
  test("is what the machine has", async () => {
    const ram = await ramOf({ "/proc/self/limits": LIMITS });

    expect(ram).toMatchObject({
      id: "ram",
      kind: "ram",
      name: null,
      totalBytes: 24_684_084 * 1024,
    });
  });

  test("is the tightest limit from the own control group up", async () => {
    const ram = await ramOf({
      "/proc/self/cgroup": "0::/a/b\n",
      "/proc/self/mountinfo": MOUNTS_V2,
      "/sys/fs/cgroup/a/memory.max": `${2 * GIB}\n`,
      "/sys/fs/cgroup/a/memory.current": `${GIB}\n`,
      "/sys/fs/cgroup/a/memory.stat": `inactive_file ${GIB / 2}\n`,
      "/sys/fs/cgroup/a/b/memory.max": "max\n",
      "/sys/fs/cgroup/a/b/memory.high": `${4 * GIB}\n`,
    });

    expect(ram).toMatchObject({ totalBytes: 2 * GIB, freeBytes: 1.5 * GIB });
  });

  test("is limited by memory.high as well, and by version 1", async () => {
    const high = await ramOf({
      "/proc/self/cgroup": "0::/\n",
      "/proc/self/mountinfo": MOUNTS_V2,
      "/sys/fs/cgroup/memory.high": `${3 * GIB}\n`,
    });
    const first = await ramOf({
      "/proc/self/cgroup": "4:memory:/a\n",
      "/proc/self/mountinfo": MOUNTS_HYBRID,
      "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
      "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": `${GIB}\n`,
      "/sys/fs/cgroup/memory/a/memory.usage_in_bytes": `${2 * GIB}\n`,
    });

    expect(high?.totalBytes).toBe(3 * GIB);
    expect(first).toMatchObject({ totalBytes: GIB, freeBytes: 0 });
  });

  test("is limited by ulimit -v", async () => {
    const limits = LIMITS.replace(/(address space\s+)unlimited/, `$1${4 * GIB}`);

    const ram = await ramOf({ "/proc/self/limits": limits });

    expect(ram).toMatchObject({ totalBytes: 4 * GIB, freeBytes: 4 * GIB });
  });

  test("is what the runtime knows, where no reader knows more", async () => {
    const io = machineOf({});

    const [linux] = await readDevices({ machine: LINUX, env: {}, variant: "cpu", io });
    const windows = { platform: "win32", arch: "x64" } as const;
    const [other] = await readDevices({ machine: windows, env: {}, variant: "cpu", io });

    expect(linux).toMatchObject({ totalBytes: 8 * GIB, freeBytes: 3 * GIB });
    expect(other).toMatchObject({ totalBytes: 8 * GIB, freeBytes: 3 * GIB });
  });

  testIf(isLinux, "Linux's files")("is read from this machine", async () => {
    const devices = await readDevices({ machine: LINUX, env: { PATH: "" }, variant: "cpu" });

    expect(devices).toHaveLength(1);
    expect(devices[0]?.totalBytes).toBeGreaterThan(0);
    expect(devices[0]?.totalBytes).toBeLessThanOrEqual(totalmem());
    expect(devices[0]?.freeBytes).toBeLessThanOrEqual(devices[0]?.totalBytes ?? 0);
  });
});

describe("readDevices: NVIDIA", () => {
  const io = machineOf({ tools: { "nvidia-smi": NVIDIA_TWO } });

  test("are numbered as CUDA numbers what is visible", async () => {
    const env = { CUDA_VISIBLE_DEVICES: "1" };

    const devices = await readDevices({ machine: LINUX, env, variant: "cuda", io });

    expect(devices.map(({ id, name }) => [id, name])).toEqual([
      ["ram", null],
      ["cuda:0", "NVIDIA A100-SXM4-40GB"],
    ]);
    expect(devices[1]?.uuid).toStartWith("GPU-aa11bb22");
  });

  test("are not asked for where the build does not use them", async () => {
    const watched = machineOf({ tools: { "nvidia-smi": NVIDIA_TWO } });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "cpu", io: watched });

    expect(devices.map(({ id }) => id)).toEqual(["ram"]);
    expect(watched.asked).toEqual([]);
  });

  test.each(["", "garbage\n", "0, GPU-1, NVIDIA GB10, [N/A], [N/A]\n"])(
    "are none where the tool says %j",
    async (output) => {
      const deaf = machineOf({ tools: { "nvidia-smi": output } });

      const devices = await readDevices({ machine: LINUX, env: {}, variant: "cuda", io: deaf });

      expect(devices.map(({ id }) => id)).toEqual(["ram"]);
    },
  );
});

describe("readDevices: AMD", () => {
  const cards = {
    ...amdCard(0, { vram: GIB / 2, gtt: 12 * GIB }),
    ...amdCard(1, { vram: 16 * GIB, used: GIB, gtt: 12 * GIB }),
    ...amdCard(10, { vram: 24 * GIB, gtt: 12 * GIB }),
    [`${CARD}1-HDMI-A-1/status`]: "connected\n",
    [`${CARD}2/device/vendor`]: "0x8086\n",
    [`${CARD}1/device/product_name`]: "Radeon RX 7900 XT\n",
    [`${CARD}10/device/unique_id`]: "18f68e602b8a790f\n",
  };

  test("are the cards, by number, without the graphics of the processor", async () => {
    const io = machineOf({ files: cards });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "rocm", io });

    expect(devices.slice(1)).toEqual([
      {
        id: "rocm:0",
        kind: "rocm",
        name: "Radeon RX 7900 XT",
        totalBytes: 16 * GIB,
        freeBytes: 15 * GIB,
      },
      {
        id: "rocm:1",
        kind: "rocm",
        name: null,
        totalBytes: 24 * GIB,
        freeBytes: 24 * GIB,
        uuid: "GPU-18f68e602b8a790f",
      },
    ]);
    expect(devices[0]).not.toHaveProperty("gpuLimitBytes");
  });

  test("obey ROCm's variables, the second within the first", async () => {
    const io = machineOf({ files: cards });
    const env = { ROCR_VISIBLE_DEVICES: "GPU-18f68e602b8a790f,0", HIP_VISIBLE_DEVICES: "1" };

    const devices = await readDevices({ machine: LINUX, env, variant: "rocm", io });

    expect(devices.map(({ name }) => name)).toEqual([null, "Radeon RX 7900 XT"]);
  });

  test("of a processor alone share main memory, up to what it can map", async () => {
    const io = machineOf({
      files: { "/proc/meminfo": MEMINFO, ...amdCard(0, { vram: GIB / 2, gtt: 12 * GIB }) },
    });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "rocm", io });

    expect(devices).toHaveLength(1);
    expect(devices[0]?.gpuLimitBytes).toBe(12 * GIB);
  });

  test("are none where the driver's files say nothing of use", async () => {
    const io = machineOf({
      files: {
        [`${CARD}0/device/vendor`]: "0x1002",
        [`${CARD}0/device/mem_info_vram_total`]: "lots",
      },
    });

    expect(await readDevices({ machine: LINUX, env: {}, variant: "rocm", io })).toHaveLength(1);
  });
});

describe("readDevices: other vendors", () => {
  test("Moore Threads' tool tells what there is, and its variable what may be used", async () => {
    const io = machineOf({ tools: { "mthreads-gmi": await recorded("mthreads-s5000.txt") } });
    const read = (env: Record<string, string>) =>
      readDevices({ machine: LINUX, env, variant: "musa", io });

    const [, first, second] = await read({});
    expect(first).toMatchObject({ id: "musa:0", kind: "musa", totalBytes: 80 * GIB });
    expect(second).toMatchObject({ id: "musa:1", freeBytes: null });
    expect(await read({ MUSA_VISIBLE_DEVICES: "1" })).toHaveLength(2);
    expect(await read({ MUSA_VISIBLE_DEVICES: "" })).toHaveLength(1);
  });

  test("Huawei's chips have the memory that npu-smi tells", async () => {
    const io = machineOf({ tools: { "npu-smi info": await recorded("npu-910b4.txt") } });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "cann", io });

    expect(devices[1]).toMatchObject({ id: "cann:0", kind: "cann", totalBytes: 64 * GIB });
  });

  test("Intel's cards are those of Vulkan's that are Intel's; graphics of a processor are none", async () => {
    const arc = VULKAN.replaceAll(/NVIDIA GeForce GTX 1650/g, "Intel(R) Arc(tm) A770 Graphics");

    expect((await readIntelOf(arc)).slice(1)).toMatchObject([
      { id: "sycl:0", totalBytes: 4_120_903_680 },
    ]);
    expect(await readIntelOf(VULKAN)).toHaveLength(1);
  });

  test("tools that are not there, or print nonsense, are no GPU", async () => {
    for (const variant of ["musa", "cann", "sycl", "opencl"]) {
      const nonsense = { "mthreads-gmi": "?", "npu-smi": "|".repeat(9999), vulkaninfo: "GPU0:" };
      for (const tools of [{}, nonsense]) {
        const io = machineOf({ tools });
        expect(await readDevices({ machine: LINUX, env: {}, variant, io })).toHaveLength(1);
      }
    }
  });
});

describe("readDevices: Vulkan and Metal", () => {
  test("Vulkan's cards count once, however many drivers they have", async () => {
    const io = machineOf({ tools: { vulkaninfo: VULKAN } });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "vulkan", io });

    expect(devices.slice(1)).toMatchObject([
      { id: "vulkan:0", name: "NVIDIA GeForce GTX 1650", freeBytes: 3_502_768_128 },
    ]);
  });

  test("llama.cpp's own variable chooses, and what shares main memory is no device", async () => {
    const io = machineOf({ tools: { vulkaninfo: VULKAN } });
    const env = { GGML_VK_VISIBLE_DEVICES: "2,0" };

    const devices = await readDevices({ machine: LINUX, env, variant: "vulkan", io });

    expect(devices.slice(1)).toMatchObject([{ id: "vulkan:0", totalBytes: 4 * GIB }]);
  });

  test("without vulkaninfo the vendors are asked", async () => {
    const io = machineOf({
      files: amdCard(0, { vram: 16 * GIB, gtt: GIB }),
      tools: { "nvidia-smi": NVIDIA_TWO },
    });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "vulkan", io });

    expect(devices.map(({ id, alias, kind }) => [id, alias, kind])).toEqual([
      ["ram", undefined, "ram"],
      ["cuda:0", "vulkan:0", "vulkan"],
      ["cuda:1", "vulkan:1", "vulkan"],
      ["vulkan:2", undefined, "vulkan"],
    ]);
  });

  test("a card has the id that builds for CUDA give it, which those for Vulkan may count otherwise", async () => {
    const [first, second] = NVIDIA_TWO.matchAll(/GPU-([^,]+)/g).map(([, uuid]) => uuid);
    const vulkaninfo = VULKAN.replaceAll("11112222-0000-0000-0000-000000000000", second ?? "");
    const io = machineOf({ tools: { vulkaninfo, "nvidia-smi": NVIDIA_TWO } });
    const read = (env: Record<string, string>) =>
      readDevices({ machine: LINUX, env, variant: "vulkan", io });

    expect((await read({})).slice(1)).toMatchObject([
      { id: "cuda:1", alias: "vulkan:0", kind: "vulkan", uuid: `GPU-${second}` },
    ]);
    // Builds for CUDA do not see it then.
    expect((await read({ CUDA_VISIBLE_DEVICES: `GPU-${first}` }))[1]?.id).toBe("vulkan:0");
  });

  test("a card of AMD's is told by its place on the bus", async () => {
    const files = {
      ...amdCard(0, { vram: 16 * GIB, gtt: GIB }),
      ...amdCard(1, { vram: 16 * GIB, gtt: GIB }),
      [`${CARD}0/device/uevent`]: "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:0c:00.0\n",
      [`${CARD}1/device/uevent`]: "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
    };
    const amd = "00000000-0300-0000-0000-000000000000";
    const vulkaninfo = VULKAN.replaceAll("11112222-0000-0000-0000-000000000000", amd);
    const io = machineOf({ files, tools: { vulkaninfo } });

    const devices = await readDevices({ machine: LINUX, env: {}, variant: "vulkan", io });

    expect(devices.slice(1)).toMatchObject([{ id: "rocm:1", alias: "vulkan:0" }]);
  });

  test("Apple's GPU shares main memory, up to what Metal allows", async () => {
    const tools = {
      "sysctl hw.memsize": `hw.memsize: ${32 * GIB}\n`,
      "sysctl iogpu.wired_limit_mb": "iogpu.wired_limit_mb: 24576\n",
      vm_stat: VM_STAT,
    };

    const [set] = await readDevices({
      machine: MAC,
      env: {},
      variant: "metal",
      io: machineOf({ tools }),
    });
    const withoutLimit = { ...tools, "sysctl iogpu.wired_limit_mb": "" };
    const [unset] = await readDevices({
      machine: MAC,
      env: {},
      variant: "metal",
      io: machineOf({ tools: withoutLimit }),
    });

    expect(set).toEqual({
      id: "ram",
      kind: "ram",
      name: null,
      totalBytes: 32 * GIB,
      freeBytes: (19_455 + 425_521 + 946) * 16_384,
      gpuLimitBytes: 24 * GIB,
    });
    expect(unset?.gpuLimitBytes).toBe(Math.floor((32 * GIB * 2) / 3));
  });

  test("an aborted signal ends it", async () => {
    const signal = AbortSignal.abort(new Error("gone"));

    expect(
      readDevices({ machine: LINUX, env: {}, variant: "cuda", signal, io: machineOf({}) }),
    ).rejects.toThrow("gone");
  });
});
