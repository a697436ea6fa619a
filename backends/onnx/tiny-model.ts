/** Language models of a few kilobytes that say what they are made to say: to try an engine with. */
import { tinyTokenizer } from "../python/tiny-tokenizer.ts";
import { type Graph, tensorBytes, toOnnx } from "./graph.ts";

export interface Script {
  /** What it says to every prompt, a token each; none twice. `<0xC3>` is a byte. Then it ends. */
  readonly pieces: readonly string[];
  /** It never ends, but begins anew. */
  readonly isEndless?: boolean | undefined;
  /** `genai`: as its model builder lays it out; `optimum`: as exports of Hugging Face's. `genai` unless given. */
  readonly layout?: "genai" | "optimum" | undefined;
  /** Its weights lie in a file of their own. */
  readonly isSplit?: boolean | undefined;
  /** Tokens; 512 unless given. */
  readonly context?: number | undefined;
  /** Jinja; the contents of all messages, and `>`, unless given. */
  readonly template?: string | undefined;
}

/** What an installation is tried with. By file name. */
export function tinyDecoder(): Readonly<Record<string, string | Uint8Array>> {
  return scriptedDecoder({ pieces: ["a"], isEndless: true });
}

/** By path. */
export function scriptedDecoder(script: Script): Readonly<Record<string, string | Uint8Array>> {
  const { pieces, layout = "genai", isSplit = false, context = 512, template } = script;
  const tokens = [...SPECIAL, ...CHARACTERS, ...pieces.filter((it) => !CHARACTERS.includes(it))];
  const table = successors(tokens, script);
  const folder = layout === "optimum" ? "onnx/" : "";
  const file = isSplit ? "model.onnx.data" : undefined;
  const weights = { type: "float", shape: [tokens.length, tokens.length], values: table } as const;
  const config =
    layout === "genai"
      ? { "genai_config.json": json(genaiConfig(tokens.length, context)) }
      : { "config.json": json(optimumConfig(tokens.length, context)) };
  return {
    ...config,
    "tokenizer.json": json(tokenizer(tokens)),
    "tokenizer_config.json": json({ ...TOKENIZER_CONFIG, chat_template: template ?? TEMPLATE }),
    [`${folder}model.onnx`]: toOnnx(decoder({ ...weights, file })),
    ...(file === undefined ? {} : { [`${folder}${file}`]: tensorBytes(weights) }),
  };
}

/** Of single characters, and of tokens that no text is split into. */
export function tokenizer(tokens: readonly string[]): unknown {
  return tinyTokenizer({ tokens, specialCount: SPECIAL.length, unknown: "?", decoder: BYTES });
}

export const SPECIAL = ["<pad>", "<s>", "</s>"];
/** What a text may have: others are question marks. */
export const CHARACTERS = [
  "\n",
  ...Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at)),
];

// --- internal ---

/** Pieces may be bytes, which make characters together. */
const BYTES = { type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Fuse" }] };
const PAD = 0;
const BOS = 1;
const EOS = 2;
/** Over zero: nothing else is ever likely. */
const LOGIT = 60;
const TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}>";
const TOKENIZER_CONFIG = { bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>" };

/** Logits of the next token, a row a token. */
function successors(tokens: readonly string[], { pieces, isEndless }: Script): number[] {
  const first = tokens.indexOf(pieces[0] ?? "</s>");
  return tokens.flatMap((token) => {
    const at = pieces.indexOf(token);
    const isLast = at === pieces.length - 1 && isEndless !== true;
    const following = at === -1 ? first : tokens.indexOf(pieces[(at + 1) % pieces.length] ?? "");
    const next = at !== -1 && isLast ? EOS : following;
    return tokens.map((_, id) => (id === next ? LOGIT : 0));
  });
}

/** The last token decides on the next one; what it keeps of each token is the token. */
function decoder(table: Graph["constants"][string]): Graph {
  const vocabulary = table.shape[0] ?? 0;
  const past = { type: "float", shape: ["batch", 1, "past", 1] } as const;
  const present = { type: "float", shape: ["batch", 1, "total", 1] } as const;
  return {
    inputs: {
      input_ids: { type: "int64", shape: ["batch", "length"] },
      attention_mask: { type: "int64", shape: ["batch", "total"] },
      "past_key_values.0.key": past,
      "past_key_values.0.value": past,
    },
    outputs: {
      logits: { type: "float", shape: ["batch", "length", vocabulary] },
      "present.0.key": present,
      "present.0.value": present,
    },
    constants: { table, axes: { type: "int64", shape: [2], values: [1, 3] } },
    nodes: [
      { op: "Gather", inputs: ["table", "input_ids"], outputs: ["logits"] },
      { op: "Cast", inputs: ["input_ids"], outputs: ["seen"], attributes: { to: 1 } },
      { op: "Unsqueeze", inputs: ["seen", "axes"], outputs: ["new"] },
      ...["key", "value"].map((kind) => ({
        op: "Concat",
        inputs: [`past_key_values.0.${kind}`, "new"],
        outputs: [`present.0.${kind}`],
        attributes: { axis: 2 },
      })),
    ],
  };
}

/** @see https://onnxruntime.ai/docs/genai/reference/config.html */
function genaiConfig(vocabulary: number, context: number): unknown {
  return {
    model: {
      type: "llama",
      bos_token_id: BOS,
      eos_token_id: EOS,
      pad_token_id: PAD,
      context_length: context,
      vocab_size: vocabulary,
      decoder: {
        filename: "model.onnx",
        head_size: 1,
        hidden_size: 1,
        num_attention_heads: 1,
        num_hidden_layers: 1,
        num_key_value_heads: 1,
        session_options: { log_id: "onnxruntime-genai", provider_options: [] },
        inputs: {
          input_ids: "input_ids",
          attention_mask: "attention_mask",
          past_key_names: "past_key_values.%d.key",
          past_value_names: "past_key_values.%d.value",
        },
        outputs: {
          logits: "logits",
          present_key_names: "present.%d.key",
          present_value_names: "present.%d.value",
        },
      },
    },
    search: { max_length: context, past_present_share_buffer: false },
  };
}

function optimumConfig(vocabulary: number, context: number): unknown {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    bos_token_id: BOS,
    eos_token_id: EOS,
    pad_token_id: PAD,
    vocab_size: vocabulary,
    max_position_embeddings: context,
    hidden_size: 1,
    num_attention_heads: 1,
    num_hidden_layers: 1,
    num_key_value_heads: 1,
  };
}

function json(value: unknown): string {
  return JSON.stringify(value);
}
