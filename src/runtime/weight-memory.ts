/** Where weights lie, and how often. Pure. */
import type { ModelShape } from "../store/model-shape.ts";
import type { DeviceId } from "./demand.ts";

/** Where the layers of a model lie: main memory first, then the GPUs in their order. */
export interface Placement {
  /** The first layers are in main memory, the rest is here, in the model's order. Empty: everything is in main memory. */
  readonly gpus: readonly { readonly device: DeviceId; readonly layers: number }[];
  /** Where the output matrix lies. */
  readonly output: DeviceId;
  /** llama.cpp's `--gpu-layers` for it; the output counts as one. */
  readonly gpuLayers: number;
}

export const IN_RAM: Placement = Object.freeze({ gpus: [], output: "ram", gpuLayers: 0 });

/** How weights come into main memory. */
export interface WeightLoading {
  /** Whether the file is mapped: then pages that were read count as resident, beside every copy of them. */
  readonly isMapped: boolean;
  /**
   * `ggml_type`s that the engine rearranges for the processor, into buffers of their own.
   *
   * @see ggml-cpu/repack.cpp ggml_repack_get_optimal_repack_type, ggml-cpu/amx/common.h qtype_has_amx_kernels
   */
  readonly rearranged?: ReadonlySet<string> | undefined;
  /** As `rearranged`, of experts' tensors. */
  readonly rearrangedExperts?: ReadonlySet<string> | undefined;
}

export interface WeightBytes {
  readonly part: "weights" | "rearranged";
  readonly device: DeviceId;
  readonly bytes: number;
}

/** The device of each layer. */
export function deviceOfLayers({ layers }: ModelShape, { gpus }: Placement): DeviceId[] {
  const offloaded = gpus.flatMap((gpu) => Array<DeviceId>(gpu.layers).fill(gpu.device));
  const rest = Math.max(0, layers.length - offloaded.length);
  return [...Array<DeviceId>(rest).fill("ram"), ...offloaded].slice(0, layers.length);
}

/** @param loading read into buffers, unless given */
export function weightMemory(
  shape: ModelShape,
  placement: Placement,
  loading: WeightLoading = { isMapped: false },
): WeightBytes[] {
  const devices = deviceOfLayers(shape, placement);
  const { output } = placement;
  const outputBytes = shape.outputBytes ?? 0;
  const ownOutput = shape.isTied === true ? 0 : outputBytes;
  const each = layerBytes(shape);
  const outside = loading.isMapped
    ? // It is read from end to end, wherever its tensors go.
      [inRam("weights", shape.weightBytes)]
    : [inRam("weights", shape.inputBytes + (output === "ram" ? ownOutput : 0))];
  const offloaded = devices
    .filter((device) => device !== "ram" || !loading.isMapped)
    .map((device): WeightBytes => ({ part: "weights", device, bytes: each }));
  const outputCopy: WeightBytes[] =
    output === "ram" ? [] : [{ part: "weights", device: output, bytes: outputBytes }];
  const share = devices.filter((device) => device === "ram").length / Math.max(1, devices.length);
  return [
    ...outside,
    ...offloaded,
    ...outputCopy,
    inRam("rearranged", copiedBytes(shape, loading) * share),
    inRam("rearranged", output === "ram" ? tiedBytes(shape, loading) : 0),
  ];
}

/** Bytes of the weights of one layer, on average. */
function layerBytes(shape: ModelShape): number {
  const ownOutput = shape.isTied === true ? 0 : (shape.outputBytes ?? 0);
  const bytes = shape.weightBytes - shape.inputBytes - ownOutput;
  return Math.max(0, bytes) / Math.max(1, shape.layers.length);
}

// --- internal ---

function inRam(part: WeightBytes["part"], bytes: number): WeightBytes {
  return { part, device: "ram", bytes };
}

/** What is resident beside the mapped file. What is read goes straight to where it is rearranged. */
function copiedBytes(shape: ModelShape, loading: WeightLoading): number {
  if (!loading.isMapped) return 0;
  return (
    bytesOf(shape.bytesByType, loading.rearranged) +
    bytesOf(shape.expertBytesByType, loading.rearrangedExperts)
  );
}

function bytesOf(
  sums: Readonly<Record<string, number>> = {},
  types: ReadonlySet<string> = new Set(),
): number {
  return Object.entries(sums).reduce((sum, [type, n]) => sum + (types.has(type) ? n : 0), 0);
}

/** An output that is the input's tensor lies in the rearranged buffer a second time. */
function tiedBytes(shape: ModelShape, { rearranged }: WeightLoading): number {
  const isCopied = shape.isTied === true && rearranged !== undefined && rearranged.size > 0;
  return isCopied ? (shape.outputBytes ?? 0) : 0;
}
