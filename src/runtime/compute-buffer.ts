/**
 * The buffer in which llama.cpp computes one micro-batch. Pure.
 *
 * The engine's allocator places intermediate results so that few overlap; these formulas follow what it printed
 * (`compute buffer size`) for some forty shapes, and are at most a few MiB below, rather above.
 */
import type { ModelShape } from "../store/model-shape.ts";
import type { Mode } from "./backend.ts";

/** Tokens of a micro-batch, llama.cpp's `--ubatch-size`. */
const MICRO_BATCH = 512;
/** As `backends/llamacpp/args.ts` sets it for embeddings and reranking. */
const POOLED_MICRO_BATCH = 2048;

/** Results are computed in F32. */
const F32 = 4;
/** Masks for flash attention are F16, as are the inputs of products with F16 weights. */
const F16 = 2;

export interface BufferExtent {
  /** Tokens of the context. */
  readonly cells: number;
  /** Of one micro-batch. */
  readonly tokens: number;
  /** Slots. */
  readonly parallel: number;
}

/** How many tokens are computed at once. */
export function microBatch(mode: Mode, contextTokens: number): number {
  return Math.min(mode === "completion" ? MICRO_BATCH : POOLED_MICRO_BATCH, contextTokens);
}

/** @returns bytes, the matrix products' own scratch included */
export function computeBytes(shape: ModelShape, { cells, tokens, parallel }: BufferExtent): number {
  const forward = Math.max(feedForward(shape), attention(shape), recurrence(shape));
  const logits = shape.vocabularySize * parallel * F32;
  const widest = Math.max(shape.embeddingLength, shape.feedForwardLength, expertWidth(shape));
  return (
    Math.max(tokens * forward * F32, logits) +
    masks(shape, { cells, tokens, parallel }) +
    tokens * widest * F16
  );
}

// --- internal ---

/** Elements a token: gate, up and their product, the residual, and four results of the layer's width. */
function feedForward(shape: ModelShape): number {
  const { embeddingLength: width, expertUsedCount: used } = shape;
  const dense = 3 * shape.feedForwardLength + 5 * width;
  if (used === 0 || shape.expertCount === 0) return dense;
  // Each expert in use has an output of the layer's width, before these are added.
  const routed = Math.max(3 * expertWidth(shape) + 5 * width, (2 * used + 3) * width);
  return shape.expertFeedForwardLength ? Math.max(dense, routed) : routed;
}

/** Elements of what all experts in use compute for a token. */
function expertWidth(shape: ModelShape): number {
  return shape.expertUsedCount * (shape.expertFeedForwardLength || shape.feedForwardLength);
}

/** Elements a token: queries before and after rotation, keys, values, the output and the residual. */
function attention({ embeddingLength, queryElements, layers }: ModelShape): number {
  const keys = layers.reduce((max, layer) => Math.max(max, layer.keyElements), 0);
  return 3 * embeddingLength + 3 * (queryElements || embeddingLength) + 2 * keys;
}

/** Elements a token of Mamba's inner results, which are 2 layers wide. */
function recurrence({ embeddingLength, layers }: ModelShape): number {
  return layers.some(({ kind }) => kind === "recurrent") ? 15 * embeddingLength : 0;
}

/** One for layers that see everything, one for those that slide. */
function masks(shape: ModelShape, { cells, tokens, parallel }: BufferExtent): number {
  const attending = shape.layers.filter(({ kind }) => kind !== "recurrent");
  const isCached = attending.some(({ keyElements }) => keyElements > 0);
  if (attending.length > 0 && !isCached) return tokens * tokens * F16;
  const full = attending.some(({ window }) => window === undefined) ? cells : 0;
  const windows = attending.map(({ window = 0 }) => window);
  const widest = windows.reduce((max, window) => Math.max(max, window), 0);
  const slid = widest === 0 ? 0 : Math.min(cells, widest * parallel + tokens);
  return (full + slid) * tokens * F16;
}
