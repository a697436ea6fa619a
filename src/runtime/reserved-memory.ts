/**
 * How many bytes an engine takes that reserves its share of GPUs when it starts (vLLM, SGLang), and of which GPUs. Pure.
 *
 * Such an engine is told the share, not the bytes, and fills it: weights first, then what a batch needs, the rest is
 * cache. So what is estimated here is what it will hold, whole thousandths of each GPU.
 */
import type { LayerShape, ModelShape } from "../store/model-shape.ts";
import type { FlagMemory, ReservingGpus } from "./backend.ts";
import { cacheBytes, type CacheRun, CONTEXT_UNIT } from "./cache-memory.ts";
import { type Demand, type DeviceId, isNothing, shortage } from "./demand.ts";
import type { Device } from "./hardware/devices.ts";
import { type MemoryEstimate, Tally } from "./tally.ts";

export type ReservedGpu = Pick<Device, "id" | "totalBytes">;

export interface Reservation {
  readonly needs: ReservingGpus;
  /** At least one, in the order of their numbers; the model is shared out to them evenly. */
  readonly gpus: readonly ReservedGpu[];
  /** That it is split into; fewer than GPUs if some have copies, more if some are other machines'. */
  readonly parts: number;
  /** What flags say it takes of each, 0 to 1. */
  readonly share?: number | undefined;
}

export interface ReservedRun extends CacheRun {
  readonly contextTokens: number;
  readonly engineBytes?: number | undefined;
  readonly draft?: { readonly shape: ModelShape; readonly contextTokens: number } | undefined;
}

export interface ReserveOptions {
  readonly needs: ReservingGpus;
  readonly run: ReservedRun;
  readonly devices: readonly Device[];
  /** Bytes that the model may take, by device. */
  readonly budget: Demand;
  /** What flags say. */
  readonly said?: FlagMemory["gpus"];
  readonly share?: number | undefined;
  /** Of groups of GPUs that are as good, the how-manieth; counted round. Default: 0. */
  readonly turn?: number | undefined;
}

/** GPUs of this machine that these engines know. */
const OWN_GPUS: ReadonlySet<Device["kind"]> = new Set(["cuda", "rocm"]);
/** More than any one machine has. */
const MAX_GPUS = 64;
/** Of weights and cache: what allocators lose by rounding, and what comes with each request. */
const SLACK = 0.05;
/** Of a model whose layers nobody knows: its cache. */
const UNKNOWN_CACHE_SHARE = 0.1;
/** Intermediate results are in half precision; what is sampled from in single, and sorted into a copy. */
const F16 = 2;
const LOGITS = 8;
/** Engines are told thousandths of a GPU. */
const STEPS = 1000;

/**
 * The fewest GPUs that the model fits, a power of two that divides its heads of attention, with numbers that follow each
 * other; of several such groups the one with most room, of as good ones each model its own. Where it fits none, as many
 * as there are.
 *
 * @returns undefined without a GPU
 */
export function reserveGpus(shape: ModelShape, options: ReserveOptions): Reservation | undefined {
  const { needs, run, budget, said, share, turn = 0 } = options;
  const usable = options.devices
    .filter(({ id, kind }) => OWN_GPUS.has(kind) && (budget[id] ?? 0) > 0)
    .slice(0, MAX_GPUS)
    // What is free of them changes all the time: what is decided by a reservation must not.
    .map(({ id, totalBytes }) => ({ id, totalBytes }));
  let widest: Reservation | undefined;
  for (const count of countsFor(shape, usable.length, said?.count)) {
    for (const gpus of inTurn(groupsOf(usable, count, budget), turn)) {
      const reservation = { needs, gpus, share, parts: said?.parts ?? count };
      const { demand } = estimateReserved(shape, run, reservation);
      const missing = shortage({ ...demand, ram: 0 }, budget);
      if (isNothing(missing)) return reservation;
      if (widest?.gpus.length !== count) widest = reservation;
    }
  }
  return widest;
}

/** Of a model without layers a rule of thumb. */
export function estimateReserved(
  shape: ModelShape,
  run: ReservedRun,
  { needs, gpus, share, parts: split }: Reservation,
): MemoryEstimate {
  const tally = new Tally();
  const parts = partsOf(shape, run, { needs, split });
  const bytes = Object.values(parts).reduce((sum, part) => sum + part, 0);
  const smallest = Math.min(...gpus.map(({ totalBytes }) => totalBytes));
  const taken = Math.max(share ?? 0, Math.ceil((bytes / smallest) * STEPS) / STEPS);
  for (const { id, totalBytes } of gpus) {
    for (const [part, size] of Object.entries(parts)) tally.add(part, id, size);
    tally.add("cache", id, taken * totalBytes - bytes);
  }
  const others = gpus.length - 1;
  tally.add("engine", "ram", (run.engineBytes ?? 0) + others * needs.processBytes);
  return tally.toEstimate();
}

/** Of each GPU, what the engine is told to take; 0 to 1. */
export function shareOf(demand: Demand, { gpus }: Pick<Reservation, "gpus">): number {
  const shares = gpus.map(({ id, totalBytes }) => (demand[id] ?? 0) / totalBytes);
  return Math.ceil(Math.max(...shares) * STEPS - ROUNDING) / STEPS;
}

/** Of a model whose files nobody can read. */
export function unknownShape({ weightBytes }: { readonly weightBytes: number }): ModelShape {
  return {
    architecture: null,
    weightBytes,
    inputBytes: 0,
    bytesByType: {},
    layers: [],
    embeddingLength: 0,
    feedForwardLength: 0,
    headCount: 0,
    vocabularySize: 0,
    expertCount: 0,
    expertUsedCount: 0,
    contextTokens: null,
    isPooled: false,
  };
}

// --- internal ---

/** Whole bytes are a little more than a thousandth: that is no further one. In thousandths. */
const ROUNDING = 0.01;

function countsFor(
  { headCount }: ModelShape,
  most: number,
  said: number | undefined,
): readonly number[] {
  if (most === 0) return [];
  // More than there are, the engine itself complains of.
  if (said !== undefined) return [Math.min(said, most)];
  const powers = Array.from({ length: Math.floor(Math.log2(most)) + 1 }, (_, power) => 2 ** power);
  return powers.filter((count) => headCount % count === 0);
}

interface Group {
  readonly gpus: readonly ReservedGpu[];
  /** Bytes of its GPU with least. */
  readonly room: number;
  /** Groups of that size that lie beside each other begin there. */
  readonly isAligned: boolean;
}

/** Of GPUs that follow each other; most room first. */
function groupsOf(gpus: readonly ReservedGpu[], count: number, budget: Demand): readonly Group[] {
  return gpus
    .map((_, start) => gpus.slice(start, start + count))
    .filter((group) => group.length === count && areNeighbours(group))
    .map((group) => ({
      gpus: group,
      room: Math.min(...group.map(({ id }) => budget[id] ?? 0)),
      isAligned: numberOf(group[0]?.id ?? "") % count === 0,
    }))
    .toSorted(
      (one, other) => other.room - one.room || Number(other.isAligned) - Number(one.isAligned),
    );
}

/** Begins with another one of the best: not all models are to share one GPU while the one beside it has nothing to do. */
function inTurn(groups: readonly Group[], turn: number): readonly (readonly ReservedGpu[])[] {
  const [first] = groups;
  const isAsGood = ({ room, isAligned }: Group): boolean =>
    room === first?.room && isAligned === first.isAligned;
  const best = groups.filter(isAsGood);
  const start = best.length === 0 ? 0 : turn % best.length;
  const ordered = [...best.slice(start), ...best.slice(0, start), ...groups.slice(best.length)];
  return ordered.map(({ gpus }) => gpus);
}

function areNeighbours(group: readonly ReservedGpu[]): boolean {
  const [first = 0, ...others] = group.map(({ id }) => numberOf(id));
  return others.every((number, index) => number === first + index + 1);
}

function numberOf(id: DeviceId): number {
  return Number(id.split(":")[1]);
}

/** Bytes on each GPU, by what they are for. */
function partsOf(
  shape: ModelShape,
  run: ReservedRun,
  { needs, split }: { readonly needs: ReservingGpus; readonly split: number },
): Readonly<Record<string, number>> {
  const model = modelBytes(shape, run, { needs, split });
  const { draft } = run;
  const drafting =
    draft === undefined
      ? { weights: 0, cache: 0 }
      : modelBytes(draft.shape, { ...run, contextTokens: draft.contextTokens }, { needs, split });
  return {
    weights: model.weights + drafting.weights,
    cache: model.cache + drafting.cache,
    compute: batchBytes(shape, run, needs),
    engine: needs.fixedBytes,
  };
}

function modelBytes(
  shape: ModelShape,
  run: ReservedRun,
  { needs, split }: { readonly needs: ReservingGpus; readonly split: number },
): { readonly weights: number; readonly cache: number } {
  const cells = Math.ceil(run.contextTokens / CONTEXT_UNIT) * CONTEXT_UNIT;
  const tokens = Math.min(needs.batchTokens, cells);
  const sizeOf = (layer: LayerShape): number => {
    const keys = cacheBytes(layer, run, { cells, tokens });
    const state = (layer.stateBytes ?? 0) * run.parallel;
    // What all heads share lies on each GPU whole.
    return (layer.kind === "latent" ? keys : keys / split) + state / split;
  };
  const cache = shape.layers.reduce((sum, layer) => sum + sizeOf(layer), 0);
  const guess = shape.layers.length === 0 ? shape.weightBytes * UNKNOWN_CACHE_SHARE : 0;
  const weights = (shape.weightBytes / split) * (1 + SLACK);
  return { weights, cache: (cache + guess / split) * (1 + SLACK) };
}

/** Of one batch: what the widest layer makes of it, and what is sampled from. */
function batchBytes(shape: ModelShape, run: ReservedRun, { batchTokens }: ReservingGpus): number {
  const { embeddingLength: width, expertUsedCount: used } = shape;
  const routed = used * Math.max(2 * (shape.expertFeedForwardLength ?? 0), width);
  const widest = Math.max(2 * shape.feedForwardLength, routed);
  const elements = widest + 4 * width + 2 * (shape.queryElements ?? width);
  return batchTokens * elements * F16 + run.parallel * shape.vocabularySize * LOGITS;
}
