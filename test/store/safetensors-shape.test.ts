import { describe, expect, test } from "bun:test";
import { toSafetensorsShape } from "../../src/store/safetensors-shape.ts";

const SIZES = { weightBytes: 1_000_000, inputBytes: 1000 };
const LLAMA = {
  model_type: "llama",
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 4,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  vocab_size: 128_256,
  max_position_embeddings: 131_072,
  tie_word_embeddings: true,
};

describe("toSafetensorsShape", () => {
  test("shape: a config with grouped-query attention", () => {
    expect(toSafetensorsShape(LLAMA, SIZES)).toMatchObject({
      architecture: "llama",
      ...SIZES,
      embeddingLength: 2048,
      contextTokens: 131_072,
      isTied: true,
      isPooled: false,
      layers: Array.from({ length: 4 }, () => ({
        kind: "attention",
        keyElements: 512,
        valueElements: 512,
      })),
    });
  });

  test("shape: layers of several kinds, in the language model's part of a config", () => {
    const { layers } = toSafetensorsShape(
      {
        model_type: "gemma3",
        text_config: {
          ...LLAMA,
          head_dim: 256,
          sliding_window: 1024,
          layer_types: ["sliding_attention", "full_attention", "linear_attention", "toString"],
        },
      },
      SIZES,
    );

    expect(layers).toEqual([
      { kind: "sliding", keyElements: 2048, valueElements: 2048, window: 1024 },
      { kind: "attention", keyElements: 2048, valueElements: 2048 },
      { kind: "recurrent", keyElements: 0, valueElements: 0 },
      { kind: "attention", keyElements: 2048, valueElements: 2048 },
    ]);
  });

  test("shape: experts, and a latent cache", () => {
    const found = toSafetensorsShape(
      {
        ...LLAMA,
        model_type: "deepseek_v3",
        kv_lora_rank: 512,
        qk_rope_head_dim: 64,
        n_routed_experts: 64,
        num_experts_per_tok: 6,
        moe_intermediate_size: 1408,
      },
      SIZES,
    );

    expect(found.layers[0]).toEqual({ kind: "latent", keyElements: 576, valueElements: 0 });
    expect(found).toMatchObject({
      expertCount: 64,
      expertUsedCount: 6,
      expertFeedForwardLength: 1408,
    });
  });

  test.each([{}, { hidden_size: "2048" }, { hidden_size: -1 }, { hidden_size: 2 ** 60 }])(
    "shape: %p says nothing",
    (config) => {
      expect(toSafetensorsShape(config, SIZES)).toMatchObject({ layers: [], contextTokens: null });
    },
  );

  test("shape: an absurd number of layers is none, a bert is pooled", () => {
    expect(toSafetensorsShape({ ...LLAMA, num_hidden_layers: 1e9 }, SIZES).layers).toEqual([]);
    expect(toSafetensorsShape({ ...LLAMA, model_type: "bert" }, SIZES).isPooled).toBe(true);
  });
});
