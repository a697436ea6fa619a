/** The places where models can lie: main memory, and the GPUs that an engine build uses. */
import type { Machine } from "../backend.ts";
import type { DeviceId } from "../demand.ts";
import { type GpuMemory, readAmd, readNvidia, readVulkan } from "./gpus.ts";
import { type HardwareIo, systemIo } from "./io.ts";
import type { Env } from "./probe.ts";
import { readMetalShare, readRam } from "./ram.ts";

export interface Device {
  readonly id: DeviceId;
  readonly kind: "ram" | "cuda" | "rocm" | "vulkan" | "metal";
  readonly name: string | null;
  /** What there is for us: limits of control groups and `ulimit` count. */
  readonly totalBytes: number;
  /** What could be taken now without swapping; null where nobody tells. */
  readonly freeBytes: number | null;
  /** What the vendor calls it, where it does. */
  readonly uuid?: string;
  /** Main memory that a GPU shares: what of it that GPU may use. */
  readonly gpuLimitBytes?: number;
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
 * Main memory first, always; then the GPUs with memory of their own, numbered as the engine numbers them.
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
    case "vulkan":
      return separate("vulkan", machine.platform === "darwin" ? [] : await readVulkan(io, env));
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

function separate(kind: "cuda" | "rocm" | "vulkan", gpus: readonly GpuMemory[]): Gpus {
  const devices = gpus.map(({ name, uuid, totalBytes, freeBytes }, index) => ({
    id: `${kind}:${index}`,
    kind,
    name,
    totalBytes,
    freeBytes,
    ...(uuid === null ? {} : { uuid }),
  }));
  return { devices, limit: () => null };
}
