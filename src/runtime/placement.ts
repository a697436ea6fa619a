/** Which layers of a model go to which device. Pure. */
import type { ModelShape } from "../store/model-shape.ts";
import { type Demand, type DeviceId, shortage } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";
import { estimateMemory, type RunShape } from "./memory.ts";
import { IN_RAM, type Placement } from "./weight-memory.ts";

export type { Placement };

export interface PlaceOptions {
  /** Everything but the placement. */
  readonly run: Omit<RunShape, "offload">;
  readonly devices: readonly Device[];
  /** Bytes that the model may take, by device. */
  readonly budget: Demand;
  /** Layers that are to be on GPUs whether they fit or not, the output counting as one; -1 all. */
  readonly gpuLayers?: number | undefined;
}

/**
 * Whole on the GPU with most room if it fits there; else split over all GPUs by their room; else as many layers as fit,
 * the rest in main memory. Without a GPU that has room for a single layer everything is in main memory.
 */
export function place(shape: ModelShape, options: PlaceOptions): Placement {
  const gpus = gpusByRoom(options);
  const [largest] = gpus;
  const all = shape.layers.length + 1;
  if (largest === undefined || options.gpuLayers === 0) return IN_RAM;
  if (shape.layers.length === 0) return placeUnknown(shape, options, largest);
  const { gpuLayers } = options;
  if (gpuLayers !== undefined) {
    const wanted = gpuLayers < 0 ? all : Math.min(gpuLayers, all);
    const alone = split(shape, [largest], { gpuLayers: wanted, budget: options.budget });
    return fits(shape, alone, options)
      ? alone
      : split(shape, gpus, { gpuLayers: wanted, budget: options.budget });
  }
  const isShared = options.devices.some(({ kind }) => kind === "rpc");
  // llama-server shares out to all devices, in proportion to their room; that it leaves some out is for GPUs of one machine.
  const used = isShared ? gpus : [largest];
  const alone = split(shape, used, { gpuLayers: all, budget: options.budget });
  if (fits(shape, alone, options)) return alone;
  return mostLayers(shape, gpus, options);
}

// --- internal ---

function gpusByRoom({ devices, budget }: PlaceOptions): DeviceId[] {
  return devices
    .filter(({ kind, id }) => kind !== "ram" && (budget[id] ?? 0) > 0)
    .map(({ id }) => id)
    .toSorted((one, other) => (budget[other] ?? 0) - (budget[one] ?? 0));
}

/** The most layers that fit; what fits is found by halving, for more layers never need less. */
function mostLayers(
  shape: ModelShape,
  gpus: readonly DeviceId[],
  options: PlaceOptions,
): Placement {
  const { budget } = options;
  let low = 0;
  let high = shape.layers.length + 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(shape, split(shape, gpus, { gpuLayers: middle, budget }), options)) low = middle;
    else high = middle - 1;
  }
  return low === 0 ? IN_RAM : split(shape, gpus, { gpuLayers: low, budget });
}

/**
 * The last layers go to the GPUs, in proportion to their room; the output goes to the last of these, and is the first to
 * go. @see llama.cpp src/llama-model.cpp load_tensors, i_gpu_start
 */
function split(
  shape: ModelShape,
  gpus: readonly DeviceId[],
  { gpuLayers, budget }: { readonly gpuLayers: number; readonly budget: Demand },
): Placement {
  if (gpuLayers <= 0) return IN_RAM;
  const layers = Math.min(gpuLayers - 1, shape.layers.length);
  const total = gpus.reduce((sum, id) => sum + (budget[id] ?? 0), 0);
  let room = 0;
  let given = 0;
  const shares = gpus.map((device) => {
    room += budget[device] ?? 0;
    const end = Math.round((layers * room) / total);
    const share = { device, layers: end - given };
    given = end;
    return share;
  });
  const used = shares.filter((share) => share.layers > 0);
  const last = used.at(-1)?.device ?? gpus[0] ?? "ram";
  return { gpus: used.length > 0 ? used : [{ device: last, layers: 0 }], output: last, gpuLayers };
}

/** Only the GPUs' room counts: whether the rest fits main memory is for whoever admits it. */
function fits(shape: ModelShape, offload: Placement, { run, budget }: PlaceOptions): boolean {
  const { demand } = estimateMemory(shape, { ...run, offload });
  return Object.keys(shortage(demand, budget)).every((device) => device === "ram");
}

/** Of a model whose layers are unknown only all or nothing can be said. */
function placeUnknown(shape: ModelShape, options: PlaceOptions, device: DeviceId): Placement {
  const whole: Placement = { gpus: [{ device, layers: 0 }], output: device, gpuLayers: ALL_LAYERS };
  return fits(shape, whole, options) ? whole : IN_RAM;
}

/** More than any model has. */
const ALL_LAYERS = 999;
