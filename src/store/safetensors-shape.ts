/**
 * The shape of a model from transformers' `config.json` and the sizes of its tensors, as of a GGUF header. Pure.
 *
 * @see https://huggingface.co/docs/transformers/main_classes/configuration
 */
import type { LayerShape, ModelShape } from "./model-shape.ts";

/** As in `gguf-shape.ts`: beyond this a config tells nonsense. */
const MAX_LAYERS = 2048;
const MAX_WIDTH = 2 ** 22;
const MAX_TOKENS = 2 ** 31 - 1;

/** What a layer is called in `layer_types`. */
const KINDS: Readonly<Record<string, LayerShape["kind"]>> = {
  full_attention: "attention",
  sliding_attention: "sliding",
  chunked_attention: "sliding",
  linear_attention: "recurrent",
  mamba: "recurrent",
  conv: "recurrent",
};

export interface SafetensorsSizes {
  /** Of all tensors. */
  readonly weightBytes: number;
  /** Of the token embedding; 0 if unknown. */
  readonly inputBytes: number;
}

/** @param config any JSON object; of a multimodal model the language model's part counts */
export function toSafetensorsShape(
  config: Readonly<Record<string, unknown>>,
  sizes: SafetensorsSizes,
): ModelShape {
  const text = config["text_config"];
  const values = new Config(isObject(text) ? { ...config, ...text } : config);
  const width = values.count("hidden_size", "n_embd", "d_model");
  const heads = values.count("num_attention_heads", "n_head");
  const context = values.count("max_position_embeddings", "n_positions", "seq_length");
  const expertWidth = values.count("moe_intermediate_size");
  return {
    architecture: values.text("model_type"),
    ...sizes,
    isTied: values.flag("tie_word_embeddings"),
    bytesByType: {},
    layers: width === 0 ? [] : toLayers(values, { width, heads }),
    embeddingLength: width,
    feedForwardLength: values.count("intermediate_size", "n_inner", "ffn_dim") || 4 * width,
    expertFeedForwardLength: expertWidth,
    headCount: heads,
    queryElements: Math.min(MAX_WIDTH, heads * (values.count("head_dim") || ratio(width, heads))),
    vocabularySize: values.count("vocab_size"),
    expertCount: values.count("num_experts", "num_local_experts", "n_routed_experts"),
    expertUsedCount: values.count("num_experts_per_tok", "num_experts_per_token"),
    contextTokens: context > 0 ? context : null,
    isPooled: /bert|embedding|roberta/i.test(values.text("model_type") ?? ""),
  };
}

// --- internal ---

class Config {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  /** The first of these that is a number within bounds; else 0. */
  count(...keys: readonly string[]): number {
    for (const key of keys) {
      const value = this.get(key);
      if (Number.isInteger(value) && (value as number) > 0 && (value as number) <= MAX_TOKENS)
        return value as number;
    }
    return 0;
  }

  text(key: string): string | null {
    const value = this.get(key);
    return typeof value === "string" && value !== "" ? value.slice(0, 64) : null;
  }

  flag(key: string): boolean {
    return this.get(key) === true;
  }

  get(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? this.#values[key] : undefined;
  }
}

function toLayers(
  config: Config,
  { width, heads }: { readonly width: number; readonly heads: number },
): LayerShape[] {
  const count = config.count("num_hidden_layers", "n_layer", "num_layers");
  if (count === 0 || count > MAX_LAYERS) return [];
  const latent = config.count("kv_lora_rank");
  const kvHeads = config.count("num_key_value_heads", "num_kv_heads") || heads;
  const size = config.count("head_dim") || ratio(width, heads);
  const elements = Math.min(MAX_WIDTH, kvHeads * size);
  const window = config.count("sliding_window", "attention_chunk_size");
  const types = config.get("layer_types");
  return Array.from({ length: count }, (_, index) => {
    const kind = kindOf(Array.isArray(types) ? types[index] : undefined);
    if (kind === "recurrent") return { kind, keyElements: 0, valueElements: 0 };
    if (latent > 0) {
      const keyElements = Math.min(MAX_WIDTH, latent + config.count("qk_rope_head_dim"));
      return { kind: "latent", keyElements, valueElements: 0 };
    }
    const layer = { keyElements: elements, valueElements: elements };
    return kind === "sliding" && window > 0
      ? { kind, ...layer, window }
      : { kind: "attention", ...layer };
  });
}

function kindOf(name: unknown): LayerShape["kind"] {
  return typeof name === "string" && Object.hasOwn(KINDS, name)
    ? (KINDS[name] ?? "attention")
    : "attention";
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function ratio(one: number, other: number): number {
  return other > 0 ? Math.floor(one / other) : 0;
}
