/**
 * Models of any shape with random weights, which llama-server loads and answers from: what they say is noise, what they
 * cost is real. The same specification gives the same bytes.
 */
import { open } from "node:fs/promises";
import { encodeGguf, type GgufValue } from "../store/gguf-file.ts";

export type RandomArchitecture =
  | "llama"
  | "qwen3"
  /** Five layers of six slide. */
  | "gemma3"
  /** Mixture of experts. */
  | "qwen3moe"
  /** Embeddings, without a KV cache. */
  | "nomic-bert"
  /** No attention at all. */
  | "mamba";

export type RandomType = "F16" | "Q8_0" | "Q4_0";

export interface RandomModelSpec {
  /** `llama` unless given. */
  readonly architecture?: RandomArchitecture;
  /** Of all matrices; `F16` unless given. */
  readonly type?: RandomType;
  readonly layers: number;
  /** A multiple of 32, and of `heads`. */
  readonly embedding: number;
  readonly heads: number;
  /** As many as `heads` unless given. */
  readonly kvHeads?: number;
  /** A multiple of 32: of each expert, if there are some. */
  readonly feedForward: number;
  /** Trained context in tokens. */
  readonly context: number;
  /** `qwen3moe`; 8 of which 2 are used unless given. */
  readonly experts?: number;
  readonly expertsUsed?: number;
  /** `gemma3`, in tokens; 512 unless given. */
  readonly window?: number;
  /** Tokens, at least 512; 2048 unless given. */
  readonly vocabulary?: number;
  readonly seed?: number;
  /** `general.name`. */
  readonly name?: string;
}

/** Writes the model as one file. */
export async function writeRandomModel(
  path: string,
  spec: RandomModelSpec,
): Promise<{ readonly bytes: number }> {
  const { type = "F16", seed = 1 } = spec;
  const tensors = placeTensors(tensorsOf(spec), type);
  const header = encodeGguf({ values: headerOf(spec), tensors });
  const pool = randomPool(type, seed, 1 / Math.sqrt(spec.embedding));
  await using file = await open(path, "w");
  await file.write(header);
  let position = header.length;
  let turn = 0;
  for (const tensor of tensors) {
    for (const chunk of tensorData(tensor, { pool, turn, type })) {
      await file.write(chunk, 0, chunk.length, position);
      position += chunk.length;
    }
    turn += 1;
  }
  return { bytes: position };
}

// --- internal ---

/** `ggml_type` and its blocks. */
const BLOCKS = {
  F32: { dtype: 0, elements: 1, bytes: 4 },
  F16: { dtype: 1, elements: 1, bytes: 2 },
  Q8_0: { dtype: 8, elements: 32, bytes: 34 },
  Q4_0: { dtype: 2, elements: 32, bytes: 18 },
} as const;

const ALIGNMENT = 32;
/** Random bytes, used again and again from another start; prime, so that rows do not repeat. Blocks. */
const POOL_BLOCKS = { F16: 2_000_003, Q8_0: 100_003, Q4_0: 200_003 } as const;
const CHUNK_BYTES = 8 * 1024 * 1024;
const SPECIAL = ["<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"];
const TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

interface Tensor {
  readonly name: string;
  /** Row length first, as in the file. */
  readonly shape: readonly number[];
  /** A matrix of the model's type, or F32 of one value. */
  readonly fill: "random" | number;
  /** Rows at the end that are zero, so that tokens are unlikely. */
  readonly zeroRows?: number;
}

interface PlacedTensor extends Tensor {
  readonly dtype: number;
  readonly offset: number;
  readonly bytes: number;
}

function vocabularyOf({ vocabulary = 2048 }: RandomModelSpec): number {
  return Math.max(512, vocabulary);
}

function headSizeOf({ embedding, heads }: RandomModelSpec): number {
  return embedding / heads;
}

function tensorsOf(spec: RandomModelSpec): Tensor[] {
  const { architecture = "llama", embedding, layers } = spec;
  const vocabulary = vocabularyOf(spec);
  const isPooled = architecture === "nomic-bert";
  const blocks = Array.from({ length: layers }, (_, index) =>
    layerTensors(spec).map((tensor) => ({ ...tensor, name: `blk.${index}.${tensor.name}` })),
  );
  const input = matrix("token_embd.weight", embedding, vocabulary);
  if (isPooled) {
    return [
      input,
      vector("token_types.weight", [embedding, 1], 0),
      vector("token_embd_norm.weight", [embedding], 1),
      vector("token_embd_norm.bias", [embedding], 0),
      ...blocks.flat(),
    ];
  }
  return [
    input,
    vector("output_norm.weight", [embedding], 1),
    { ...matrix("output.weight", embedding, vocabulary), zeroRows: SPECIAL.length },
    ...blocks.flat(),
  ];
}

function layerTensors(spec: RandomModelSpec): Tensor[] {
  const { architecture = "llama" } = spec;
  if (architecture === "nomic-bert") return pooledLayer(spec);
  if (architecture === "mamba") return recurrentLayer(spec);
  const isNormed = architecture !== "llama";
  const { embedding } = spec;
  const headSize = headSizeOf(spec);
  return [
    vector("attn_norm.weight", [embedding], 1),
    ...attention(spec),
    ...(isNormed ? ["attn_q_norm.weight", "attn_k_norm.weight"] : []).map((name) =>
      vector(name, [headSize], 1),
    ),
    ...(architecture === "gemma3"
      ? ["post_attention_norm.weight", "post_ffw_norm.weight"]
      : []
    ).map((name) => vector(name, [embedding], 1)),
    vector("ffn_norm.weight", [embedding], 1),
    ...(architecture === "qwen3moe" ? expertLayer(spec) : feedForward(spec)),
  ];
}

function attention(spec: RandomModelSpec): Tensor[] {
  const { embedding, heads, kvHeads = heads } = spec;
  const kvWidth = headSizeOf(spec) * kvHeads;
  return [
    matrix("attn_q.weight", embedding, embedding),
    matrix("attn_k.weight", embedding, kvWidth),
    matrix("attn_v.weight", embedding, kvWidth),
    matrix("attn_output.weight", embedding, embedding),
  ];
}

function feedForward({ embedding, feedForward: width }: RandomModelSpec): Tensor[] {
  return [
    matrix("ffn_gate.weight", embedding, width),
    matrix("ffn_up.weight", embedding, width),
    matrix("ffn_down.weight", width, embedding),
  ];
}

function expertLayer({ embedding, feedForward: width, experts = 8 }: RandomModelSpec): Tensor[] {
  return [
    { name: "ffn_gate_inp.weight", shape: [embedding, experts], fill: 0.01 },
    { ...matrix("ffn_gate_exps.weight", embedding, width), shape: [embedding, width, experts] },
    { ...matrix("ffn_up_exps.weight", embedding, width), shape: [embedding, width, experts] },
    { ...matrix("ffn_down_exps.weight", width, embedding), shape: [width, embedding, experts] },
  ];
}

function pooledLayer(spec: RandomModelSpec): Tensor[] {
  const { embedding } = spec;
  const norms = ["attn_output_norm", "layer_output_norm"].flatMap((name) => [
    vector(`${name}.weight`, [embedding], 1),
    vector(`${name}.bias`, [embedding], 0),
  ]);
  return [
    matrix("attn_qkv.weight", embedding, 3 * embedding),
    matrix("attn_output.weight", embedding, embedding),
    ...norms,
    ...feedForward(spec),
  ];
}

/** Mamba's usual numbers: inner width 2 × embedding, state 16, convolution 4. */
function mambaSizes({ embedding }: RandomModelSpec) {
  return { inner: 2 * embedding, state: 16, convolution: 4, rank: Math.ceil(embedding / 16) };
}

function recurrentLayer(spec: RandomModelSpec): Tensor[] {
  const { embedding } = spec;
  const { inner, state, convolution, rank } = mambaSizes(spec);
  return [
    vector("attn_norm.weight", [embedding], 1),
    matrix("ssm_in.weight", embedding, 2 * inner),
    vector("ssm_conv1d.weight", [convolution, inner], 0.1),
    vector("ssm_conv1d.bias", [inner], 0),
    matrix("ssm_x.weight", inner, rank + 2 * state),
    vector("ssm_dt.weight", [rank, inner], 0.01),
    vector("ssm_dt.bias", [inner], 0.1),
    vector("ssm_a", [state, inner], -1),
    vector("ssm_d", [inner], 1),
    matrix("ssm_out.weight", inner, embedding),
  ];
}

function matrix(name: string, columns: number, rows: number): Tensor {
  return { name, shape: [columns, rows], fill: "random" };
}

function vector(name: string, shape: readonly number[], fill: number): Tensor {
  return { name, shape, fill };
}

function placeTensors(tensors: readonly Tensor[], type: RandomType): PlacedTensor[] {
  let offset = 0;
  return tensors.map((tensor) => {
    const block = tensor.fill === "random" ? BLOCKS[type] : BLOCKS.F32;
    const elements = tensor.shape.reduce((product, size) => product * size, 1);
    const bytes = (elements / block.elements) * block.bytes;
    const placed = { ...tensor, dtype: block.dtype, offset, bytes };
    offset += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    return placed;
  });
}

function* tensorData(
  tensor: PlacedTensor,
  { pool, turn, type }: { pool: Buffer; turn: number; type: RandomType },
): Generator<Buffer> {
  const padded = Math.ceil(tensor.bytes / ALIGNMENT) * ALIGNMENT;
  if (tensor.fill !== "random") {
    const data = Buffer.alloc(padded);
    new Float32Array(data.buffer, data.byteOffset, tensor.bytes / 4).fill(tensor.fill);
    yield data;
    return;
  }
  const [, rows = 1] = tensor.shape;
  const isZeroFrom = tensor.bytes - (tensor.bytes / rows) * (tensor.zeroRows ?? 0);
  const block = BLOCKS[type].bytes;
  let from = ((turn * 7919) % POOL_BLOCKS[type]) * block;
  for (let done = 0; done < padded;) {
    const length = Math.min(CHUNK_BYTES, pool.length - from, padded - done);
    const chunk = Buffer.from(pool.subarray(from, from + length));
    if (done + length > isZeroFrom) chunk.fill(0, Math.max(0, isZeroFrom - done));
    yield chunk;
    done += length;
    from = (from + length) % pool.length;
  }
}

/** Values of about the given deviation, so that activations neither vanish nor overflow. */
function randomPool(type: RandomType, seed: number, deviation: number): Buffer {
  const next = mulberry32(seed);
  const { bytes } = BLOCKS[type];
  const blocks = POOL_BLOCKS[type];
  const pool = Buffer.alloc(blocks * bytes);
  if (type === "F16") {
    const values = new Float16Array(pool.buffer, pool.byteOffset, blocks);
    // Of a uniform distribution the bound is √3 deviations.
    for (let index = 0; index < blocks; index += 1)
      values[index] = (next() * 2 - 1) * Math.sqrt(3) * deviation;
    return pool;
  }
  const scale = Buffer.from(
    new Float16Array([(Math.sqrt(3) * deviation) / (type === "Q8_0" ? 127 : 8)]).buffer,
  );
  for (let index = 0; index < pool.length; index += 1) {
    const place = index % bytes;
    pool[index] = place < 2 ? (scale[place] ?? 0) : Math.floor(next() * 256);
  }
  return pool;
}

function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function headerOf(spec: RandomModelSpec): Record<string, GgufValue> {
  const { architecture = "llama", type = "F16", name } = spec;
  const fileType = { F16: 1, Q8_0: 7, Q4_0: 2 }[type];
  const own = Object.entries(architectureValues(spec)).map(([key, value]) => [
    `${architecture}.${key}`,
    value,
  ]);
  return {
    "general.architecture": { string: architecture },
    "general.type": { string: "model" },
    "general.name": { string: name ?? `random-${architecture}-${spec.layers}x${spec.embedding}` },
    "general.license": { string: "cc0-1.0" },
    "general.file_type": { uint32: fileType },
    "general.quantization_version": { uint32: 2 },
    "general.alignment": { uint32: ALIGNMENT },
    ...Object.fromEntries(own),
    ...tokenizerValues(vocabularyOf(spec)),
  };
}

function architectureValues(spec: RandomModelSpec): Record<string, GgufValue> {
  const { architecture = "llama", heads, kvHeads = heads } = spec;
  const shared: Record<string, GgufValue> = {
    context_length: { uint32: spec.context },
    embedding_length: { uint32: spec.embedding },
    block_count: { uint32: spec.layers },
    vocab_size: { uint32: vocabularyOf(spec) },
  };
  if (architecture === "mamba") return { ...shared, ...mambaValues(spec) };
  const attends: Record<string, GgufValue> = {
    ...shared,
    feed_forward_length: { uint32: spec.feedForward },
    "attention.head_count": { uint32: heads },
    "attention.head_count_kv": { uint32: kvHeads },
    "attention.layer_norm_rms_epsilon": { float32: 1e-5 },
    "rope.dimension_count": { uint32: headSizeOf(spec) },
    "rope.freq_base": { float32: 10_000 },
  };
  if (architecture === "nomic-bert") {
    return {
      ...attends,
      "attention.layer_norm_epsilon": { float32: 1e-5 },
      "attention.causal": { bool: false },
      pooling_type: { uint32: 1 },
    };
  }
  if (architecture === "llama") return attends;
  const headSize = { uint32: headSizeOf(spec) };
  return {
    ...attends,
    "attention.key_length": headSize,
    "attention.value_length": headSize,
    ...(architecture === "gemma3"
      ? { "attention.sliding_window": { uint32: spec.window ?? 512 } }
      : {}),
    ...(architecture === "qwen3moe" ? expertValues(spec) : {}),
  };
}

function expertValues(spec: RandomModelSpec): Record<string, GgufValue> {
  return {
    expert_count: { uint32: spec.experts ?? 8 },
    expert_used_count: { uint32: spec.expertsUsed ?? 2 },
    expert_feed_forward_length: { uint32: spec.feedForward },
  };
}

function mambaValues(spec: RandomModelSpec): Record<string, GgufValue> {
  const { inner, state, convolution, rank } = mambaSizes(spec);
  return {
    feed_forward_length: { uint32: 0 },
    "attention.head_count": { uint32: 0 },
    "attention.layer_norm_rms_epsilon": { float32: 1e-5 },
    "ssm.inner_size": { uint32: inner },
    "ssm.state_size": { uint32: state },
    "ssm.conv_kernel": { uint32: convolution },
    "ssm.time_step_rank": { uint32: rank },
  };
}

/** All bytes, pairs of letters with their merges, then words of letters that only come out; the special ones last. */
function tokenizerValues(size: number): Record<string, GgufValue> {
  const letters = "abcdefghijklmnopqrstuvwxyz".split("");
  const pairs = letters.flatMap((one) => letters.map((other) => [one, other] as const));
  const known = byteTokens();
  const merges: string[] = [];
  const words: string[] = [];
  for (let index = 0; known.length + words.length + SPECIAL.length < size; index += 1) {
    const pair = pairs[index];
    if (pair !== undefined) merges.push(pair.join(" "));
    words.push(pair === undefined ? `Ġ${wordOf(index)}` : pair.join(""));
  }
  const tokens = [...known, ...words, ...SPECIAL];
  const first = tokens.length - SPECIAL.length;
  return {
    "tokenizer.ggml.model": { string: "gpt2" },
    "tokenizer.ggml.pre": { string: "gpt-2" },
    "tokenizer.ggml.token_type_count": { uint32: 1 },
    "tokenizer.ggml.tokens": { array: tokens.map((token) => ({ string: token })) },
    "tokenizer.ggml.token_type": {
      // 1 is normal, 3 is control.
      array: tokens.map((_, id) => ({ int32: id < first ? 1 : 3 })),
    },
    "tokenizer.ggml.merges": { array: merges.map((merge) => ({ string: merge })) },
    "tokenizer.ggml.bos_token_id": { uint32: first },
    "tokenizer.ggml.eos_token_id": { uint32: first + 2 },
    "tokenizer.ggml.eot_token_id": { uint32: first + 2 },
    "tokenizer.ggml.padding_token_id": { uint32: first + 3 },
    "tokenizer.ggml.add_bos_token": { bool: false },
    "tokenizer.ggml.add_eos_token": { bool: false },
    "tokenizer.chat_template": { string: TEMPLATE },
  };
}

function wordOf(index: number): string {
  let rest = index;
  let word = "";
  do {
    word += String.fromCodePoint(97 + (rest % 26));
    rest = Math.floor(rest / 26);
  } while (rest > 0);
  return word;
}

/** GPT-2's printable stand-ins for the 256 bytes. */
export function byteTokens(): string[] {
  let replaced = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    if (isPrintable) return String.fromCodePoint(byte);
    replaced += 1;
    return String.fromCodePoint(255 + replaced);
  });
}
