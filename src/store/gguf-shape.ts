/**
 * The shape of a model from a GGUF header. Tensors say which layers attend and how wide; keys say the rest. Pure.
 *
 * Headers come from anybody: every number is bounded, and a header that tells nonsense gives a shape without layers.
 *
 * @see https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 * @see https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model.cpp load_hparams
 */
import { tensorBytes } from "./gguf-tensor-types.ts";
import type { LayerShape, ModelShape } from "./model-shape.ts";

export interface NamedTensor {
  readonly name: string;
  /** Row length first. */
  readonly shape: readonly bigint[];
  /** `ggml_type`. */
  readonly dtype: number;
  /** Its name, such as `Q4_0`. */
  readonly type: string;
}

/** The largest models have 126 layers, dimensions of 2^18 and vocabularies of 2^18: beyond this a header tells nonsense. */
const MAX_LAYERS = 2048;
const MAX_WIDTH = 2 ** 22;
const MAX_TOKENS = 2 ** 31 - 1;

/**
 * Which layers slide, in llama.cpp's terms: of each `period` layers all but the last, or with `denseFirst` all but the
 * first; 0 means all of them. Where the header has `attention.sliding_window_pattern`, that counts.
 *
 * @see llama.cpp src/llama-model.cpp and src/models/*.cpp, set_swa_pattern
 */
const SLIDING: Readonly<Record<string, { period: number; denseFirst?: boolean; window?: number }>> =
  {
    afmoe: { period: 4 },
    cohere2: { period: 4 },
    deepseek4: { period: 0 },
    "exaone-moe": { period: 4 },
    exaone4: { period: 4 },
    gemma2: { period: 2, window: 4096 },
    gemma3: { period: 6 },
    gemma3n: { period: 5 },
    "gemma-embedding": { period: 6 },
    "gpt-oss": { period: 2 },
    llama4: { period: 4, window: 8192 },
    "modern-bert": { period: 3, denseFirst: true },
    olmo2: { period: 4 },
    plamo3: { period: 8 },
    smallthinker: { period: 4, denseFirst: true, window: 4096 },
  };

/** Architectures that llama.cpp gives no cache. @see llama.cpp src/llama-model.cpp create_memory */
const CACHELESS = new Set([
  "bert",
  "dream",
  "eurobert",
  "gemma-embedding",
  "jina-bert-v2",
  "jina-bert-v3",
  "llada",
  "llada-moe",
  "modern-bert",
  "neo-bert",
  "nomic-bert",
  "nomic-bert-moe",
  "rnd1",
  "wavtokenizer-dec",
]);

/** The layers from here on reuse the keys and values of earlier ones, where no key says it. */
const KV_LAYERS: Readonly<Record<string, number>> = { gemma3n: 20 };

export function toModelShape(
  values: ReadonlyMap<string, unknown>,
  tensors: readonly NamedTensor[],
): ModelShape {
  const header = new Header(values);
  const { architecture } = header;
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const hasOutput = byName.has("output.weight");
  const inputBytes = sumBytes(tensors.filter(({ name }) => isInput(name)));
  const output = byName.get(hasOutput ? "output.weight" : "token_embd.weight");
  const isCacheless = CACHELESS.has(architecture ?? "");
  const context = header.count("context_length", MAX_TOKENS);
  return {
    architecture,
    weightBytes: sumBytes(tensors),
    inputBytes,
    outputBytes: isCacheless || output === undefined ? 0 : Number(tensorBytes(output)),
    isTied: !isCacheless && !hasOutput && output !== undefined,
    ...rearrangeable(tensors),
    layers: toLayers(header, byName, isCacheless),
    ...widths(header, byName),
    contextTokens: context > 0 ? context : null,
    isPooled: isCacheless || header.count("pooling_type", 100) > 0,
  };
}

// --- internal ---

/** Keys of an architecture, as numbers within bounds; what is missing or absurd is 0. */
class Header {
  readonly architecture: string | null;
  readonly #values: ReadonlyMap<string, unknown>;

  constructor(values: ReadonlyMap<string, unknown>) {
    const architecture = values.get("general.architecture");
    this.architecture =
      typeof architecture === "string" && architecture !== "" ? architecture.slice(0, 64) : null;
    this.#values = values;
  }

  /** The largest of an array. */
  count(key: string, max = MAX_WIDTH): number {
    return Math.max(0, ...this.list(key, max).slice(0, MAX_LAYERS));
  }

  /** That of one layer: a number counts for all, an array has one a layer. */
  ofLayer(key: string, layer: number): number | undefined {
    const list = this.list(key, MAX_WIDTH);
    return this.isArray(key) ? list[layer] : list[0];
  }

  isArray(key: string): boolean {
    return Array.isArray(this.#get(key));
  }

  list(key: string, max: number): number[] {
    const value = this.#get(key);
    if (value === undefined) return [];
    const list: readonly unknown[] = Array.isArray(value) ? value : [value];
    return list.slice(0, MAX_LAYERS).map((entry) => bounded(entry, max));
  }

  #get(key: string): unknown {
    return this.#values.get(`${this.architecture}.${key}`);
  }
}

function bounded(value: unknown, max: number): number {
  if (typeof value === "boolean") return value ? 1 : 0;
  const number =
    typeof value === "number" || typeof value === "bigint" ? Number(value) : Number.NaN;
  return Number.isInteger(number) && number >= 0 && number <= max ? number : 0;
}

function sumBytes(tensors: Iterable<NamedTensor>): number {
  let sum = 0n;
  for (const tensor of tensors) sum += tensorBytes(tensor);
  return Number(sum);
}

function isInput(name: string): boolean {
  return /^(?:token_embd|per_layer_token_embd|position_embd|token_types)\.weight$/.test(name);
}

/** Matrices that are multiplied with: rearranged layouts exist for these. */
function rearrangeable(
  tensors: readonly NamedTensor[],
): Pick<ModelShape, "bytesByType" | "expertBytesByType"> {
  const dense: Record<string, number> = {};
  const experts: Record<string, number> = {};
  for (const tensor of tensors) {
    const isVector = tensor.shape.filter((size) => size > 1n).length < 2;
    if (isVector || isInput(tensor.name) || !tensor.name.endsWith(".weight")) continue;
    const sums = tensor.shape.length > 2 ? experts : dense;
    sums[tensor.type] = (sums[tensor.type] ?? 0) + Number(tensorBytes(tensor));
  }
  return { bytesByType: dense, expertBytesByType: experts };
}

function widths(header: Header, byName: ReadonlyMap<string, NamedTensor>) {
  const embeddingLength = header.count("embedding_length");
  const input = byName.get("token_embd.weight");
  const rows = bounded(input?.shape[1], 2 ** 26);
  const headCount = header.count("attention.head_count");
  const headSize = header.count("attention.key_length") || ratio(embeddingLength, headCount);
  return {
    embeddingLength,
    feedForwardLength: header.count("feed_forward_length"),
    expertFeedForwardLength: header.count("expert_feed_forward_length"),
    headCount,
    queryElements: Math.min(MAX_WIDTH, headCount * headSize),
    vocabularySize: rows || header.count("vocab_size", 2 ** 26),
    expertCount: header.count("expert_count"),
    expertUsedCount: header.count("expert_used_count"),
  };
}

function toLayers(
  header: Header,
  byName: ReadonlyMap<string, NamedTensor>,
  isCacheless: boolean,
): LayerShape[] {
  const total = header.count("block_count", 2 ** 31);
  // Layers that predict further tokens are loaded, but have no cache of the main context.
  const count = total - header.count("nextn_predict_layers", total);
  if (count <= 0 || count > MAX_LAYERS || header.count("embedding_length") === 0) return [];
  if (isCacheless) {
    return Array.from({ length: count }, () => attention(0, 0));
  }
  const isSliding = slidingPattern(header);
  const owned = count - header.count("attention.shared_kv_layers", count);
  const from = Math.min(owned, KV_LAYERS[header.architecture ?? ""] ?? count);
  return Array.from({ length: count }, (_, index) =>
    index >= from ? attention(0, 0) : toLayer(header, byName, { index, window: isSliding(index) }),
  );
}

function attention(keyElements: number, valueElements: number): LayerShape {
  return { kind: "attention", keyElements, valueElements };
}

function toLayer(
  header: Header,
  byName: ReadonlyMap<string, NamedTensor>,
  { index, window }: { readonly index: number; readonly window: number },
): LayerShape {
  const has = (name: string): boolean => byName.has(`blk.${index}.${name}`);
  const isRecurrent = RECURRENT_TENSORS.some(has);
  // Linear attention has fused projections, too: only separate keys say that the layer attends besides.
  const attends = has("attn_k.weight") || has("attn_kv_a_mqa.weight") || !isRecurrent;
  const state = isRecurrent ? { stateBytes: stateBytes(header) } : {};
  if (!attends) return { kind: "recurrent", keyElements: 0, valueElements: 0, ...state };
  if (has("attn_k_b.weight")) {
    const keyElements =
      header.count("attention.kv_lora_rank") + header.count("rope.dimension_count");
    return { kind: "latent", keyElements, valueElements: 0, ...state };
  }
  const { keys, values } = cacheWidths(header, byName, { index, isSliding: window > 0 });
  if (window === 0) return { ...attention(keys, values), ...state };
  return { kind: "sliding", keyElements: keys, valueElements: values, window, ...state };
}

const RECURRENT_TENSORS = [
  "ssm_conv1d.weight",
  "ssm_conv1d_q.weight",
  "ssm_a",
  "ssm_out.weight",
  "time_mix_key.weight",
  "time_mix_w1.weight",
  "shortconv.conv.weight",
] as const;

/** Rows of the projections; where these are fused, what the keys say. */
function cacheWidths(
  header: Header,
  byName: ReadonlyMap<string, NamedTensor>,
  { index, isSliding }: { readonly index: number; readonly isSliding: boolean },
): { keys: number; values: number } {
  const rows = (name: string): number =>
    bounded(byName.get(`blk.${index}.${name}.weight`)?.shape[1], MAX_WIDTH);
  const heads = header.ofLayer("attention.head_count", index) ?? 0;
  const kvHeads = header.ofLayer("attention.head_count_kv", index) ?? heads;
  const even = ratio(header.count("embedding_length"), heads);
  const size = (key: string): number =>
    (isSliding ? header.count(`attention.${key}_swa`) : 0) ||
    header.count(`attention.${key}`) ||
    even;
  const keys = rows("attn_k") || kvHeads * size("key_length");
  // Some models use the keys as values, and have no tensor for them.
  const values = rows("attn_v") || rows("attn_k") || kvHeads * size("value_length");
  return { keys: Math.min(keys, MAX_WIDTH), values: Math.min(values, MAX_WIDTH) };
}

/** The window of a layer in tokens; 0 for one that does not slide. */
function slidingPattern(header: Header): (layer: number) => number {
  const known = SLIDING[header.architecture ?? ""];
  const window = windowOf(header, known?.window);
  const key = "attention.sliding_window_pattern";
  if (window === 0) return () => 0;
  if (header.isArray(key)) return (layer) => (header.ofLayer(key, layer) ? window : 0);
  const period = header.ofLayer(key, 0) ?? known?.period;
  if (period === undefined) return () => 0;
  const dense = known?.denseFirst === true ? 0 : period - 1;
  return (layer) => (period > 0 && layer % period === dense ? 0 : window);
}

/** Without a window in its header a model does not slide: Olmo 2 is Olmo 3 only with one. Llama 4 never has one. */
function windowOf(header: Header, fixed: number | undefined): number {
  const named = header.count("attention.sliding_window", MAX_TOKENS);
  return named > 0 || header.architecture === "llama4" ? (fixed ?? named) : 0;
}

/**
 * Bytes of state of one layer and sequence, which llama.cpp keeps in F32.
 *
 * @see llama.cpp src/llama-hparams.cpp n_embd_r, n_embd_s
 */
function stateBytes(header: Header): number {
  const embedding = header.count("embedding_length");
  const head = header.count("wkv.head_size");
  if (head > 0) {
    const shifts = header.count("token_shift_count") || 2;
    return 4 * embedding * (shifts + head);
  }
  const short = header.count("shortconv.l_cache");
  if (short > 0) return 4 * embedding * (short - 1);
  const convolution = Math.max(0, header.count("ssm.conv_kernel") - 1);
  const kda = header.count("kda.head_dim");
  if (kda > 0) {
    const heads = header.count("attention.head_count");
    return 4 * heads * kda * (3 * convolution + kda);
  }
  const inner = header.count("ssm.inner_size");
  const state = header.count("ssm.state_size");
  const groups = header.count("ssm.group_count");
  return 4 * (convolution * (inner + 2 * groups * state) + state * inner);
}

function ratio(one: number, other: number): number {
  return other > 0 ? Math.floor(one / other) : 0;
}
