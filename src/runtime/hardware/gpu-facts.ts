/** What this machine has to compute on besides its processor: adapters, and what each vendor's tool says of them. */
import { log } from "../../log.ts";
import type { Machine } from "../backend.ts";
import {
  NVIDIA_FIELDS,
  NVIDIA_OLD_FIELDS,
  type NvidiaFact,
  parseNvidiaFacts,
  pickVisible,
} from "./gpu-parse.ts";
import type { HardwareIo } from "./io.ts";
import type { Env, ToolAnswer } from "./probe.ts";
import {
  type AmdFact,
  type NamedGpu,
  parseAscend,
  parseClinfo,
  parseDisplayDrivers,
  parseKfdTarget,
  parseMthreads,
  parseRocminfo,
  parseRocmSmi,
  parseSyclLs,
  parseVulkanSummary,
} from "./vendor-parse.ts";

export type Vendor = "nvidia" | "amd" | "intel" | "moore" | "huawei" | "qualcomm";

/** A GPU that the system sees, whether or not anything drives it. */
export interface Adapter {
  readonly vendor: Vendor;
  /** Linux tells numbers only. */
  readonly name: string | null;
}

export interface Finding<T> {
  readonly found: readonly T[];
  /** Why nothing was found: a clause. Null if something was. */
  readonly problem: string | null;
}

export interface GpuFacts {
  readonly machine: Machine;
  readonly adapters: readonly Adapter[];
  readonly nvidia: Finding<NvidiaFact>;
  /** What ROCm's runtime sees, which its builds need. */
  readonly amd: Finding<AmdFact>;
  /** AMD's chips as the kernel names them; they are there without ROCm's runtime, too. */
  readonly amdTargets: readonly string[];
  readonly moore: Finding<NamedGpu>;
  readonly ascend: Finding<NamedGpu>;
  /** What oneAPI reaches through Level Zero. */
  readonly oneapi: Finding<NamedGpu>;
  readonly adreno: Finding<NamedGpu>;
  readonly vulkan: Finding<NamedGpu>;
  /** `HSA_OVERRIDE_GFX_VERSION` is set: AMD's chip is taken for another. */
  readonly overridesTarget: boolean;
}

/** By PCI's numbers. Display chips of servers and virtual machines are not among them: nothing computes there. */
const PCI_VENDORS: Readonly<Record<string, Vendor>> = {
  "0x10de": "nvidia",
  "0x1002": "amd",
  "0x8086": "intel",
  "0x1ed5": "moore",
  "0x19e5": "huawei",
};
/**
 * Base classes 03, display controllers, and 12, accelerators. Huawei's displays are the ones of a server's management,
 * Intel's accelerators are small NPUs that no engine here uses.
 */
const PCI_CLASSES: Readonly<Partial<Record<Vendor, RegExp>>> = {
  nvidia: /^0x03/,
  amd: /^0x(?:03|12)/,
  intel: /^0x03/,
  moore: /^0x(?:03|12)/,
  huawei: /^0x12/,
};
const PCI_DIRECTORY = "/sys/bus/pci/devices";
/** A large server has several hundred. */
const MAX_PCI_DEVICES = 2048;
const KFD_DIRECTORY = "/sys/class/kfd/kfd/topology/nodes";
const MAX_KFD_NODES = 128;
/** Where Vulkan's loader finds drivers. @see https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderDriverInterface.md */
const VULKAN_DRIVERS = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
const VULKAN_MANIFESTS: Readonly<Partial<Record<Vendor, RegExp>>> = {
  nvidia: /^(?:nvidia|nouveau)_/,
  amd: /^(?:radeon|amd)_?/,
  intel: /^intel_/,
};
/** Windows lists display adapters, Adreno among them, under this class. */
const DISPLAY_CLASS =
  "HKLM\\SYSTEM\\CurrentControlSet\\Control\\Class\\{4d36e968-e325-11ce-bfc1-08002be10318}";
const WINDOWS_VENDORS: readonly (readonly [RegExp, Vendor])[] = [
  [/\bnvidia\b/i, "nvidia"],
  [/\b(?:amd|radeon)\b/i, "amd"],
  [/\bintel\b/i, "intel"],
  [/\badreno\b/i, "qualcomm"],
  [/\bmtt s\d/i, "moore"],
];
/** Chips that llama.cpp's OpenCL code was made for; it refuses the 6xx. */
const ADRENO_SERIES = /\b(?:[78]\d\d|x\d)/i;
const REASON_LENGTH = 160;

/**
 * Asks every vendor's tool that is there, at once, each for 5 s at most; none on macOS, where the chip tells it all.
 *
 * @throws the signal's reason, through `io`
 */
export async function readGpuFacts(machine: Machine, io: HardwareIo, env: Env): Promise<GpuFacts> {
  if (machine.platform === "darwin") return noGpus(machine);
  const isLinux = machine.platform === "linux";
  const [adapters, nvidia, amd, amdTargets, moore, ascend, oneapi, vulkan] = await Promise.all([
    readAdapters(machine, io),
    readNvidiaFacts(machine, io, env),
    isLinux ? readRocm(io, env) : nothing("ROCm is looked for under Linux only"),
    isLinux ? readKfdTargets(io) : [],
    readTool(io, ["mthreads-gmi"], parseMthreads),
    readTool(io, ["npu-smi", "info"], parseAscend),
    readTool(io, ["sycl-ls"], parseSyclLs),
    readTool(io, ["vulkaninfo", "--summary"], parseVulkanSummary),
  ]);
  return {
    machine,
    adapters,
    nvidia,
    amd,
    amdTargets,
    moore,
    ascend,
    oneapi,
    adreno: await readAdreno(machine, io, adapters),
    vulkan: vulkan.found.length > 0 ? vulkan : await guessVulkan(machine, io, { adapters, vulkan }),
    overridesTarget: Boolean(env["HSA_OVERRIDE_GFX_VERSION"]),
  };
}

/** The facts of a machine where nothing was looked for. */
export function noGpus(machine: Machine): GpuFacts {
  const none = nothing("it was not looked for");
  return {
    machine,
    adapters: [],
    nvidia: none,
    amd: none,
    amdTargets: [],
    moore: none,
    ascend: none,
    oneapi: none,
    adreno: none,
    vulkan: none,
    overridesTarget: false,
  };
}

// --- internal ---

function nothing(problem: string): Finding<never> {
  return { found: [], problem };
}

async function readTool<T>(
  io: HardwareIo,
  argv: readonly string[],
  parse: (output: string) => readonly T[],
): Promise<Finding<T>> {
  return toFinding(argv[0] ?? "", await io.ask(argv), parse);
}

function toFinding<T>(
  tool: string,
  answer: ToolAnswer,
  parse: (output: string) => readonly T[],
): Finding<T> {
  if (answer.kind === "missing") return nothing(`\`${tool}\` is not on PATH`);
  if (answer.kind === "silent") return nothing(`\`${tool}\` did not answer`);
  const { kind, output } = answer;
  const found = kind === "answered" ? parse(output) : [];
  if (found.length > 0) return { found, problem: null };
  log.debug(`hardware: no GPU tool=${tool} kind=${kind}`);
  const said = firstLine(output);
  if (kind === "failed" && said !== "") return nothing(`\`${tool}\` says: ${said}`);
  return nothing(`\`${tool}\` ${kind === "failed" ? "failed" : "lists none"}`);
}

function firstLine(output: string): string {
  const line = output.split("\n").find((text) => /[a-z]{2}/i.test(text)) ?? "";
  return line
    .replace(/\p{Cc}/gu, " ")
    .trim()
    .slice(0, REASON_LENGTH)
    .replace(/\.$/, "");
}

/** The first that is there: installers do not always put it on PATH. */
async function askFirst(
  io: HardwareIo,
  programs: readonly string[],
  args: readonly string[],
): Promise<ToolAnswer> {
  let answer: ToolAnswer = { kind: "missing" };
  for (const program of programs) {
    answer = await io.ask([program, ...args]);
    if (answer.kind !== "missing") break;
  }
  return answer;
}

async function readNvidiaFacts(
  { platform }: Machine,
  io: HardwareIo,
  env: Env,
): Promise<Finding<NvidiaFact>> {
  const visible = env["CUDA_VISIBLE_DEVICES"];
  if (hidesAll(visible)) return nothing("CUDA_VISIBLE_DEVICES hides all of them");
  // Windows puts it there for its Linux.
  const programs = ["nvidia-smi", ...(platform === "linux" ? ["/usr/lib/wsl/lib/nvidia-smi"] : [])];
  const query = (fields: string): Promise<ToolAnswer> =>
    askFirst(io, programs, [`--query-gpu=${fields}`, "--format=csv,noheader,nounits"]);
  let fields = NVIDIA_FIELDS;
  let answer = await query(fields);
  if (answer.kind === "failed" && /not a valid field/i.test(answer.output)) {
    fields = NVIDIA_OLD_FIELDS;
    answer = await query(fields);
  }
  const all = toFinding("nvidia-smi", answer, (output) => parseNvidiaFacts(output, fields));
  if (all.found.length === 0) return all;
  const isInstance = /^\s*MIG-/.test(visible ?? "");
  const found = isInstance
    ? all.found.filter(({ isSplit }) => isSplit)
    : pickVisible(all.found, visible, (gpu) => gpu);
  return found.length > 0
    ? { found, problem: null }
    : nothing("CUDA_VISIBLE_DEVICES hides all of them");
}

function hidesAll(visible: string | undefined): boolean {
  return visible !== undefined && /^\s*(?:-1)?\s*$/.test(visible);
}

async function readRocm(io: HardwareIo, env: Env): Promise<Finding<AmdFact>> {
  for (const variable of ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"]) {
    if (hidesAll(env[variable])) return nothing(`${variable} hides all of them`);
  }
  const info = await askFirst(io, ["rocminfo", "/opt/rocm/bin/rocminfo"], []);
  const told = toFinding("rocminfo", info, parseRocminfo);
  if (info.kind !== "missing") return told;
  const smi = await readTool(io, ["rocm-smi", "--showproductname", "--json"], parseRocmSmi);
  return smi.found.length > 0 ? smi : told;
}

async function readKfdTargets(io: HardwareIo): Promise<readonly string[]> {
  const nodes = (await io.list(KFD_DIRECTORY)).filter((name) => /^\d{1,4}$/.test(name));
  const texts = await Promise.all(
    nodes.slice(0, MAX_KFD_NODES).map((node) => io.read(`${KFD_DIRECTORY}/${node}/properties`)),
  );
  return texts.flatMap((text) => parseKfdTarget(text) ?? []);
}

async function readAdapters({ platform }: Machine, io: HardwareIo): Promise<readonly Adapter[]> {
  if (platform === "win32") return readWindowsAdapters(io);
  const names = (await io.list(PCI_DIRECTORY)).slice(0, MAX_PCI_DEVICES);
  const vendors = await Promise.all(
    names.map(async (name) => {
      const directory = `${PCI_DIRECTORY}/${name}`;
      const kind = (await io.read(`${directory}/class`)).trim();
      if (!/^0x(?:03|12)/.test(kind)) return undefined;
      const vendor = PCI_VENDORS[(await io.read(`${directory}/vendor`)).trim()];
      return vendor !== undefined && PCI_CLASSES[vendor]?.test(kind) ? vendor : undefined;
    }),
  );
  return vendors.flatMap((vendor) => (vendor === undefined ? [] : [{ vendor, name: null }]));
}

async function readWindowsAdapters(io: HardwareIo): Promise<readonly Adapter[]> {
  const answer = await io.ask(["reg", "query", DISPLAY_CLASS, "/s", "/v", "DriverDesc"]);
  if (!("output" in answer)) return [];
  return parseDisplayDrivers(answer.output).flatMap((name) => {
    const vendor = WINDOWS_VENDORS.find(([pattern]) => pattern.test(name))?.[1];
    return vendor === undefined ? [] : [{ vendor, name }];
  });
}

async function readAdreno(
  { platform, arch }: Machine,
  io: HardwareIo,
  adapters: readonly Adapter[],
): Promise<Finding<NamedGpu>> {
  if (platform !== "win32" || arch !== "arm64") {
    return nothing("its builds are for Windows on ARM only");
  }
  const named = adapters.flatMap(({ name }) => (name === null ? [] : [{ name, totalBytes: null }]));
  const known = named.filter(isAdreno);
  if (known.length > 0) return { found: known, problem: null };
  return readTool(io, ["clinfo"], (output) => parseClinfo(output).filter(isAdreno));
}

function isAdreno({ name }: NamedGpu): boolean {
  return /\badreno\b/i.test(name) && ADRENO_SERIES.test(name);
}

/** The tool is often missing where the driver is not. Windows' drivers have brought Vulkan for ten years. */
async function guessVulkan(
  { platform }: Machine,
  io: HardwareIo,
  { adapters, vulkan }: Pick<GpuFacts, "adapters" | "vulkan">,
): Promise<Finding<NamedGpu>> {
  if (!(vulkan.problem ?? "").endsWith("is not on PATH")) return vulkan;
  const manifests = (await Promise.all(VULKAN_DRIVERS.map((path) => io.list(path)))).flat();
  const driven = adapters.filter(({ vendor }) => {
    const manifest = VULKAN_MANIFESTS[vendor];
    if (manifest === undefined) return false;
    return platform === "win32" || manifests.some((name) => manifest.test(name));
  });
  if (driven.length === 0) return vulkan;
  const found = driven.map(({ vendor, name }) => ({
    name: name ?? VENDOR_NAMES[vendor],
    totalBytes: null,
  }));
  return { found, problem: null };
}

/** With its article. */
export const VENDOR_NAMES: Readonly<Record<Vendor, string>> = {
  nvidia: "an NVIDIA GPU",
  amd: "an AMD GPU",
  intel: "an Intel GPU",
  moore: "a Moore Threads GPU",
  huawei: "an Ascend NPU",
  qualcomm: "an Adreno GPU",
};
