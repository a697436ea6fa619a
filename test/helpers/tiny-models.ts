/**
 * Models for what no other test model can do: a reranker, and a projector that gives a text model eyes. Random weights,
 * the same each time: what they say means nothing, that they say it is real. Some hundred kilobytes each.
 */
import { open } from "node:fs/promises";
import { encodeGguf, type GgufValue } from "../store/gguf-file.ts";

/** A BERT with a head that ranks, which llama-server takes for `/v1/rerank`. */
export async function writeTinyReranker(path: string): Promise<void> {
  await writeModel(path, { values: rerankerValues(), tensors: rerankerTensors() });
}

/**
 * A CLIP encoder with LLaVA's projector, for a text model of `width`.
 *
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/mtmd/clip-impl.h
 */
export async function writeTinyProjector(path: string, width: number): Promise<void> {
  await writeModel(path, { values: projectorValues(width), tensors: projectorTensors(width) });
}

// --- internal ---

interface Tensor {
  readonly name: string;
  /** Row length first, as in the file. */
  readonly shape: readonly number[];
  /** Random, or F32 of one value. */
  readonly fill?: number;
}

interface Model {
  readonly values: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly Tensor[];
}

const ALIGNMENT = 32;
const WIDTH = 64;
const HEADS = 2;
const WIDE = 128;
const CONTEXT = 512;
const BYTES = 256;
const SPECIAL = ["<s>", "</s>", "<pad>", "<unk>"];
const VOCABULARY = BYTES + SPECIAL.length;
/** `enum llama_pooling_type`. */
const POOLING_RANK = 4;
/** `enum llama_token_type`. */
const NORMAL = 1;
const CONTROL = 3;

const IMAGE = 28;
const PATCH = 14;
const EYE_WIDTH = 32;
/** LLaVA takes what the layer before the last one says. */
const EYE_LAYERS = 2;

async function writeModel(path: string, { values, tensors }: Model): Promise<void> {
  const random = createRandom(1);
  let offset = 0;
  const placed = tensors.map((tensor) => {
    const bytes = 4 * countOf(tensor);
    const at = { ...tensor, dtype: 0, offset };
    offset += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    return at;
  });
  const data = Buffer.alloc(offset);
  for (const tensor of placed) {
    for (let index = 0; index < countOf(tensor); index += 1) {
      data.writeFloatLE(tensor.fill ?? random(), tensor.offset + 4 * index);
    }
  }
  await using file = await open(path, "w");
  await file.write(Buffer.concat([encodeGguf({ values, tensors: placed }), data]));
}

function countOf({ shape }: Tensor): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Between -0.25 and 0.25 (mulberry32). */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d_2b_79_f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 33 - 0.25;
  };
}

function matrix(name: string, columns: number, rows: number): Tensor[] {
  return [
    { name: `${name}.weight`, shape: [columns, rows] },
    { name: `${name}.bias`, shape: [rows], fill: 0 },
  ];
}

function norm(name: string, width: number): Tensor[] {
  return [
    { name: `${name}.weight`, shape: [width], fill: 1 },
    { name: `${name}.bias`, shape: [width], fill: 0 },
  ];
}

function rerankerTensors(): Tensor[] {
  return [
    { name: "token_embd.weight", shape: [WIDTH, VOCABULARY] },
    { name: "position_embd.weight", shape: [WIDTH, CONTEXT] },
    { name: "token_types.weight", shape: [WIDTH, 2], fill: 0 },
    ...norm("token_embd_norm", WIDTH),
    ...["attn_q", "attn_k", "attn_v", "attn_output"].flatMap((name) =>
      matrix(`blk.0.${name}`, WIDTH, WIDTH),
    ),
    ...norm("blk.0.attn_output_norm", WIDTH),
    ...matrix("blk.0.ffn_up", WIDTH, WIDE),
    ...matrix("blk.0.ffn_down", WIDE, WIDTH),
    ...norm("blk.0.layer_output_norm", WIDTH),
    ...matrix("cls", WIDTH, WIDTH),
    ...matrix("cls.output", WIDTH, 1),
  ];
}

function rerankerValues(): Record<string, GgufValue> {
  return {
    "general.architecture": { string: "bert" },
    "general.type": { string: "model" },
    "general.name": { string: "tiny-reranker" },
    "general.file_type": { uint32: 0 },
    "general.alignment": { uint32: ALIGNMENT },
    "bert.context_length": { uint32: CONTEXT },
    "bert.embedding_length": { uint32: WIDTH },
    "bert.block_count": { uint32: 1 },
    "bert.feed_forward_length": { uint32: WIDE },
    "bert.attention.head_count": { uint32: HEADS },
    "bert.attention.layer_norm_epsilon": { float32: 1e-5 },
    "bert.attention.causal": { bool: false },
    "bert.pooling_type": { uint32: POOLING_RANK },
    "bert.vocab_size": { uint32: VOCABULARY },
    ...tokenizerValues(),
  };
}

function tokenizerValues(): Record<string, GgufValue> {
  const tokens = [...Array.from({ length: BYTES }, (_, byte) => standIn(byte)), ...SPECIAL];
  const id = (text: string) => ({ uint32: tokens.indexOf(text) });
  return {
    "tokenizer.ggml.model": { string: "gpt2" },
    "tokenizer.ggml.pre": { string: "gpt-2" },
    "tokenizer.ggml.token_type_count": { uint32: 2 },
    "tokenizer.ggml.tokens": { array: tokens.map((string) => ({ string })) },
    "tokenizer.ggml.token_type": {
      array: tokens.map((_, index) => ({ int32: index < BYTES ? NORMAL : CONTROL })),
    },
    // There must be some; no text has this one.
    "tokenizer.ggml.merges": { array: [{ string: "z q" }] },
    "tokenizer.ggml.bos_token_id": id("<s>"),
    "tokenizer.ggml.eos_token_id": id("</s>"),
    "tokenizer.ggml.seperator_token_id": id("</s>"),
    "tokenizer.ggml.padding_token_id": id("<pad>"),
    "tokenizer.ggml.unknown_token_id": id("<unk>"),
    "tokenizer.ggml.add_bos_token": { bool: true },
    "tokenizer.ggml.add_eos_token": { bool: true },
  };
}

function isPrintable(value: number): boolean {
  return (
    (value >= 0x21 && value <= 0x7e) ||
    (value >= 0xa1 && value <= 0xac) ||
    (value >= 0xae && value <= 0xff)
  );
}

/** GPT-2's letter for a byte: itself where it is printable, else one beyond Latin-1. */
function standIn(byte: number): string {
  if (isPrintable(byte)) return String.fromCodePoint(byte);
  const before = Array.from({ length: byte }, (_, value) => value).filter(
    (value) => !isPrintable(value),
  ).length;
  return String.fromCodePoint(BYTES + before);
}

function projectorTensors(width: number): Tensor[] {
  const positions = (IMAGE / PATCH) ** 2 + 1;
  const layers = Array.from({ length: EYE_LAYERS }, (_, layer) => {
    const name = (part: string): string => `v.blk.${layer}.${part}`;
    return [
      ...["attn_q", "attn_k", "attn_v", "attn_out"].flatMap((part) =>
        matrix(name(part), EYE_WIDTH, EYE_WIDTH),
      ),
      ...norm(name("ln1"), EYE_WIDTH),
      ...norm(name("ln2"), EYE_WIDTH),
      ...matrix(name("ffn_up"), EYE_WIDTH, WIDTH),
      ...matrix(name("ffn_down"), WIDTH, EYE_WIDTH),
    ];
  });
  return [
    { name: "v.class_embd", shape: [EYE_WIDTH] },
    { name: "v.patch_embd.weight", shape: [PATCH, PATCH, 3, EYE_WIDTH] },
    { name: "v.position_embd.weight", shape: [EYE_WIDTH, positions] },
    ...norm("v.pre_ln", EYE_WIDTH),
    ...layers.flat(),
    ...matrix("mm.0", EYE_WIDTH, width),
    ...matrix("mm.2", width, width),
  ];
}

function projectorValues(width: number): Record<string, GgufValue> {
  const third = { array: [0.5, 0.5, 0.5].map((float32) => ({ float32 })) };
  return {
    "general.architecture": { string: "clip" },
    "general.type": { string: "mmproj" },
    "general.name": { string: "tiny-projector" },
    "general.file_type": { uint32: 0 },
    "general.alignment": { uint32: ALIGNMENT },
    "clip.has_vision_encoder": { bool: true },
    "clip.projector_type": { string: "mlp" },
    "clip.use_gelu": { bool: true },
    "clip.vision.image_size": { uint32: IMAGE },
    "clip.vision.patch_size": { uint32: PATCH },
    "clip.vision.embedding_length": { uint32: EYE_WIDTH },
    "clip.vision.feed_forward_length": { uint32: WIDTH },
    "clip.vision.projection_dim": { uint32: width },
    "clip.vision.block_count": { uint32: EYE_LAYERS },
    "clip.vision.attention.head_count": { uint32: HEADS },
    "clip.vision.attention.layer_norm_epsilon": { float32: 1e-5 },
    "clip.vision.image_mean": third,
    "clip.vision.image_std": third,
  };
}
