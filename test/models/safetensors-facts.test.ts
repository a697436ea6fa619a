import { describe, expect, test } from "bun:test";
import { shardsOfIndex, toSafetensorsFacts } from "../../src/models/safetensors-facts.ts";
import type { SafetensorsHeader } from "../../src/store/safetensors-header.ts";

const header = (
  tensors: SafetensorsHeader["tensors"],
  metadata: Record<string, string> = {},
): SafetensorsHeader => ({ sizeBytes: 1_500_000, modifiedMs: 0, tensors, metadata });

const of = (dtype: string, elements = 1000, name = "model.weight") => ({ name, dtype, elements });
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

const named = (value: unknown) =>
  toSafetensorsFacts([header([])], { _name_or_path: value, model_type: value });

describe("toSafetensorsFacts", () => {
  test("safetensors facts: parameters and sizes are those of all shards", () => {
    const facts = toSafetensorsFacts(
      [header([of("BF16", 1_500_000)], { format: "pt" }), header([of("BF16", 500_000)])],
      { model_type: "llama", max_position_embeddings: 4096 },
    );

    expect(facts).toEqual({
      format: "safetensors",
      architecture: "llama",
      name: null,
      license: null,
      quantization: "BF16",
      parameters: "2M",
      size: "3MB",
      header: { format: "pt", context_length: "4096", tensor_count: "2" },
    });
  });

  test("safetensors facts: several types are mixed, none is unknown", () => {
    expect(toSafetensorsFacts([header([of("F32"), of("F16")])], {}).quantization).toBe("mixed");
    expect(toSafetensorsFacts([header([])], {}).quantization).toBe("unknown");
  });

  test.each([
    [{ quantization_config: { quant_method: "awq", bits: 4 } }, "AWQ-4bit"],
    [{ quantization_config: { quant_method: "gptq", bits: 8 } }, "GPTQ-8bit"],
    [
      { quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } },
      "BITSANDBYTES-4bit",
    ],
    [
      {
        quantization_config: {
          quant_method: "compressed-tensors",
          config_groups: { group_0: { weights: { num_bits: 4 } } },
        },
      },
      "COMPRESSED-TENSORS-4bit",
    ],
    [{ quantization_config: { quant_method: "fp8" } }, "FP8"],
    [{ text_config: { quantization_config: { quant_method: "awq", bits: 4 } } }, "AWQ-4bit"],
    [{ quantization: { group_size: 64, bits: 4 } }, "4bit"],
    [{ quantization_config: "awq" }, "I32"],
    [{ quantization_config: { bits: -1, quant_method: 7 } }, "I32"],
  ])("safetensors facts: %j is %s", (config, quantization) => {
    expect(toSafetensorsFacts([header([of("I32")])], config).quantization).toBe(quantization);
  });

  test("safetensors facts: packed weights count as many as they are", () => {
    const config = { quantization_config: { quant_method: "awq", bits: 4 } };
    const tensors = [of("I32", 1000, "a.qweight"), of("I32", 10, "a.qzeros"), of("F16", 100)];

    expect(toSafetensorsFacts([header(tensors)], config).parameters).toBe("8.11K");
  });

  test.each([
    [{ max_position_embeddings: 2048, max_length: 20 }, "2048"],
    [{ max_length: 20, text_config: { max_position_embeddings: 131_072 } }, "131072"],
    [{ n_positions: 1024 }, "1024"],
    [{ max_position_embeddings: -1, n_ctx: 512 }, "512"],
    [{ max_position_embeddings: "2048" }, undefined],
    [{ max_position_embeddings: 2 ** 31 }, undefined],
    [{ model_max_length: 1e30 }, undefined],
    [{ text_config: [] }, undefined],
  ])("safetensors facts: the context of %j is %p", (config, context) => {
    const facts = toSafetensorsFacts([header([])], config);
    expect(facts.header?.["context_length"]).toBe(context as string);
  });

  test("safetensors facts: texts of a config that are no names stay out", () => {
    expect(named("org/Model-1.0")).toMatchObject({ name: "Model-1.0" });
    expect(named("/home/me/checkpoint").name).toBeNull();
    expect(named("../secret").name).toBeNull();
    expect(named("a\u001B[2Jb")).toMatchObject({ name: null, architecture: null });
    expect(named("x".repeat(500))).toMatchObject({ name: null, architecture: null });
    expect(named(7)).toMatchObject({ name: null, architecture: null });
  });

  test("safetensors facts: without a config the metadata may name the architecture", () => {
    const facts = toSafetensorsFacts([header([], { architecture: "flux" })], {});
    expect(facts.architecture).toBe("flux");
  });
});

describe("shardsOfIndex", () => {
  test("safetensors facts: an index names each shard once", () => {
    const index = { weight_map: { a: "2.safetensors", b: "1.safetensors", c: "2.safetensors" } };
    expect(shardsOfIndex(json(index))).toEqual(["1.safetensors", "2.safetensors"]);
  });

  test.each([[[]], [{}], [{ weight_map: [1] }], [{ weight_map: { a: 1 } }], ["text"], [null]])(
    "safetensors facts: %j names none",
    (value) => {
      expect(shardsOfIndex(json(value))).toEqual([]);
      expect(shardsOfIndex(Buffer.from("{"))).toEqual([]);
    },
  );
});
