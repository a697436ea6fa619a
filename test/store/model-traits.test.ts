import { describe, expect, test } from "bun:test";
import { toTraits } from "../../src/store/model-traits.ts";

const MLX = { group_size: 64, bits: 4, mode: "affine" };

describe("toTraits", () => {
  test.each<[string, Record<string, unknown>, string | undefined]>([
    ["nothing", {}, undefined],
    ["GPTQ", { quantization_config: { quant_method: "gptq", bits: 4, group_size: 128 } }, "gptq"],
    ["a method in capitals", { quantization_config: { quant_method: "AWQ" } }, "awq"],
    ["bitsandbytes", { quantization_config: { load_in_4bit: true } }, "bitsandbytes"],
    ["MLX under both names", { quantization: MLX, quantization_config: MLX }, "mlx"],
    ["MLX under transformers' name", { quantization_config: MLX }, "mlx"],
    [
      "what MLX made of another method",
      { quantization: MLX, quantization_config: { quant_method: "fp8" } },
      "mlx",
    ],
    ["texts", { text_config: { quantization_config: { quant_method: "fp8" } } }, "fp8"],
    ["the older name", { compression_config: { format: "x" } }, "compressed-tensors"],
    [
      "an underscore",
      { quantization_config: { quant_method: "compressed_tensors" } },
      "compressed-tensors",
    ],
    ["a list", { quantization_config: [] }, undefined],
    ["no word", { quantization_config: { quant_method: "a b\n" } }, undefined],
    ["a number", { quantization_config: { quant_method: 5 } }, undefined],
    ["an endless word", { quantization_config: { quant_method: "x".repeat(10_000) } }, undefined],
  ])("traits: quantization: %s", (_, config, expected) => {
    expect(toTraits(config).quantization).toBe(expected);
  });

  test("traits: code that comes with it, whatever it is called", () => {
    const auto = { auto_map: { AutoConfig: "configuration_x.XConfig" }, model_type: "x" };
    expect(toTraits(auto)).toEqual({
      architecture: "x",
      quantization: undefined,
      hasAutoMap: true,
      hasModelFile: false,
    });
    expect(toTraits({ auto_map: {} }).hasAutoMap).toBe(false);
    expect(toTraits({ auto_map: "x" }).hasAutoMap).toBe(false);
    expect(toTraits({ model_file: "model.py" }).hasModelFile).toBe(true);
    // What is odd is still looked for by the engine.
    expect(toTraits({ model_file: 5 }).hasModelFile).toBe(true);
    expect(toTraits({ model_file: null }).hasModelFile).toBe(false);
  });
});
