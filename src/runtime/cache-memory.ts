/** Bytes of keys and values. Pure. */
import type { LayerShape } from "../store/model-shape.ts";

/** llama.cpp rounds contexts up to this. @see llama.cpp src/llama-context.cpp, GGML_PAD(n_ctx, 256) */
export const CONTEXT_UNIT = 256;

export interface CacheRun {
  /** Slots. */
  readonly parallel: number;
  readonly cacheTypeK: string;
  readonly cacheTypeV: string;
  /** Sliding layers keep all of the context (`--swa-full`). */
  readonly keepsWholeWindows?: boolean | undefined;
}

export interface CacheExtent {
  /** Of the context, rounded. */
  readonly cells: number;
  /** Of one micro-batch. */
  readonly tokens: number;
}

/** Keys and values of one layer. */
export function cacheBytes(layer: LayerShape, run: CacheRun, extent: CacheExtent): number {
  const { keyElements, valueElements } = layer;
  const bytes = keyElements * typeBytes(run.cacheTypeK) + valueElements * typeBytes(run.cacheTypeV);
  return bytes * cellsOf(layer, run, extent);
}

/** @see llama.cpp src/llama-kv-cache-iswa.cpp: a window for each sequence, and room for one micro-batch */
function cellsOf(
  { window }: LayerShape,
  { parallel, keepsWholeWindows }: CacheRun,
  { cells, tokens }: CacheExtent,
): number {
  if (window === undefined || keepsWholeWindows === true) return cells;
  const slid = Math.ceil((window * parallel + tokens) / CONTEXT_UNIT) * CONTEXT_UNIT;
  return Math.min(cells, slid);
}

// --- internal ---

/** Bytes of a block and elements in it. @see ggml.h ggml_type, gguf-py constants.py GGML_QUANT_SIZES */
const CACHE_TYPES: Readonly<Record<string, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  q8_0: 34 / 32,
  q4_0: 18 / 32,
  q4_1: 20 / 32,
  iq4_nl: 18 / 32,
  q5_0: 22 / 32,
  q5_1: 24 / 32,
  // Of engines for GPUs. `auto` is the model's own, which is half precision wherever it matters.
  auto: 2,
  bfloat16: 2,
  float16: 2,
  fp8: 1,
  fp8_e4m3: 1,
  fp8_e5m2: 1,
  // Four bits, and a scale of eight for each sixteen.
  nvfp4: 9 / 16,
};

/** Of an unknown type the largest. */
function typeBytes(type: string): number {
  return Object.hasOwn(CACHE_TYPES, type) ? (CACHE_TYPES[type] ?? 4) : 4;
}
