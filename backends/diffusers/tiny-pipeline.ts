/**
 * A diffusion pipeline of some hundred kilobytes that draws noise: Stable Diffusion with the fewest layers that there can
 * be. To try an engine with, before it is trusted with a real one.
 */
import { crc32 } from "node:zlib";
import { toSafetensors } from "../python/tiny-model.ts";
import shapes from "./tiny-tensors.txt" with { type: "text" };

type Files = Readonly<Record<string, string | Uint8Array>>;

/** By path. */
export function tinyPipeline(): Files {
  return {
    "model_index.json": json(INDEX),
    "scheduler/scheduler_config.json": json(SCHEDULER),
    "tokenizer/vocab.json": json(Object.fromEntries(TOKENS.map((token, id) => [token, id]))),
    "tokenizer/merges.txt": "#version: 0.2\n",
    "tokenizer/tokenizer_config.json": json(TOKENIZER),
    "text_encoder/config.json": json(TEXT_ENCODER),
    "text_encoder/model.safetensors": weightsOf("text_encoder"),
    "unet/config.json": json(UNET),
    "unet/diffusion_pytorch_model.safetensors": weightsOf("unet"),
    "vae/config.json": json(VAE),
    "vae/diffusion_pytorch_model.safetensors": weightsOf("vae"),
  };
}

export function tinyDduf(): Uint8Array {
  return toZip(tinyPipeline());
}

/**
 * An archive without compression.
 *
 * @see https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT §4.3.7, §4.3.12, §4.3.16
 */
export function toZip(files: Files): Uint8Array {
  const locals: Buffer[] = [];
  const central: Buffer[] = [];
  let offset = 0;
  for (const [path, content] of Object.entries(files)) {
    const data = Buffer.from(content);
    const name = Buffer.from(path);
    const facts = factsOf(data, name);
    const local = Buffer.concat([words(0x04034b50, 20), facts, name, data]);
    central.push(words(0x02014b50, 20, 20), facts, Buffer.alloc(10), long(offset), name);
    locals.push(local);
    offset += local.byteLength;
  }
  const directory = Buffer.concat(central);
  const count = Object.keys(files).length;
  const end = [words(0x06054b50, 0, 0, count, count), long(directory.byteLength), long(offset)];
  return Buffer.concat([...locals, directory, ...end, Buffer.alloc(2)]);
}

// --- internal ---

const SIZE = 8;

const INDEX = {
  _class_name: "StableDiffusionPipeline",
  _diffusers_version: "0.42.1",
  feature_extractor: [null, null],
  image_encoder: [null, null],
  requires_safety_checker: false,
  safety_checker: [null, null],
  scheduler: ["diffusers", "DDIMScheduler"],
  text_encoder: ["transformers", "CLIPTextModel"],
  tokenizer: ["transformers", "CLIPTokenizer"],
  unet: ["diffusers", "UNet2DConditionModel"],
  vae: ["diffusers", "AutoencoderKL"],
};

const SCHEDULER = {
  _class_name: "DDIMScheduler",
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  clip_sample: false,
  set_alpha_to_one: false,
  steps_offset: 1,
};

const LETTERS = "abcdefghijklmnopqrstuvwxyz".split("");
const [BEGIN, END] = ["<|startoftext|>", "<|endoftext|>"];
const TOKENS = [BEGIN, END, ...LETTERS, ...LETTERS.map((letter) => `${letter}</w>`)];

const TOKENIZER = {
  tokenizer_class: "CLIPTokenizer",
  model_max_length: 77,
  bos_token: BEGIN,
  eos_token: END,
  pad_token: END,
  unk_token: END,
};

const TEXT_ENCODER = {
  architectures: ["CLIPTextModel"],
  model_type: "clip_text_model",
  vocab_size: 64,
  hidden_size: SIZE,
  intermediate_size: 2 * SIZE,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 77,
  projection_dim: SIZE,
  bos_token_id: 0,
  eos_token_id: 1,
  pad_token_id: 1,
};

const UNET = {
  _class_name: "UNet2DConditionModel",
  sample_size: 8,
  in_channels: 4,
  out_channels: 4,
  down_block_types: ["CrossAttnDownBlock2D"],
  mid_block_type: null,
  up_block_types: ["CrossAttnUpBlock2D"],
  block_out_channels: [SIZE],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: SIZE,
  attention_head_dim: 4,
};

const VAE = {
  _class_name: "AutoencoderKL",
  sample_size: 64,
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  down_block_types: Array(4).fill("DownEncoderBlock2D"),
  up_block_types: Array(4).fill("UpDecoderBlock2D"),
  block_out_channels: Array(4).fill(SIZE),
  layers_per_block: 1,
  norm_num_groups: 4,
  scaling_factor: 0.18215,
};

/** Scales of norms are 1, their shifts and other biases 0; the rest is noise, of a kind that neither dies nor grows. */
function weightsOf(component: string): Uint8Array {
  const mine = shapes
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([owner]) => owner === component);
  const noise = new Noise();
  const tensors = mine.map(([, name = "", text = ""]) => {
    const shape = text.split("x").map(Number);
    const count = shape.reduce((product, size) => product * size, 1);
    const fanIn = count / (shape[0] ?? 1);
    const values = new Float32Array(count);
    if (shape.length > 1)
      values.forEach((_, index) => (values[index] = noise.next() / fanIn ** 0.5));
    else if (name.endsWith(".weight")) values.fill(1);
    return [name, { shape, values }] as const;
  });
  return toSafetensors(Object.fromEntries(tensors));
}

/** Between -1.7 and 1.7, the same each time. @see Numerical Recipes §7.1, a linear congruential generator */
class Noise {
  #state = 1;

  next(): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return (this.#state / 2 ** 31 - 1) * 1.7;
  }
}

/** Flags, method, time and date, checksum, both sizes, lengths of the name and of nothing. */
function factsOf(data: Buffer, name: Buffer): Buffer {
  const facts = Buffer.alloc(24);
  facts.writeUInt16LE(0x21, 6);
  facts.writeUInt32LE(crc32(data), 8);
  facts.writeUInt32LE(data.byteLength, 12);
  facts.writeUInt32LE(data.byteLength, 16);
  facts.writeUInt16LE(name.byteLength, 20);
  return facts;
}

/** A signature, and numbers of two bytes. */
function words(signature: number, ...numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 + 2 * numbers.length);
  bytes.writeUInt32LE(signature);
  numbers.forEach((number, index) => bytes.writeUInt16LE(number, 4 + 2 * index));
  return bytes;
}

function long(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return bytes;
}

function json(value: unknown): string {
  return JSON.stringify(value);
}
