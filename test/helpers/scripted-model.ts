/**
 * Models that always say the same: real GGUF files which llama-server loads, prompts and samples like any other, and
 * whose next token is decided by the last one alone. One row of the output matrix per step of the script, no attention.
 * Text, thoughts and tool calls are what the pieces spell; sampling settings change nothing (a script's next token has
 * a logit of about 70 over 0).
 */
import { open } from "node:fs/promises";
import { encodeGguf, type GgufValue } from "../store/gguf-file.ts";
import { byteTokens } from "./random-model.ts";

/** One token each. Bytes, for a character that is split over tokens. */
export type Piece = string | Uint8Array;

export interface Script {
  /** What it says to every prompt, one token per piece, then it ends. No piece twice: see `writeScriptedModel`. */
  readonly pieces: readonly Piece[];
  /** What it says instead when the last message is a tool's result. */
  readonly afterTool?: readonly Piece[];
  /** Jinja; `HERMES_TEMPLATE` unless given. `afterTool` needs its `<|after_tool|>` at the end of the prompt. */
  readonly template?: string;
  /** Trained context in tokens; 4096 unless given. A prompt takes about a token per byte. */
  readonly context?: number;
  /** `general.name`; `scripted` unless given. */
  readonly name?: string;
}

/** ChatML with tools as Hermes models have them: llama.cpp parses `<think>` and `<tool_call>` of its answers. */
const HERMES_TEMPLATE = `
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.reasoning_content %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}
{{- message.content or '' }}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}{{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if messages[-1].role == 'tool' %}{{- '<|after_tool|>' }}{%- endif %}
{%- endif %}`.trimStart();

/** Pieces of a long answer: `w1 w2 w3 …`, each once. */
export function numberedPieces(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `w${index + 1} `);
}

/** Every byte of the text a piece, as far as none comes twice; a byte seen before sticks to the piece before it. */
export function bytePieces(text: string): Uint8Array[] {
  const seen = new Set<string>();
  const pieces: Uint8Array[] = [];
  let held: number[] = [];
  for (const byte of Buffer.from(text)) {
    held.push(byte);
    const key = held.join();
    if (seen.has(key)) continue;
    seen.add(key);
    pieces.push(Uint8Array.from(held));
    held = [];
  }
  if (held.length === 0) return pieces;
  const last = pieces.pop() ?? new Uint8Array();
  return [...pieces, Uint8Array.from([...last, ...held])];
}

/** A call in Hermes' form, as one piece. */
export function toolCallPiece(name: string, input: unknown): string {
  return `<tool_call>\n${JSON.stringify({ name, arguments: input })}\n</tool_call>`;
}

/**
 * Writes the model: about 1 MB for a short script, growing with the square of its length (2,000 pieces take 22 MB).
 * @throws Error for a piece that is empty or comes twice: the token that was said last is all the model knows, and
 *   llama.cpp wants each token's text once.
 */
export async function writeScriptedModel(
  path: string,
  script: Script,
): Promise<{ readonly bytes: number }> {
  const vocabulary = vocabularyOf(script);
  const tensors = placeTensors(vocabulary);
  const header = encodeGguf({ values: headerOf(script, vocabulary), tensors });
  const size = tensors.reduce((end, { offset, bytes }) => Math.max(end, offset + pad(bytes)), 0);
  await using file = await open(path, "w");
  await file.write(header);
  for (const { name, offset, bytes } of tensors) {
    const data = tensorData(name, { vocabulary, bytes });
    if (data !== undefined) await file.write(data, 0, data.length, header.length + offset);
  }
  // What was not written is zero: attention and feed-forward add nothing.
  await file.truncate(header.length + size);
  return { bytes: header.length + size };
}

// --- internal ---

const ALIGNMENT = 32;
const STAND_INS: readonly string[] = byteTokens();
/** Of the one attention head, and the feed-forward width: no weight of either is other than zero. */
const WIDTH = 32;
/** Times √dimension, the norm of a one-hot row, it is the logit of the script's next token. */
const WEIGHT = 4;
const SPECIAL = [
  "<|bos|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|pad|>",
  "<|fim_prefix|>",
  "<|fim_suffix|>",
  "<|fim_middle|>",
  "<|after_tool|>",
] as const;
const F32 = { dtype: 0, bytes: 4 };
const F16 = { dtype: 1, bytes: 2 };
/** `llama_token_type`. */
const TYPE = { normal: 1, control: 3, userDefined: 4 };

interface Vocabulary {
  readonly tokens: readonly { readonly text: string; readonly type: number }[];
  /** By token, the one that follows. */
  readonly next: readonly number[];
  readonly specialId: (token: (typeof SPECIAL)[number]) => number;
  /** Of a row: one number per token, rounded up. */
  readonly dimension: number;
}

/** Bytes, special tokens, the newline of prompts, then the pieces that are none of these. */
function vocabularyOf({ pieces, afterTool = [] }: Script): Vocabulary {
  const tokens = [
    ...STAND_INS.map((text) => ({ text, type: TYPE.normal })),
    ...SPECIAL.map((text) => ({ text, type: TYPE.control })),
    // Prompts end in a newline, and it begins the script. A piece "\n" is the byte's token, so both can be had.
    { text: "\n", type: TYPE.userDefined },
    // What the one merge makes: llama.cpp wants a merge.
    { text: "zq", type: TYPE.normal },
  ];
  const ids = new Map(tokens.map(({ text }, id) => [text, id]));
  const specialId = (token: (typeof SPECIAL)[number]): number => ids.get(token) ?? 0;
  const said = new Set<number>();
  const idOf = (piece: Piece): number => {
    const bytes = Buffer.from(piece);
    const text = [...bytes].map((byte) => STAND_INS[byte]).join("");
    const id = ids.get(text) ?? tokens.length;
    if (bytes.length === 0) throw new Error("cannot write a scripted model: a piece is empty");
    if (said.has(id))
      throw new Error(`cannot write a scripted model: ${String(piece)} comes twice`);
    said.add(id);
    if (id < tokens.length) return id;
    tokens.push({ text, type: TYPE.normal });
    ids.set(text, id);
    return id;
  };
  const chain = [...pieces.map(idOf), specialId("<|im_end|>")];
  const toolChain = [...afterTool.map(idOf), specialId("<|im_end|>")];
  const first = chain[0] ?? specialId("<|im_end|>");
  // Any prompt starts the script, whatever token it ends in.
  const next = tokens.map(() => first);
  for (const steps of [
    chain,
    [specialId("<|after_tool|>"), ...(afterTool.length > 0 ? toolChain : chain.slice(0, 1))],
  ]) {
    steps.slice(1).forEach((id, index) => (next[steps[index] ?? 0] = id));
  }
  const dimension = Math.ceil(tokens.length / ALIGNMENT) * ALIGNMENT;
  return { tokens, next, specialId, dimension };
}

function placeTensors({ tokens, dimension }: Vocabulary) {
  const matrices: [string, number, number][] = [
    ["token_embd.weight", dimension, tokens.length],
    ["output.weight", dimension, tokens.length],
    ["blk.0.attn_q.weight", dimension, WIDTH],
    ["blk.0.attn_k.weight", dimension, WIDTH],
    ["blk.0.attn_v.weight", dimension, WIDTH],
    ["blk.0.attn_output.weight", WIDTH, dimension],
    ["blk.0.ffn_gate.weight", dimension, WIDTH],
    ["blk.0.ffn_up.weight", dimension, WIDTH],
    ["blk.0.ffn_down.weight", WIDTH, dimension],
  ];
  const norms = ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"];
  const all = [
    ...norms.map((name) => ({ name, shape: [dimension], ...F32 })),
    ...matrices.map(([name, columns, rows]) => ({ name, shape: [columns, rows], ...F16 })),
  ];
  let offset = 0;
  return all.map(({ name, shape, dtype, bytes: unit }) => {
    const bytes = shape.reduce((product, length) => product * length, unit);
    const placed = { name, shape, dtype, offset, bytes };
    offset += pad(bytes);
    return placed;
  });
}

/** Undefined where all is zero. */
function tensorData(
  name: string,
  { vocabulary: { next, dimension }, bytes }: { vocabulary: Vocabulary; bytes: number },
): Buffer | undefined {
  const data = Buffer.alloc(bytes);
  if (name.endsWith("norm.weight")) {
    new Float32Array(data.buffer, data.byteOffset, bytes / F32.bytes).fill(1);
    return data;
  }
  const values = new Float16Array(data.buffer, data.byteOffset, bytes / F16.bytes);
  if (name === "token_embd.weight") {
    for (let id = 0; id < next.length; id += 1) values[id * dimension + id] = 1;
    return data;
  }
  if (name !== "output.weight") return undefined;
  next.forEach((id, from) => (values[id * dimension + from] = WEIGHT));
  return data;
}

function headerOf(
  { template = HERMES_TEMPLATE, context = 4096, name = "scripted" }: Script,
  { tokens, specialId, dimension }: Vocabulary,
): Record<string, GgufValue> {
  const llama: Record<string, GgufValue> = {
    context_length: { uint32: context },
    embedding_length: { uint32: dimension },
    block_count: { uint32: 1 },
    vocab_size: { uint32: tokens.length },
    feed_forward_length: { uint32: WIDTH },
    "attention.head_count": { uint32: 1 },
    "attention.head_count_kv": { uint32: 1 },
    "attention.key_length": { uint32: WIDTH },
    "attention.value_length": { uint32: WIDTH },
    "attention.layer_norm_rms_epsilon": { float32: 1e-5 },
    "rope.dimension_count": { uint32: WIDTH },
    "rope.freq_base": { float32: 10_000 },
  };
  return {
    "general.architecture": { string: "llama" },
    "general.type": { string: "model" },
    "general.name": { string: name },
    "general.license": { string: "cc0-1.0" },
    "general.file_type": { uint32: 1 },
    "general.quantization_version": { uint32: 2 },
    "general.alignment": { uint32: ALIGNMENT },
    ...Object.fromEntries(Object.entries(llama).map(([key, value]) => [`llama.${key}`, value])),
    "tokenizer.ggml.model": { string: "gpt2" },
    "tokenizer.ggml.pre": { string: "gpt-2" },
    "tokenizer.ggml.tokens": { array: tokens.map(({ text }) => ({ string: text })) },
    "tokenizer.ggml.token_type": { array: tokens.map(({ type }) => ({ int32: type })) },
    "tokenizer.ggml.merges": { array: [{ string: "z q" }] },
    "tokenizer.ggml.bos_token_id": { uint32: specialId("<|bos|>") },
    "tokenizer.ggml.eos_token_id": { uint32: specialId("<|im_end|>") },
    "tokenizer.ggml.eot_token_id": { uint32: specialId("<|im_end|>") },
    "tokenizer.ggml.padding_token_id": { uint32: specialId("<|pad|>") },
    "tokenizer.ggml.fim_pre_token_id": { uint32: specialId("<|fim_prefix|>") },
    "tokenizer.ggml.fim_suf_token_id": { uint32: specialId("<|fim_suffix|>") },
    "tokenizer.ggml.fim_mid_token_id": { uint32: specialId("<|fim_middle|>") },
    "tokenizer.ggml.add_bos_token": { bool: false },
    "tokenizer.ggml.add_eos_token": { bool: false },
    "tokenizer.chat_template": { string: template },
  };
}

function pad(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
