/** What vendors' tools say about the memory of GPUs, read. Pure: what is no answer gives nothing. */

const MIB = 1024 * 1024;

/** More is no machine but garbage. */
const MAX_GPUS = 64;
/** A row has a hundred characters. */
const MAX_ROW_LENGTH = 1000;

export interface NvidiaGpu {
  /** As `nvidia-smi` numbers them: in the order of their places on the bus. */
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/**
 * `nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.free --format=csv,noheader,nounits`, in MiB.
 *
 * A GPU without memory of its own (Jetson, GB10) or split into instances says `[N/A]`; it is left out.
 */
export function parseNvidiaGpus(output: string): readonly NvidiaGpu[] {
  return parseRows(output, 2).flatMap(({ index, uuid, name, rest: [total, free] }) => {
    const totalBytes = parseMib(total);
    const freeBytes = parseMib(free);
    if (!totalBytes || freeBytes === undefined) return [];
    return [{ index, uuid, name, totalBytes, freeBytes: Math.min(totalBytes, freeBytes) }];
  });
}

/** An NVIDIA GPU as its driver describes it; null is what it does not tell. */
export interface NvidiaFact {
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly totalBytes: number | null;
  /** Such as `580.65.06`. */
  readonly driver: string | null;
  /** Such as 8.9. */
  readonly compute: number | null;
  /** Split into instances (MIG). */
  readonly isSplit: boolean;
}

/** Fields of `--query-gpu` that `parseNvidiaFacts` reads. Drivers before 450 and 510 do not know the last two. */
export const NVIDIA_FIELDS =
  "index,uuid,name,memory.total,driver_version,mig.mode.current,compute_cap";
/** The same without what old drivers refuse the whole query for. */
export const NVIDIA_OLD_FIELDS = "index,uuid,name,memory.total,driver_version";

/** `nvidia-smi --query-gpu=<NVIDIA_FIELDS or NVIDIA_OLD_FIELDS> --format=csv,noheader,nounits`. */
export function parseNvidiaFacts(output: string, fields: string): readonly NvidiaFact[] {
  const trailing = fields.split(",").length - 3;
  return parseRows(output, trailing).map(({ index, uuid, name, rest }) => {
    const [total, driver, split, compute] = rest;
    return {
      index,
      uuid,
      name,
      totalBytes: parseMib(total) || null,
      driver: /^\d{2,4}(?:\.\d{1,4}){0,3}$/.exec(driver ?? "")?.[0] ?? null,
      compute: /^\d{1,2}\.\d$/.test(compute ?? "") ? Number(compute) : null,
      isSplit: split === "Enabled",
    };
  });
}

export interface ComputeApp {
  readonly pid: number;
  readonly uuid: string;
  readonly usedBytes: number;
}

/**
 * `nvidia-smi --query-compute-apps=pid,gpu_uuid,used_memory --format=csv,noheader,nounits`, in MiB. `[N/A]` under
 * Windows, where the system manages the memory.
 */
export function parseComputeApps(output: string): readonly ComputeApp[] {
  const apps: ComputeApp[] = [];
  for (const line of output.split("\n")) {
    const found = /^(\d{1,10}), *(\S{1,80}), *(\d{1,9})\s*$/.exec(line);
    if (found === null) continue;
    const [, pid, uuid = "", used] = found;
    apps.push({ pid: Number(pid), uuid, usedBytes: Number(used) * MIB });
  }
  return apps;
}

export interface VulkanGpu {
  readonly index: number;
  readonly name: string | null;
  readonly uuid: string | null;
  readonly isDiscrete: boolean;
  /** A processor in disguise (llvmpipe, SwiftShader). */
  readonly isProcessor: boolean;
  readonly totalBytes: number;
  /** Null where the driver does not tell (no VK_EXT_memory_budget). */
  readonly freeBytes: number | null;
}

/**
 * `vulkaninfo`: of each GPU, the largest heap that is local to it. Further local heaps are windows into the same memory.
 *
 * @see https://registry.khronos.org/vulkan/specs/latest/man/html/VkPhysicalDeviceMemoryBudgetPropertiesEXT.html
 */
export function parseVulkanGpus(output: string): readonly VulkanGpu[] {
  // A GPU may have several sections: a summary stands first in some versions.
  const sections = new Map<number, string>();
  for (const part of output.split(/^(?=GPU\d{1,3}:)/m).slice(1)) {
    const index = Number(/^GPU(\d+)/.exec(part)?.[1]);
    if (index < MAX_GPUS) sections.set(index, `${sections.get(index) ?? ""}${part}`);
  }
  return [...sections].flatMap(([index, text]) => {
    const heap = largestLocalHeap(text);
    const type = /deviceType\s*=\s*PHYSICAL_DEVICE_TYPE_(\w+)/.exec(text)?.[1];
    if (heap === undefined || type === undefined) return [];
    return [
      {
        index,
        name: /deviceName\s*=\s*(\S.{0,199})/.exec(text)?.[1]?.trim() ?? null,
        uuid: /deviceUUID\s*=\s*([\w-]{1,80})/.exec(text)?.[1] ?? null,
        isDiscrete: type === "DISCRETE_GPU",
        isProcessor: type === "CPU",
        ...heap,
      },
    ];
  });
}

/**
 * The devices that a variable such as `CUDA_VISIBLE_DEVICES` leaves, in its order. What follows the first entry that
 * names none is invisible, too.
 *
 * @param wanted undefined: all
 * @see https://docs.nvidia.com/cuda/cuda-c-programming-guide/#env-vars
 */
export function pickVisible<T>(
  all: readonly T[],
  wanted: string | undefined,
  identify: (device: T) => { readonly index: number; readonly uuid: string | null },
): readonly T[] {
  if (wanted === undefined) return all;
  const picked: T[] = [];
  for (const entry of wanted.split(",").map((text) => text.trim())) {
    const found = all.find((device) => {
      const { index, uuid } = identify(device);
      if (/^\d{1,3}$/.test(entry)) return index === Number(entry);
      // An abbreviation is enough.
      return (
        /^GPU-./i.test(entry) && (uuid?.toLowerCase().startsWith(entry.toLowerCase()) ?? false)
      );
    });
    if (found === undefined || picked.includes(found)) break;
    picked.push(found);
  }
  return picked;
}

// --- internal ---

interface NvidiaRow {
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly rest: readonly string[];
}

/** Rows of index, UUID, name and `trailing` more fields. A name may have commas of its own. */
function parseRows(output: string, trailing: number): readonly NvidiaRow[] {
  const rows: NvidiaRow[] = [];
  for (const line of output.split("\n").slice(0, MAX_GPUS)) {
    if (line.length > MAX_ROW_LENGTH) continue;
    const fields = line.split(",").map((field) => field.trim());
    const [index = "", uuid = ""] = fields;
    const name = fields.slice(2, -trailing).join(", ");
    if (!/^\d{1,3}$/.test(index) || !/^\S{1,80}$/.test(uuid)) continue;
    if (name === "" || name.length > 200) continue;
    rows.push({ index: Number(index), uuid, name, rest: fields.slice(-trailing) });
  }
  return rows;
}

function parseMib(text: string | undefined): number | undefined {
  return /^\d{1,9}$/.test(text ?? "") ? Number(text) * MIB : undefined;
}

function largestLocalHeap(
  text: string,
): { readonly totalBytes: number; readonly freeBytes: number | null } | undefined {
  let largest: { totalBytes: number; freeBytes: number | null } | undefined;
  // The first memory type ends the list of heaps.
  const heaps = (text.split(/^\s*memoryTypes\b/m)[0] ?? "").split(/^\s*memoryHeaps\[\d+\]:/m);
  for (const heap of heaps.slice(1)) {
    const totalBytes = Number(/size\s*=\s*(\d{1,16})\b/.exec(heap)?.[1] ?? 0);
    const budget = Number(/budget\s*=\s*(\d{1,16})\b/.exec(heap)?.[1] ?? 0);
    const isLocal = heap.includes("MEMORY_HEAP_DEVICE_LOCAL_BIT");
    if (!isLocal || totalBytes <= (largest?.totalBytes ?? 0)) continue;
    largest = { totalBytes, freeBytes: budget > 0 ? Math.min(budget, totalBytes) : null };
  }
  return largest;
}
