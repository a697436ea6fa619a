/**
 * A model of a few kilobytes in Hugging Face's layout that always says `a`: to try an engine with, before it is trusted
 * with a real one.
 */
import { tinyTokenizer } from "./tiny-tokenizer.ts";

/** Letters, and what ends a text. */
const TOKENS = ["<pad>", "<s>", "</s>", ..."abcdefghijklmnopqrstuvwxyz ".split("")];
const SPOKEN = TOKENS.indexOf("a");
/** Engines have kernels for multiples of 32. */
const HIDDEN = 64;
const FEED_FORWARD = 64;
const HEADS = 2;

/** By file name. */
export function tinySafetensors(): Readonly<Record<string, string | Uint8Array>> {
  return {
    "config.json": json(CONFIG),
    "generation_config.json": json({ bos_token_id: 1, eos_token_id: 2, pad_token_id: 0 }),
    "tokenizer_config.json": json(TOKENIZER_CONFIG),
    "tokenizer.json": json(TOKENIZER),
    "model.safetensors": toSafetensors(tensors()),
  };
}

// --- internal ---

const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: HIDDEN,
  intermediate_size: FEED_FORWARD,
  num_hidden_layers: 1,
  num_attention_heads: HEADS,
  num_key_value_heads: HEADS,
  head_dim: HIDDEN / HEADS,
  vocab_size: TOKENS.length,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  hidden_act: "silu",
  tie_word_embeddings: false,
  attention_bias: false,
  mlp_bias: false,
  torch_dtype: "float32",
  bos_token_id: 1,
  eos_token_id: 2,
  pad_token_id: 0,
};

const TOKENIZER_CONFIG = {
  tokenizer_class: "PreTrainedTokenizerFast",
  bos_token: "<s>",
  eos_token: "</s>",
  pad_token: "<pad>",
  model_max_length: 512,
  chat_template: "{% for message in messages %}{{ message['content'] | lower }} {% endfor %}",
};

const TOKENIZER = tinyTokenizer({ tokens: TOKENS, specialCount: 3, unknown: " " });

interface Tensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** All tokens look alike, attention and feed-forward add nothing, and only one token is ever likely. */
function tensors(): Readonly<Record<string, Tensor>> {
  const square = filled([HIDDEN, HIDDEN], 0);
  const wide = filled([FEED_FORWARD, HIDDEN], 0);
  const head = filled([TOKENS.length, HIDDEN], 0);
  head.values.fill(1, SPOKEN * HIDDEN, (SPOKEN + 1) * HIDDEN);
  const layer = "model.layers.0";
  return {
    "model.embed_tokens.weight": filled([TOKENS.length, HIDDEN], 1),
    "model.norm.weight": filled([HIDDEN], 1),
    "lm_head.weight": head,
    [`${layer}.input_layernorm.weight`]: filled([HIDDEN], 1),
    [`${layer}.post_attention_layernorm.weight`]: filled([HIDDEN], 1),
    [`${layer}.self_attn.q_proj.weight`]: square,
    [`${layer}.self_attn.k_proj.weight`]: square,
    [`${layer}.self_attn.v_proj.weight`]: square,
    [`${layer}.self_attn.o_proj.weight`]: square,
    [`${layer}.mlp.gate_proj.weight`]: wide,
    [`${layer}.mlp.up_proj.weight`]: wide,
    [`${layer}.mlp.down_proj.weight`]: filled([HIDDEN, FEED_FORWARD], 0),
  };
}

function filled(shape: readonly number[], value: number): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  return { shape, values: new Float32Array(count).fill(value) };
}

/** @see https://github.com/huggingface/safetensors#format */
export function toSafetensors(all: Readonly<Record<string, Tensor>>): Uint8Array {
  let offset = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const [name, { shape, values }] of Object.entries(all)) {
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + values.byteLength] };
    offset += values.byteLength;
  }
  const text = json(header);
  const head = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.byteLength));
  const data = Object.values(all).map(({ values }) => Buffer.from(values.buffer));
  return Buffer.concat([length, head, ...data]);
}

function json(value: unknown): string {
  return JSON.stringify(value);
}
