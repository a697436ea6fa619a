/** Whether builds of each kind would run on what a machine has. Pure. */
import type { Gpu, GpuNeeds } from "../backend.ts";
import { type GpuFacts, VENDOR_NAMES, type Vendor } from "./gpu-facts.ts";
import type { NvidiaFact } from "./gpu-parse.ts";

export type Judgement = Able | Unable;

export interface Able {
  readonly able: true;
  /** The GPU, with what decided: `NVIDIA GeForce RTX 4090 (compute 8.9, driver 580.65.06, CUDA 13.0)`. */
  readonly what: string;
  /** Another kind serves it as well with less to go wrong: only for who asks for this one. */
  readonly onlyIfAsked?: boolean;
  /** Sentences without a full stop. */
  readonly warnings?: readonly string[];
}

export interface Unable {
  readonly able: false;
  /** `an NVIDIA GPU`. */
  readonly thing: string;
  /** Something of the kind is there, but not usable. */
  readonly isThere: boolean;
  /** A clause. */
  readonly why: string;
  /** An imperative sentence. */
  readonly hint?: string | undefined;
  /** The choice gives way to Vulkan without a warning. */
  readonly isUsual?: boolean;
}

/**
 * The oldest driver (its first number) for each CUDA within a major version.
 *
 * @see https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
 */
const CUDA_DRIVERS: Readonly<Record<number, number>> = { 11: 450, 12: 525, 13: 580 };
/**
 * The CUDA that came with each branch of drivers, newest first.
 *
 * @see https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (CUDA Toolkit and Corresponding Driver Versions)
 */
const CUDA_OF_DRIVERS: readonly (readonly [number, string])[] = [
  [590, "13.1"],
  [580, "13.0"],
  [575, "12.9"],
  [570, "12.8"],
  [565, "12.7"],
  [560, "12.6"],
  [555, "12.5"],
  [550, "12.4"],
  [545, "12.3"],
  [535, "12.2"],
  [530, "12.1"],
  [525, "12.0"],
  [520, "11.8"],
  [515, "11.7"],
  [510, "11.6"],
  [495, "11.5"],
  [470, "11.4"],
  [465, "11.3"],
  [460, "11.2"],
  [455, "11.1"],
  [450, "11.0"],
];

/** Builds for Ascend are made for one family of chips. */
const ASCEND = /^Ascend 910/;

type Judge = (facts: GpuFacts, needs: GpuNeeds) => Judgement;

export const JUDGES: Readonly<Record<Exclude<Gpu, "none">, Judge>> = {
  metal: judgeMetal,
  cuda: judgeCuda,
  rocm: judgeRocm,
  musa: judgeMusa,
  cann: judgeCann,
  sycl: judgeSycl,
  opencl: judgeOpencl,
  vulkan: judgeVulkan,
};

/** The newest CUDA that a driver brings; undefined for one that is older than CUDA 11, or unknown. */
export function cudaOf(driver: string | null): string | undefined {
  const branch = branchOf(driver);
  return CUDA_OF_DRIVERS.find(([first]) => branch !== undefined && branch >= first)?.[1];
}

// --- internal ---

function judgeMetal({ machine }: GpuFacts): Judgement {
  if (machine.platform === "darwin" && machine.arch === "arm64") {
    return { able: true, what: "Apple silicon" };
  }
  const thing = "an Apple GPU";
  // Metal builds for Intel Macs exist no more: their GPUs were slower than their processors at this.
  const why = machine.platform === "darwin" ? "Metal needs Apple silicon" : "Metal needs macOS";
  return { able: false, thing, isThere: false, why };
}

function judgeCuda(facts: GpuFacts, needs: GpuNeeds): Judgement {
  const { found, problem } = facts.nvidia;
  if (found.length === 0) return missing(facts, "nvidia", { problem, hint: nvidiaHint(problem) });
  const problems = found.map((gpu) => nvidiaProblem(gpu, needs));
  const usable = found.filter((_, index) => problems[index] === undefined);
  const [first] = usable;
  if (first === undefined) {
    const isOld = problems.some((text) => text?.includes("driver"));
    const hint = isOld ? "Update NVIDIA's driver." : undefined;
    return { able: false, thing: "an NVIDIA GPU", isThere: true, why: problems[0] ?? "", hint };
  }
  const left = found.flatMap((gpu, index) =>
    problems[index] === undefined
      ? []
      : [
          `GPU ${gpu.index} (${gpu.name}) cannot be used: ${problems[index]}; hide it with CUDA_VISIBLE_DEVICES`,
        ],
  );
  return { able: true, what: describeNvidia(first, usable.length), warnings: left };
}

function nvidiaProblem(gpu: NvidiaFact, needs: GpuNeeds): string | undefined {
  const { cuda, computeCapability = 0 } = needs;
  const oldest = cuda === undefined ? undefined : CUDA_DRIVERS[cuda];
  const branch = branchOf(gpu.driver);
  if (oldest !== undefined && branch !== undefined && branch < oldest) {
    return `its driver ${gpu.driver} is too old for CUDA ${cuda} (${oldest} is needed)`;
  }
  if (gpu.compute === null || gpu.compute >= computeCapability) return undefined;
  const lowest = computeCapability.toFixed(1);
  return `its compute capability ${gpu.compute.toFixed(1)} is too low (${lowest} is needed)`;
}

function describeNvidia(gpu: NvidiaFact, count: number): string {
  const cuda = cudaOf(gpu.driver);
  const facts = [
    gpu.compute === null ? undefined : `compute ${gpu.compute.toFixed(1)}`,
    gpu.driver === null ? undefined : `driver ${gpu.driver}`,
    cuda === undefined ? undefined : `CUDA ${cuda}`,
    gpu.isSplit ? "split into MIG instances" : undefined,
  ].filter((text) => text !== undefined);
  return `${counted(gpu.name, count)}${facts.length > 0 ? ` (${facts.join(", ")})` : ""}`;
}

function nvidiaHint(problem: string | null): string {
  return /version mismatch/.test(problem ?? "")
    ? "Restart the machine: its driver was updated while it ran."
    : "Install NVIDIA's driver; in a container give it the GPUs.";
}

function branchOf(driver: string | null): number | undefined {
  const branch = Number.parseInt(driver ?? "", 10);
  return Number.isNaN(branch) ? undefined : branch;
}

function judgeRocm(facts: GpuFacts, { rocmTargets }: GpuNeeds): Judgement {
  const { found, problem } = facts.amd;
  const named = facts.adapters.find(({ vendor }) => vendor === "amd")?.name;
  // There the driver brings the runtime, and no tool that would tell of it.
  if (facts.machine.platform === "win32" && named) {
    return { able: true, what: named, onlyIfAsked: true };
  }
  if (found.length === 0) {
    const isThere = facts.amdTargets.length > 0 || has(facts, "amd");
    return {
      able: false,
      thing: "an AMD GPU",
      isThere,
      isUsual: true,
      why: isThere ? `ROCm does not serve it (${problem})` : absent("AMD GPU", problem),
      hint: isThere ? "Install ROCm, or use `--gpu vulkan`." : undefined,
    };
  }
  const usable = found.filter(
    ({ target }) =>
      facts.overridesTarget ||
      target === null ||
      rocmTargets === undefined ||
      rocmTargets.includes(target),
  );
  const [first] = usable;
  if (first === undefined) {
    const targets = [...new Set(found.map(({ target }) => target))].join(", ");
    const hint =
      "Set HSA_OVERRIDE_GFX_VERSION where its chip runs the code of another, or use `--gpu vulkan`.";
    const why = `the builds have no code for ${targets}`;
    return { able: false, thing: "an AMD GPU", isThere: true, why, hint };
  }
  const target = first.target === null || first.target === first.name ? "" : ` (${first.target})`;
  return { able: true, what: `${counted(first.name, usable.length)}${target}` };
}

function judgeMusa(facts: GpuFacts): Judgement {
  const { found, problem } = facts.moore;
  const [first] = found;
  if (first === undefined) return missing(facts, "moore", { problem });
  return { able: true, what: counted(first.name, found.length) };
}

function judgeCann(facts: GpuFacts): Judgement {
  const { found, problem } = facts.ascend;
  if (found.length === 0) return missing(facts, "huawei", { problem });
  const usable = found.filter(({ name }) => ASCEND.test(name));
  const [first] = usable;
  if (first !== undefined) return { able: true, what: counted(first.name, usable.length) };
  const why = `the builds are for Ascend 910, not for ${found[0]?.name}`;
  return { able: false, thing: "an Ascend NPU", isThere: true, why };
}

/** Builds for Linux use the host's oneAPI. Those for Windows bring it, but Vulkan needs none. */
function judgeSycl(facts: GpuFacts): Judgement {
  const { found, problem } = facts.oneapi;
  const [first] = found;
  if (first !== undefined) return { able: true, what: counted(first.name, found.length) };
  const named = facts.adapters.find(({ vendor }) => vendor === "intel")?.name;
  if (named) return { able: true, what: named, onlyIfAsked: true };
  const hint = "Install oneAPI's runtime, or use `--gpu vulkan`.";
  return { ...missing(facts, "intel", { problem, hint }), isUsual: true };
}

function judgeOpencl(facts: GpuFacts): Judgement {
  const { found, problem } = facts.adreno;
  const [first] = found;
  if (first === undefined) return missing(facts, "qualcomm", { problem });
  return { able: true, what: first.name };
}

function judgeVulkan(facts: GpuFacts): Judgement {
  const { found, problem } = facts.vulkan;
  const [first] = found;
  if (first !== undefined) return { able: true, what: counted(first.name, found.length) };
  const vendor = facts.adapters[0]?.vendor;
  return {
    able: false,
    thing: vendor === undefined ? "a GPU" : VENDOR_NAMES[vendor],
    isThere: vendor !== undefined,
    why:
      vendor === undefined
        ? `no GPU with a Vulkan driver was found (${problem})`
        : `no Vulkan driver serves it (${problem})`,
    hint: "Install its Vulkan driver (`mesa-vulkan-drivers` in Debian).",
  };
}

function missing(
  facts: GpuFacts,
  vendor: Vendor,
  { problem, hint }: { readonly problem: string | null; readonly hint?: string },
): Unable {
  const thing = VENDOR_NAMES[vendor];
  const isThere = has(facts, vendor);
  if (isThere) return { able: false, thing, isThere, why: problem ?? "", hint };
  return { able: false, thing, isThere, why: absent(thing.replace(/^an? /, ""), problem) };
}

function has({ adapters }: GpuFacts, wanted: Vendor): boolean {
  return adapters.some(({ vendor }) => vendor === wanted);
}

function absent(thing: string, problem: string | null): string {
  return `no ${thing} was found (${problem})`;
}

function counted(name: string, count: number): string {
  return count === 1 ? name : `${name} and ${count - 1} more`;
}
