/** The places where models can lie: main memory, and the GPUs that an engine build uses. */
import type { Machine } from "../backend.ts";
import type { DeviceId } from "../demand.ts";
import {
  type GpuMemory,
  readAmd,
  readAscend,
  readIntel,
  readMoorethreads,
  readNvidia,
  readVulkan,
} from "./gpus.ts";
import { type HardwareIo, systemIo } from "./io.ts";
import type { Env } from "./probe.ts";
import { readMetalShare, readRam } from "./ram.ts";

/** Kinds of builds whose GPUs have memory of their own. */
type SeparateKind = "cuda" | "rocm" | "vulkan" | "sycl" | "musa" | "cann";

export interface Device {
  /** One GPU has one, whatever kinds of builds use it: that of its vendor's own kind, where that is known. */
  readonly id: DeviceId;
  /** As the other builds number it. */
  readonly alias?: DeviceId;
  /** Of the builds that it was read for. */
  readonly kind: "ram" | SeparateKind | "metal" | "rpc";
  readonly name: string | null;
  /** What there is for us: limits of control groups and `ulimit` count. */
  readonly totalBytes: number;
  /** What could be taken now without swapping; null where nobody tells. */
  readonly freeBytes: number | null;
  /** What the vendor calls it, where it does. */
  readonly uuid?: string;
  /** Main memory that a GPU shares: what of it that GPU may use. */
  readonly gpuLimitBytes?: number;
  /** Of an RPC server: why it cannot be used, as a clause. */
  readonly problem?: string | undefined;
}

export interface ReadDevicesOptions {
  readonly machine: Machine;
  readonly env: Env;
  /** `Installation.variant` of the engine that is to run. */
  readonly variant: string;
  readonly signal?: AbortSignal | undefined;
  /** For tests. */
  readonly io?: HardwareIo;
}

/**
 * Main memory first, always; then the GPUs with memory of their own, in the order in which the engine numbers them. Those
 * of Vulkan have the ids that builds for CUDA and ROCm give them, so that what both hold is counted together.
 *
 * Takes a millisecond without GPUs, else as long as the vendor's tool, 5 s at most. What a tool says and cannot be
 * understood counts as no GPU. No driver is loaded into this process: that would hold some of the memory.
 *
 * @throws the signal's reason
 */
export async function readDevices(options: ReadDevicesOptions): Promise<readonly Device[]> {
  const io = options.io ?? systemIo(options);
  const [amounts, gpus] = await Promise.all([
    readRam(options.machine.platform, io),
    readGpus(options, io),
  ]);
  options.signal?.throwIfAborted();
  const limit = await gpus.limit(amounts.totalBytes);
  const ram: Device = {
    id: "ram",
    kind: "ram",
    name: null,
    ...amounts,
    ...(limit === null ? {} : { gpuLimitBytes: limit }),
  };
  return [ram, ...gpus.devices];
}

// --- internal ---

interface Gpus {
  readonly devices: readonly Device[];
  /** Of unified memory of this size, what a GPU may use; null: none shares it. */
  limit(totalBytes: number): Promise<number | null> | null;
}

async function readGpus(
  { machine, env, variant }: ReadDevicesOptions,
  io: HardwareIo,
): Promise<Gpus> {
  switch (variant) {
    case "metal":
      return { devices: [], limit: (totalBytes) => readMetalShare(totalBytes, io) };
    case "cuda":
      return separate("cuda", await readNvidia(io, env));
    case "musa":
      return separate("musa", await readMoorethreads(io, env));
    case "cann":
      return separate("cann", await readAscend(io, env));
    case "sycl":
      return separate("sycl", await readIntel(io, env));
    case "vulkan": {
      if (machine.platform === "darwin") return separate("vulkan", []);
      const [gpus, own] = await Promise.all([readVulkan(io, env), readOwnIds(io, env)]);
      return separate("vulkan", gpus, own);
    }
    case "rocm": {
      const { discrete, sharedLimitBytes } = await readAmd(io, env);
      if (discrete.length > 0 || sharedLimitBytes === null) return separate("rocm", discrete);
      return {
        devices: [],
        limit: (totalBytes) => Promise.resolve(Math.min(totalBytes, sharedLimitBytes)),
      };
    }
    default:
      return separate("cuda", []);
  }
}

function separate(
  kind: SeparateKind,
  gpus: readonly GpuMemory[],
  own: ReadonlyMap<string, Known> = new Map(),
): Gpus {
  const devices = gpus.map(({ name, uuid, totalBytes, freeBytes }, index) => ({
    id: `${kind}:${index}`,
    kind,
    name,
    totalBytes,
    freeBytes,
    ...(uuid === null ? {} : { uuid }),
    ...(uuid === null ? {} : aliased(`${kind}:${index}`, own.get(plain(uuid)))),
  }));
  return { devices, limit: () => null };
}

function aliased(alias: DeviceId, known: Known | undefined): Partial<Device> {
  return known === undefined ? {} : { ...known, alias };
}

/** A GPU as builds of its vendor's kind have it. */
type Known = Pick<Device, "id" | "uuid">;

/** By all that the GPU is called, those that the vendors' variables leave. */
async function readOwnIds(io: HardwareIo, env: Env): Promise<ReadonlyMap<string, Known>> {
  const [nvidia, amd] = await Promise.all([readNvidia(io, env), readAmd(io, env)]);
  return new Map([...knownAs("cuda", nvidia), ...knownAs("rocm", amd.discrete)]);
}

function knownAs(
  kind: SeparateKind,
  gpus: readonly GpuMemory[],
): readonly (readonly [string, Known])[] {
  return gpus.flatMap(({ uuid, vulkanUuid }, index) => {
    const known = { id: `${kind}:${index}`, ...(uuid === null ? {} : { uuid }) };
    return [uuid, vulkanUuid].flatMap((name) => (name ? [[plain(name), known] as const] : []));
  });
}

/** NVIDIA's Vulkan driver leaves out what its own tool writes before it. */
function plain(uuid: string): string {
  return uuid.toLowerCase().replace(/^gpu-/, "");
}
