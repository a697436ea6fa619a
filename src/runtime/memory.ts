/**
 * How many bytes a worker will hold, before it is started. Pure.
 *
 * It follows llama.cpp, but for engines that take GPUs whole (`reserved-memory.ts`): what its log says of its buffers, and what was measured beside them
 * (`bun run bench estimate`). A measured peak is better where there is one.
 */
import type { LayerShape, ModelShape } from "../store/model-shape.ts";
import type { Mode } from "./backend.ts";
import { cacheBytes, type CacheExtent, CONTEXT_UNIT } from "./cache-memory.ts";
import { computeBytes, microBatch } from "./compute-buffer.ts";
import { type Demand, shortage } from "./demand.ts";
import { estimatePictures } from "./picture-memory.ts";
import { estimateReserved, type Reservation } from "./reserved-memory.ts";
import { type MemoryEstimate, Tally } from "./tally.ts";
import {
  deviceOfLayers,
  IN_RAM,
  type Placement,
  type WeightLoading,
  weightMemory,
} from "./weight-memory.ts";

export { IN_RAM, type MemoryEstimate, type Placement, type WeightLoading };

export interface RunShape {
  /** Tokens of all slots together. */
  readonly contextTokens: number;
  /** Slots. */
  readonly parallel: number;
  readonly cacheTypeK: string;
  readonly cacheTypeV: string;
  readonly mode: Mode;
  readonly projectorBytes: number;
  readonly adapterBytes: number;
  readonly draft?: { readonly shape: ModelShape; readonly contextTokens: number } | undefined;
  readonly offload: Placement;
  /** Read, not mapped, unless given. */
  readonly loading?: WeightLoading | undefined;
  /** Prompts of other conversations that the engine keeps (`--cache-ram`); 0 unless given. */
  readonly cacheRamBytes?: number | undefined;
  /** States that a slot keeps to go back to (`--ctx-checkpoints`); `CHECKPOINTS` unless given. */
  readonly checkpoints?: number | undefined;
  /** Tokens computed at once (`--ubatch-size`); what is usual for the mode unless given. */
  readonly microBatch?: number | undefined;
  /** Sliding layers keep all of the context (`--swa-full`). */
  readonly keepsWholeWindows?: boolean | undefined;
  /** What the engine's process takes without a model; llama-server's unless given. */
  readonly engineBytes?: number | undefined;
  /** GPUs that the engine takes its share of, whatever `offload` says. */
  readonly reservation?: Reservation | undefined;
}

/**
 * States a slot keeps of layers that forget (sliding, recurrent), so that the next turn of a conversation need not read
 * all of it again: one at the end of the last prompt is enough for that. The engine's own 32 may be larger than the model.
 */
export const CHECKPOINTS = 1;

/**
 * @param run `contextTokens` and `parallel` positive
 * @returns whole bytes; without layers the rule of thumb from the weights
 */
export function estimateMemory(shape: ModelShape, run: RunShape): MemoryEstimate {
  if (run.reservation !== undefined) return estimateReserved(shape, run, run.reservation);
  if (run.mode === "image-generation") return estimatePictures(shape, run);
  if (shape.layers.length === 0) return ruleOfThumb(shape, run);
  const tally = new Tally();
  addModel(tally, shape, run);
  addProjector(tally, run);
  tally.add("adapters", "ram", run.adapterBytes);
  tally.addGrowing("prompt cache", "ram", run.cacheRamBytes ?? 0);
  addDraft(tally, run);
  const engineBytes = run.engineBytes ?? ENGINE_BYTES;
  tally.add("engine", "ram", engineBytes + shape.vocabularySize * TOKEN_BYTES);
  for (const { device } of run.offload.gpus) tally.add("engine", device, GPU_ENGINE_BYTES);
  return tally.toEstimate();
}

/** An upper guess from the size of the weights alone. */
export function estimateBytes({ weightBytes }: { readonly weightBytes: number }): number {
  return Math.ceil(weightBytes * (1 + OVERHEAD_RATIO)) + UNKNOWN_ENGINE_BYTES;
}

/**
 * The largest context with which the model fits.
 *
 * @param room bytes by device that it may take
 * @returns a multiple of 256, at most what it was trained for, at most `MAX_CONTEXT` where nothing says; undefined if
 *          not even 256 tokens fit
 */
export function largestContext(shape: ModelShape, run: RunShape, room: Demand): number | undefined {
  const trained = Math.min(shape.contextTokens ?? MAX_CONTEXT, MAX_CONTEXT);
  const fits = (units: number): boolean => {
    const { demand } = estimateMemory(shape, { ...run, contextTokens: units * CONTEXT_UNIT });
    return Object.keys(shortage(demand, room)).length === 0;
  };
  let low = 0;
  let high = Math.max(1, Math.floor(trained / CONTEXT_UNIT));
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low === 0 ? undefined : Math.min(low * CONTEXT_UNIT, Math.max(trained, 1));
}

// --- internal ---

const MIB = 1024 * 1024;

/** Of models that do not say what they were trained for. Tokens. */
const MAX_CONTEXT = 2 ** 24;
/** Rule of thumb: buffers that grow with the model. */
const OVERHEAD_RATIO = 0.1;
/** Rule of thumb: the engine's code, compute buffers and a cache of a few thousand tokens. */
const UNKNOWN_ENGINE_BYTES = 128 * MIB;
/** Measured: code, libraries and heap of llama-server without a model, and what it keeps of requests. */
const ENGINE_BYTES = 32 * MIB;
/** Measured: a token of the vocabulary in the tokenizer's tables. */
const TOKEN_BYTES = 350;
/** A driver's context on each GPU; of CUDA's usual size, not measured here. */
const GPU_ENGINE_BYTES = 256 * MIB;
/** What a projector's own compute buffer takes beside its weights. */
const PROJECTOR_RATIO = 0.25;
const PROJECTOR_COMPUTE_BYTES = 64 * MIB;

/** Weights, caches and buffers of one model. */
function addModel(
  tally: Tally,
  shape: ModelShape,
  { prefix = "", ...run }: RunShape & { readonly prefix?: string },
): void {
  const devices = deviceOfLayers(shape, run.offload);
  for (const { part, device, bytes } of weightMemory(shape, run.offload, run.loading))
    tally.add(prefix + part, device, bytes);
  const cells = Math.ceil(run.contextTokens / CONTEXT_UNIT) * CONTEXT_UNIT;
  const tokens = Math.min(run.microBatch ?? microBatch(run.mode, cells), cells);
  for (const [index, layer] of shape.layers.entries()) {
    const device = devices[index] ?? "ram";
    tally.add(`${prefix}cache`, device, cacheBytes(layer, run, { cells, tokens }));
    tally.add(`${prefix}state`, device, (layer.stateBytes ?? 0) * run.parallel);
    // Copies for later are always made in main memory.
    tally.addGrowing(`${prefix}checkpoints`, "ram", checkpointBytes(layer, run, { cells, tokens }));
  }
  const buffer = computeBytes(shape, { cells, tokens, parallel: run.parallel });
  for (const device of new Set(["ram", ...devices])) {
    // Where all layers are on GPUs, main memory has only the input's buffers.
    const isIdle = device === "ram" && !devices.includes("ram");
    tally.addGrowing(
      `${prefix}compute`,
      device,
      isIdle ? tokens * shape.embeddingLength * 8 : buffer,
    );
  }
  const outputs = 4 * (shape.isPooled ? shape.embeddingLength : shape.vocabularySize);
  tally.addGrowing(`${prefix}output`, "ram", outputs * run.parallel);
}

/** A checkpoint has what its sequence has in layers that forget. */
function checkpointBytes(layer: LayerShape, run: RunShape, extent: CacheExtent): number {
  const { checkpoints = CHECKPOINTS, parallel } = run;
  if (run.mode !== "completion") return 0;
  const window = layer.kind === "sliding" ? cacheBytes(layer, { ...run, parallel: 1 }, extent) : 0;
  // Made while a conversation is read, of which each slot has one.
  return checkpoints * parallel * (window + (layer.stateBytes ?? 0));
}

function addProjector(tally: Tally, { projectorBytes: bytes, mode }: RunShape): void {
  if (bytes === 0 || mode !== "completion") return;
  tally.add("projector", "ram", bytes);
  tally.addGrowing("projector", "ram", bytes * PROJECTOR_RATIO + PROJECTOR_COMPUTE_BYTES);
}

/** A draft model lies where the model does, whole: on the last GPU if there is one. */
function addDraft(tally: Tally, run: RunShape): void {
  if (run.draft === undefined || run.mode !== "completion") return;
  const { shape, contextTokens } = run.draft;
  const device = run.offload.output;
  const layers = shape.layers.length;
  const offload: Placement =
    device === "ram"
      ? IN_RAM
      : { gpus: [{ device, layers }], output: device, gpuLayers: layers + 1 };
  if (layers > 0) addModel(tally, shape, { ...run, contextTokens, offload, prefix: "draft " });
  else tally.add("draft weights", device, estimateBytes(shape));
}

function ruleOfThumb(shape: ModelShape, run: RunShape): MemoryEstimate {
  const { weightBytes } = shape;
  const tally = new Tally();
  const [gpu] = run.offload.gpus;
  tally.add("weights", gpu?.device ?? "ram", weightBytes);
  tally.addGrowing("engine", gpu?.device ?? "ram", estimateBytes({ weightBytes }) - weightBytes);
  if (gpu !== undefined) tally.addGrowing("engine", "ram", UNKNOWN_ENGINE_BYTES);
  addProjector(tally, run);
  tally.add("adapters", "ram", run.adapterBytes);
  tally.addGrowing("prompt cache", "ram", run.cacheRamBytes ?? 0);
  addDraft(tally, run);
  return tally.toEstimate();
}
