import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { recipe } from "../../../backends/llamacpp/install.ts";
import type { AppError } from "../../../src/errors.ts";
import { type Gpu, GPUS, type Machine } from "../../../src/runtime/backend.ts";
import { type GpuFacts, noGpus } from "../../../src/runtime/hardware/gpu-facts.ts";
import type { NvidiaFact } from "../../../src/runtime/hardware/gpu-parse.ts";
import { cudaOf } from "../../../src/runtime/hardware/judge.ts";
import {
  chooseAssumed,
  chooseVariant,
  parseAssumed,
  type VariantRequest,
} from "../../../src/runtime/hardware/variant.ts";

const LINUX = { platform: "linux", arch: "x64" } as const;
const WINDOWS = { platform: "win32", arch: "x64" } as const;
const WINDOWS_ARM = { platform: "win32", arch: "arm64" } as const;
const MAC = { platform: "darwin", arch: "arm64" } as const;
const INTEL_MAC = { platform: "darwin", arch: "x64" } as const;

function machine(extra: Partial<GpuFacts> = {}, on: Machine = LINUX): GpuFacts {
  return {
    ...noGpus(on),
    nvidia: missing("nvidia-smi"),
    amd: missing("rocminfo"),
    moore: missing("mthreads-gmi"),
    ascend: missing("npu-smi"),
    oneapi: missing("sycl-ls"),
    vulkan: missing("vulkaninfo"),
    ...extra,
  };
}

function missing(tool: string): { found: []; problem: string } {
  return problem(`\`${tool}\` is not on PATH`);
}

function found<T>(...all: readonly T[]): { found: readonly T[]; problem: null } {
  return { found: all, problem: null };
}

function problem(text: string): { found: []; problem: string } {
  return { found: [], problem: text };
}

const RTX4090: NvidiaFact = {
  index: 0,
  uuid: "GPU-1",
  name: "NVIDIA GeForce RTX 4090",
  totalBytes: 24_564 * 1024 * 1024,
  driver: "580.65.06",
  compute: 8.9,
  isSplit: false,
};
const V100: NvidiaFact = { ...RTX4090, name: "Tesla V100", driver: "470.182.03", compute: null };
const K2: NvidiaFact = { ...RTX4090, index: 1, name: "GRID K2", driver: "535.1", compute: 3 };
const SPLIT: NvidiaFact = { ...RTX4090, name: "NVIDIA A100", driver: "535.216.01", isSplit: true };
const XTX = { name: "Radeon RX 7900 XTX", target: "gfx1100" };
const RX580 = { name: "Radeon RX 580", target: "gfx803" };
const ARC = { name: "Intel(R) Arc(TM) A770 Graphics", totalBytes: null };
const NV = { vendor: "nvidia", name: null } as const;
const AMD = { vendor: "amd", name: null } as const;
const INTEL = { vendor: "intel", name: null } as const;
const named = (name: string): { name: string; totalBytes: null } => ({ name, totalBytes: null });
const MISMATCH = problem("`nvidia-smi` says: Failed to initialize NVML: version mismatch");

interface Row {
  readonly facts: GpuFacts;
  readonly available?: readonly Gpu[];
  readonly gpu: Gpu;
  readonly reason: string;
  readonly warnings?: readonly string[];
  readonly order?: readonly Gpu[];
}

const AUTOMATIC: readonly Row[] = [
  { facts: machine(), gpu: "none", reason: "none: no GPU was found", order: ["none"] },
  { facts: machine({}, MAC), gpu: "metal", reason: "metal: Apple silicon", order: ["metal"] },
  { facts: machine({}, INTEL_MAC), gpu: "none", reason: "none: no GPU was found" },
  {
    facts: machine({ nvidia: found(RTX4090), adapters: [NV] }),
    gpu: "cuda",
    reason: "cuda: NVIDIA GeForce RTX 4090 (compute 8.9, driver 580.65.06, CUDA 13.0)",
    order: ["cuda", "vulkan", "none"],
  },
  {
    facts: machine({ nvidia: found(RTX4090, { ...RTX4090, index: 1 }) }),
    gpu: "cuda",
    reason: "cuda: NVIDIA GeForce RTX 4090 and 1 more (compute 8.9, driver 580.65.06, CUDA 13.0)",
  },
  {
    facts: machine({ nvidia: found(SPLIT) }),
    gpu: "cuda",
    reason:
      "cuda: NVIDIA A100 (compute 8.9, driver 535.216.01, CUDA 12.2, split into MIG instances)",
  },
  {
    facts: machine({ nvidia: found({ ...RTX4090, driver: null, compute: null }) }),
    gpu: "cuda",
    reason: "cuda: NVIDIA GeForce RTX 4090",
  },
  {
    facts: machine({ nvidia: found({ ...RTX4090, driver: "535.1", compute: 8.6 }, K2) }),
    gpu: "cuda",
    reason: "cuda: NVIDIA GeForce RTX 4090 (compute 8.6, driver 535.1, CUDA 12.2)",
    warnings: [
      "GPU 1 (GRID K2) cannot be used: its compute capability 3.0 is too low (5.0 is needed); hide it with CUDA_VISIBLE_DEVICES",
    ],
  },
  {
    facts: machine({ nvidia: found(V100), adapters: [NV] }),
    gpu: "none",
    reason:
      "none, although an NVIDIA GPU is there: its driver 470.182.03 is too old for CUDA 12 (525 is needed)",
    warnings: [
      "the processor alone is used, although an NVIDIA GPU is there: its driver 470.182.03 is too old for CUDA 12 (525 is needed) (Update NVIDIA's driver)",
    ],
    order: ["none"],
  },
  {
    facts: machine({ nvidia: found(V100), adapters: [NV], vulkan: found(named("Tesla V100")) }),
    gpu: "vulkan",
    reason: "vulkan: Tesla V100",
    warnings: [
      "cuda was not chosen, although an NVIDIA GPU is there: its driver 470.182.03 is too old for CUDA 12 (525 is needed) (Update NVIDIA's driver)",
    ],
    order: ["vulkan", "none"],
  },
  {
    facts: machine({ nvidia: found(K2) }),
    gpu: "none",
    reason:
      "none, although an NVIDIA GPU is there: its compute capability 3.0 is too low (5.0 is needed)",
    warnings: [
      "the processor alone is used, although an NVIDIA GPU is there: its compute capability 3.0 is too low (5.0 is needed)",
    ],
  },
  {
    facts: machine({ nvidia: MISMATCH, adapters: [NV] }),
    gpu: "none",
    reason:
      "none, although an NVIDIA GPU is there: `nvidia-smi` says: Failed to initialize NVML: version mismatch",
    warnings: [
      "the processor alone is used, although an NVIDIA GPU is there: `nvidia-smi` says: Failed to initialize NVML: version mismatch (Restart the machine: its driver was updated while it ran)",
    ],
  },
  {
    facts: machine({ amd: found(XTX), adapters: [AMD] }),
    gpu: "rocm",
    reason: "rocm: Radeon RX 7900 XTX (gfx1100)",
    order: ["rocm", "vulkan", "none"],
  },
  {
    facts: machine({ amd: found(RX580), adapters: [AMD], vulkan: found(named("RX 580 (RADV)")) }),
    gpu: "vulkan",
    reason: "vulkan: RX 580 (RADV)",
    warnings: [
      "rocm was not chosen, although an AMD GPU is there: the builds have no code for gfx803 (Set HSA_OVERRIDE_GFX_VERSION where its chip runs the code of another, or use `--gpu vulkan`)",
    ],
  },
  {
    facts: machine({ amd: found(RX580), overridesTarget: true }),
    gpu: "rocm",
    reason: "rocm: Radeon RX 580 (gfx803)",
  },
  {
    facts: machine({ adapters: [AMD], vulkan: found(named("AMD Radeon RX 7900 XTX (RADV)")) }),
    gpu: "vulkan",
    reason: "vulkan: AMD Radeon RX 7900 XTX (RADV) without ROCm",
  },
  {
    facts: machine({ amdTargets: ["gfx1100"], adapters: [AMD] }),
    gpu: "none",
    reason:
      "none, although an AMD GPU is there: ROCm does not serve it (`rocminfo` is not on PATH)",
    warnings: [
      "the processor alone is used, although an AMD GPU is there: ROCm does not serve it (`rocminfo` is not on PATH) (Install ROCm, or use `--gpu vulkan`)",
    ],
  },
  {
    facts: machine({ adapters: [INTEL], vulkan: found(ARC) }),
    gpu: "vulkan",
    reason: "vulkan: Intel(R) Arc(TM) A770 Graphics",
  },
  {
    facts: machine({ adapters: [INTEL], vulkan: found(ARC), oneapi: found(ARC) }),
    gpu: "sycl",
    reason: "sycl: Intel(R) Arc(TM) A770 Graphics",
    order: ["sycl", "vulkan", "none"],
  },
  {
    facts: machine({ moore: found(named("Moore Threads MTT S80")) }),
    gpu: "musa",
    reason: "musa: Moore Threads MTT S80",
    order: ["musa", "vulkan", "none"],
  },
  {
    facts: machine({ ascend: found(named("Ascend 910B4"), named("Ascend 910B4")) }),
    gpu: "cann",
    reason: "cann: Ascend 910B4 and 1 more",
  },
  {
    facts: machine({
      ascend: found(named("Ascend 310P3")),
      adapters: [{ vendor: "huawei", name: null }],
    }),
    gpu: "none",
    reason:
      "none, although an Ascend NPU is there: the builds are for Ascend 910, not for Ascend 310P3",
    warnings: [
      "the processor alone is used, although an Ascend NPU is there: the builds are for Ascend 910, not for Ascend 310P3",
    ],
  },
  {
    facts: machine(
      { adreno: found(named("Adreno X1-85")), vulkan: found(named("Adreno X1-85")) },
      WINDOWS_ARM,
    ),
    gpu: "opencl",
    reason: "opencl: Adreno X1-85",
    order: ["opencl", "vulkan", "none"],
  },
  {
    facts: machine({ nvidia: found(RTX4090), vulkan: found(named("RTX 4090")) }, WINDOWS),
    available: ["none", "rocm", "vulkan"],
    gpu: "vulkan",
    reason: "vulkan: RTX 4090 (llama.cpp has no cuda build for win32 x64)",
    order: ["vulkan", "none"],
  },
  {
    facts: machine({ nvidia: found(RTX4090) }),
    available: ["none"],
    gpu: "none",
    reason:
      "none, although NVIDIA GeForce RTX 4090 (compute 8.9, driver 580.65.06, CUDA 13.0) is there: llama.cpp has no cuda build for linux x64",
    warnings: [
      "the processor alone is used, although NVIDIA GeForce RTX 4090 (compute 8.9, driver 580.65.06, CUDA 13.0) is there: llama.cpp has no cuda build for linux x64",
    ],
    order: ["none"],
  },
  {
    // Windows' adapters have names; SYCL and ROCm are for who asks.
    facts: machine(
      {
        adapters: [
          { vendor: "intel", name: "Intel(R) UHD" },
          { vendor: "amd", name: "AMD Radeon RX 9070" },
        ],
        vulkan: found(named("AMD Radeon RX 9070")),
      },
      WINDOWS,
    ),
    gpu: "vulkan",
    reason: "vulkan: AMD Radeon RX 9070",
  },
];

function choose(facts: GpuFacts, request: Partial<VariantRequest> = {}) {
  return chooseVariant(facts, { engine: "llama.cpp", needs: recipe.gpuNeeds, ...request });
}

function refusalOf(work: () => unknown): AppError {
  try {
    work();
  } catch (error) {
    return error as AppError;
  }
  throw new Error("it was not refused");
}

describe("chooseVariant", () => {
  test.each(AUTOMATIC.map((row) => [row.reason, row] as const))("%s", (_, row) => {
    const choice = choose(row.facts, { available: row.available });

    expect(choice.gpu).toBe(row.gpu);
    expect(choice.reason).toBe(row.reason);
    expect(choice.warnings).toEqual(row.warnings ?? []);
    if (row.order !== undefined) expect(choice.order).toEqual(row.order);
    expect(choice.order[0]).toBe(choice.gpu);
  });

  test.each([
    ["none", machine({ nvidia: found(RTX4090) }), "none: it was asked for"],
    [
      "cuda",
      machine({ nvidia: found(RTX4090) }),
      "cuda: NVIDIA GeForce RTX 4090 (compute 8.9, driver 580.65.06, CUDA 13.0)",
    ],
    ["vulkan", machine({ nvidia: found(RTX4090), vulkan: found(named("RTX")) }), "vulkan: RTX"],
    ["metal", machine({}, MAC), "metal: Apple silicon"],
    ["rocm", machine({ adapters: [{ vendor: "amd", name: "RX 9070" }] }, WINDOWS), "rocm: RX 9070"],
    ["sycl", machine({ adapters: [{ vendor: "intel", name: "Arc" }] }, WINDOWS), "sycl: Arc"],
  ] as const)("%s is what is asked for and can run", (forced, facts, reason) => {
    const choice = choose(facts, { forced });

    expect(choice).toMatchObject({ gpu: forced, reason, order: [forced] });
  });

  test.each([
    ["cuda", machine(), "no NVIDIA GPU was found (`nvidia-smi` is not on PATH)"],
    ["cuda", machine({}, MAC), "no NVIDIA GPU was found (`nvidia-smi` is not on PATH)"],
    [
      "cuda",
      machine({ nvidia: problem("CUDA_VISIBLE_DEVICES hides all of them") }),
      "no NVIDIA GPU was found (CUDA_VISIBLE_DEVICES hides all of them)",
    ],
    [
      "cuda",
      machine({ nvidia: found(V100) }),
      "there is an NVIDIA GPU, but its driver 470.182.03 is too old for CUDA 12 (525 is needed)",
    ],
    [
      "cuda",
      machine({ adapters: [NV] }),
      "there is an NVIDIA GPU, but `nvidia-smi` is not on PATH",
    ],
    ["rocm", machine(), "no AMD GPU was found (`rocminfo` is not on PATH)"],
    [
      "rocm",
      machine({ amd: found(RX580) }),
      "there is an AMD GPU, but the builds have no code for gfx803",
    ],
    [
      "rocm",
      machine({ adapters: [AMD], vulkan: found(named("x")) }),
      "there is an AMD GPU, but ROCm does not serve it (`rocminfo` is not on PATH)",
    ],
    ["vulkan", machine(), "no GPU with a Vulkan driver was found (`vulkaninfo` is not on PATH)"],
    [
      "vulkan",
      machine({ adapters: [INTEL], vulkan: problem("`vulkaninfo` lists none") }),
      "there is an Intel GPU, but no Vulkan driver serves it (`vulkaninfo` lists none)",
    ],
    ["metal", machine(), "Metal needs macOS"],
    ["metal", machine({}, INTEL_MAC), "Metal needs Apple silicon"],
    ["sycl", machine(), "no Intel GPU was found (`sycl-ls` is not on PATH)"],
    ["sycl", machine({ adapters: [INTEL] }), "there is an Intel GPU, but `sycl-ls` is not on PATH"],
    ["musa", machine(), "no Moore Threads GPU was found (`mthreads-gmi` is not on PATH)"],
    ["cann", machine(), "no Ascend NPU was found (`npu-smi` is not on PATH)"],
    [
      "opencl",
      machine({ adreno: problem("its builds are for Windows on ARM only") }),
      "no Adreno GPU was found (its builds are for Windows on ARM only)",
    ],
  ] as const)("%s is refused where it cannot run", (forced, facts, reason) => {
    const error = refusalOf(() => choose(facts, { forced }));

    expect(error.code).toBe("install_failed");
    expect(error.message).toBe(`cannot install llama.cpp for ${forced}: ${reason}`);
    expect(error.hint).toContain("Use `--gpu none` for the processor.");
    expect(error.hint).toContain(`\`TUG_GPU=${forced}\``);
  });

  test("an engine's own needs decide", () => {
    const facts = machine({ nvidia: found({ ...RTX4090, driver: "570.1", compute: 7 }) });
    const of = (needs: VariantRequest["needs"]) => choose(facts, { needs }).gpu;

    expect(of({})).toBe("cuda");
    expect(of({ cuda: 12, computeCapability: 7 })).toBe("cuda");
    expect(of({ cuda: 13 })).toBe("none");
    expect(of({ computeCapability: 7.5 })).toBe("none");
  });

  test("whatever a machine has, the choice is a build that exists, told in one line", () => {
    const flag = fc.boolean();
    fc.assert(
      fc.property(
        fc.record({ nv: flag, old: flag, amd: flag, moore: flag, sycl: flag, vulkan: flag }),
        fc.subarray([...GPUS]),
        (has, builds) => {
          const facts = machine({
            ...(has.nv ? { nvidia: found(has.old ? V100 : RTX4090) } : {}),
            ...(has.amd ? { amd: found(XTX), adapters: [AMD] } : {}),
            ...(has.moore ? { moore: found(named("MTT")) } : {}),
            ...(has.sycl ? { oneapi: found(ARC) } : {}),
            ...(has.vulkan ? { vulkan: found(ARC) } : {}),
          });

          const { gpu, order, reason, warnings } = choose(facts, { available: builds });

          for (const one of order) expect([...builds, "none"]).toContain(one);
          expect(order).toEqual([...new Set(order)]);
          expect(order[0]).toBe(gpu);
          expect([reason, ...warnings].join("")).not.toContain("\n");
        },
      ),
    );
  });
});

describe("cudaOf", () => {
  test.each([
    ["580.65.06", "13.0"],
    ["999.1", "13.1"],
    ["535.216.01", "12.2"],
    ["470.182.03", "11.4"],
    ["390.157", undefined],
    ["", undefined],
    [null, undefined],
  ])("the driver %p brings %p", (driver, expected) => {
    expect(cudaOf(driver)).toBe(expected);
  });
});

describe("TUG_GPU", () => {
  test.each([
    [undefined, undefined],
    ["", undefined],
    ["auto", undefined],
    ["cuda", "cuda"],
    ["musa", "musa"],
  ] as const)("%p means %p", (text, expected) => {
    expect(parseAssumed(text)).toBe(expected);
  });

  test.each(["CUDA", "nvidia", "cpu", " ", "x".repeat(5000)])("%p is refused", (text) => {
    const error = refusalOf(() => parseAssumed(text));

    expect(error.code).toBe("usage");
    expect(error.message.length).toBeLessThan(200);
    expect(error.hint).toContain("none, cuda, rocm");
  });

  test.each([
    ["cuda", undefined, "cuda", ["cuda", "vulkan", "none"]],
    ["vulkan", undefined, "vulkan", ["vulkan", "none"]],
    ["none", undefined, "none", ["none"]],
    ["metal", undefined, "metal", ["metal"]],
    ["cuda", "cuda", "cuda", ["cuda"]],
    ["cuda", "vulkan", "vulkan", ["vulkan"]],
    ["cuda", "none", "none", ["none"]],
  ] as const)("on a machine taken for %s, %p gives %s", (...[assumed, forced, gpu, order]) => {
    const choice = chooseAssumed(assumed, { engine: "llama.cpp", forced });

    expect(choice).toEqual({
      gpu,
      reason: `${gpu}: TUG_GPU says so`,
      warnings: [],
      order: [...order],
    });
  });

  test("another GPU than the assumed one is refused", () => {
    const error = refusalOf(() => chooseAssumed("none", { engine: "llama.cpp", forced: "cuda" }));

    expect(error.message).toBe(
      "cannot install llama.cpp for cuda: TUG_GPU says that this machine has `none`",
    );
  });
});
