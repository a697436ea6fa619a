/** The GPUs that have memory of their own, by kind of engine build, in the order in which that build numbers them. */
import { log } from "../../log.ts";
import {
  type NvidiaGpu,
  parseNvidiaGpus,
  parseVulkanGpus,
  pickVisible,
  type VulkanGpu,
} from "./gpu-parse.ts";
import type { HardwareIo } from "./io.ts";
import type { Env } from "./probe.ts";
import { type NamedGpu, parseAscend, parseMthreads } from "./vendor-parse.ts";

export interface GpuMemory {
  readonly name: string | null;
  /** What the vendor calls it. */
  readonly uuid: string | null;
  /** What Vulkan's drivers call it, where that is something else. */
  readonly vulkanUuid?: string | undefined;
  readonly totalBytes: number;
  readonly freeBytes: number | null;
}

export interface AmdGpus {
  readonly discrete: readonly GpuMemory[];
  /** Of unified memory, what a GPU without memory worth speaking of may use; null if there is none such. */
  readonly sharedLimitBytes: number | null;
}

const DRM_DIRECTORY = "/sys/class/drm";
const AMD_VENDOR = "0x1002";
const GIB = 1024 ** 3;

/**
 * Below this, video memory is the part that the firmware of a processor with graphics sets aside for the screen. No card
 * that ROCm supports has less.
 */
const SMALLEST_CARD_BYTES = 3.5 * GIB;

/** NVIDIA's, without those that `CUDA_VISIBLE_DEVICES` hides. `CUDA_DEVICE_ORDER=PCI_BUS_ID` makes CUDA count likewise. */
export async function readNvidia(io: HardwareIo, env: Env): Promise<readonly NvidiaGpu[]> {
  const query = "--query-gpu=index,uuid,name,memory.total,memory.free";
  const output = await io.run(["nvidia-smi", query, "--format=csv,noheader,nounits"]);
  const gpus = noted("nvidia-smi", output, parseNvidiaGpus(output));
  return pickVisible(gpus, env["CUDA_VISIBLE_DEVICES"], (gpu) => gpu);
}

/**
 * AMD's, without those that `ROCR_VISIBLE_DEVICES` and `HIP_VISIBLE_DEVICES` hide; the second counts what the first left.
 *
 * @see https://docs.kernel.org/gpu/amdgpu/driver-misc.html#gpu-memory-usage-information
 */
export async function readAmd(io: HardwareIo, env: Env): Promise<AmdGpus> {
  const cards = (await io.list(DRM_DIRECTORY))
    .flatMap((name) => /^card(\d{1,3})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((one, other) => one - other);
  const all = await Promise.all(cards.map((card) => readAmdCard(card, io)));
  const found = all.filter((card) => card !== undefined);
  const shared = found.filter((card) => !isCard(card));
  let discrete = found.filter(isCard);
  for (const variable of ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"]) {
    const numbered = discrete.map((card, index) => ({ ...card, index }));
    discrete = [...pickVisible(numbered, env[variable], (card) => card)];
  }
  return {
    discrete,
    sharedLimitBytes:
      shared.length === 0 ? null : Math.max(...shared.map((card) => card.sharedBytes)),
  };
}

/** As llama.cpp chooses them: those of `GGML_VK_VISIBLE_DEVICES`, else all cards, each once however many drivers it has. */
export async function readVulkan(io: HardwareIo, env: Env): Promise<readonly GpuMemory[]> {
  const output = await io.run(["vulkaninfo"]);
  const listed = noted("vulkaninfo", output, parseVulkanGpus(output));
  // The tool is often missing where the driver is not.
  if (listed.length === 0) {
    const [nvidia, amd] = await Promise.all([readNvidia(io, {}), readAmd(io, {})]);
    return [...nvidia, ...amd.discrete];
  }
  const visible = pickVisible(listed, env["GGML_VK_VISIBLE_DEVICES"], (gpu) => gpu);
  const seen = new Set<string>();
  const isFirst = ({ uuid }: VulkanGpu): boolean => {
    if (uuid === null) return true;
    const isNew = !seen.has(uuid);
    seen.add(uuid);
    return isNew;
  };
  return visible.filter((gpu) => gpu.isDiscrete && !gpu.isProcessor && isFirst(gpu));
}

/** Moore Threads', without those that `MUSA_VISIBLE_DEVICES` hides. Nobody tells what is free of them. */
export async function readMoorethreads(io: HardwareIo, env: Env): Promise<readonly GpuMemory[]> {
  const output = await io.run(["mthreads-gmi"]);
  const gpus = noted("mthreads-gmi", output, parseMthreads(output));
  return visibleOf(gpus, env["MUSA_VISIBLE_DEVICES"]);
}

/** Huawei's, without those that `ASCEND_RT_VISIBLE_DEVICES` hides. */
export async function readAscend(io: HardwareIo, env: Env): Promise<readonly GpuMemory[]> {
  const output = await io.run(["npu-smi", "info"]);
  const gpus = noted("npu-smi", output, parseAscend(output));
  return visibleOf(gpus, env["ASCEND_RT_VISIBLE_DEVICES"]);
}

/** Intel's cards, as Vulkan tells of them: no tool of oneAPI's that is always there knows their memory. */
export async function readIntel(io: HardwareIo, env: Env): Promise<readonly GpuMemory[]> {
  const all = await readVulkan(io, { ...env, GGML_VK_VISIBLE_DEVICES: undefined });
  return all.filter(({ name }) => /\bintel\b/i.test(name ?? ""));
}

// --- internal ---

/** Of those whose memory is told. */
function visibleOf(gpus: readonly NamedGpu[], wanted: string | undefined): readonly GpuMemory[] {
  const all = gpus.map(({ name, totalBytes }, index) => ({ name, totalBytes, index, uuid: null }));
  return pickVisible(all, wanted, (gpu) => gpu).flatMap(({ name, totalBytes, uuid }) =>
    totalBytes === null ? [] : [{ name, uuid, totalBytes, freeBytes: null }],
  );
}

function noted<T>(tool: string, output: string, gpus: readonly T[]): readonly T[] {
  if (output !== "" && gpus.length === 0) log.debug(`hardware: no GPU understood tool=${tool}`);
  return gpus;
}

function isCard({ totalBytes, sharedBytes }: AmdCard): boolean {
  return totalBytes >= SMALLEST_CARD_BYTES || totalBytes >= sharedBytes;
}

interface AmdCard extends GpuMemory {
  /** Of main memory, what it can map (GTT). */
  readonly sharedBytes: number;
}

async function readAmdCard(card: number, io: HardwareIo): Promise<AmdCard | undefined> {
  const directory = `${DRM_DIRECTORY}/card${card}/device`;
  if ((await io.read(`${directory}/vendor`)).trim() !== AMD_VENDOR) return undefined;
  const [total, used, shared, product, unique, events] = await Promise.all(
    [
      "mem_info_vram_total",
      "mem_info_vram_used",
      "mem_info_gtt_total",
      "product_name",
      "unique_id",
      "uevent",
    ].map((name) => io.read(`${directory}/${name}`)),
  );
  const totalBytes = parseBytes(total);
  if (totalBytes === undefined) return undefined;
  const usedBytes = parseBytes(used);
  const name = product?.trim().slice(0, 200);
  return {
    name: name || null,
    // ROCr writes `GPU-` and the unique id in hexadecimal digits.
    uuid: unique?.trim() ? `GPU-${unique.trim()}` : null,
    vulkanUuid: toVulkanUuid(events ?? ""),
    totalBytes,
    freeBytes: usedBytes === undefined ? null : Math.max(0, totalBytes - usedBytes),
    sharedBytes: parseBytes(shared) ?? 0,
  };
}

/**
 * AMD's Vulkan drivers name a GPU by its place on the bus: domain, bus, device and function, four bytes each, the lowest
 * first.
 *
 * @param events the device's `uevent`
 * @see Mesa src/amd/common/ac_gpu_info.c, ac_compute_device_uuid
 */
function toVulkanUuid(events: string): string | undefined {
  const slot = /^PCI_SLOT_NAME=([\da-f]{4,8}):([\da-f]{2}):([\da-f]{2})\.([0-7])$/im.exec(events);
  if (slot === null) return undefined;
  const bytes = Buffer.alloc(16);
  slot.slice(1).forEach((digits, place) => bytes.writeUInt32LE(parseInt(digits, 16), place * 4));
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function parseBytes(text: string | undefined): number | undefined {
  return /^\d{1,16}$/.test(text?.trim() ?? "") ? Number(text) : undefined;
}
