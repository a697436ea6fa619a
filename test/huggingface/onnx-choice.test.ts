import { describe, expect, test } from "bun:test";
import type { HuggingFaceChoice } from "../../src/huggingface/name.ts";
import {
  chooseGenaiDirectory,
  chooseOnnx,
  hasOnnx,
  isOnnxTag,
} from "../../src/huggingface/onnx-choice.ts";
import type { RepositoryFile } from "../../src/huggingface/shards.ts";
import { failureOf } from "./failure-of.ts";

const REPO = "hf.co/o/r";

function files(...paths: readonly string[]): RepositoryFile[] {
  return paths.map((path) => ({ path, size: 1000, digest: undefined }));
}

function quant(tag: string): HuggingFaceChoice {
  return { kind: "quant", quant: tag };
}

function graphOf(
  paths: readonly string[],
  choice: HuggingFaceChoice = { kind: "default" },
): string {
  return chooseOnnx(files(...paths), { choice, repo: REPO }).weights[0]?.path ?? "";
}

const ALL = ["", "_q4", "_int8", "_quantized", "_fp16", "_q4f16", "_bnb4", "_uint8"].map(
  (variant) => `onnx/model${variant}.onnx`,
);

describe("chooseOnnx", () => {
  test.each([
    ["q4", "onnx/model_q4.onnx"],
    ["Q4", "onnx/model_q4.onnx"],
    ["fp32", "onnx/model.onnx"],
    ["f16", "onnx/model_fp16.onnx"],
    ["q8", "onnx/model_quantized.onnx"],
    ["int8", "onnx/model_int8.onnx"],
    ["q4f16", "onnx/model_q4f16.onnx"],
  ])("onnx: the tag %s is %s", (tag, expected) => {
    expect(graphOf(ALL, quant(tag))).toBe(expected);
  });

  test("onnx: what writes is taken in few bits, what makes vectors whole", () => {
    expect(graphOf([...ALL, "generation_config.json"])).toBe("onnx/model_q4.onnx");
    expect(graphOf(ALL)).toBe("onnx/model.onnx");
  });

  test("onnx: int8 stands in for quantized, and the other way", () => {
    expect(graphOf(["model_int8.onnx", "model.onnx"], quant("q8"))).toBe("model_int8.onnx");
    expect(graphOf(["model_quantized.onnx", "model.onnx"], quant("int8"))).toBe(
      "model_quantized.onnx",
    );
  });

  test("onnx: all files of its weights come along, and no other's", () => {
    const { weights } = chooseOnnx(
      files(
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/model.onnx_data_1",
        "onnx/model_q4.onnx",
        "onnx/model_q4.onnx_data",
        "onnx/model.onnx_database",
      ),
      { choice: quant("fp32"), repo: REPO },
    );
    expect(weights.map(({ path }) => path)).toEqual([
      "onnx/model.onnx",
      "onnx/model.onnx_data",
      "onnx/model.onnx_data_1",
    ]);
  });

  test("onnx: the only graph may have any name", () => {
    expect(graphOf(["net.onnx"])).toBe("net.onnx");
  });

  test("onnx: what was chosen among several is said", () => {
    const { warnings } = chooseOnnx(files(...ALL), { choice: { kind: "default" }, repo: REPO });
    expect(warnings.join()).toContain("chose the graph `onnx/model.onnx` (1.0 kB)");
  });

  test.each([
    ["a precision that is not there", ["onnx/model.onnx", "onnx/model_q4.onnx"], "fp16"],
    ["a word that is none", ALL, "constructor"],
    ["no graph near the top", ["deep/down/model.onnx"], "q4"],
  ])("onnx: %s is refused, with what there is", async (_, paths, tag) => {
    const failure = await failureOf(() => Promise.resolve(graphOf(paths, quant(tag))));
    expect(failure.code).toBe("model_not_found");
    expect(failure.hint).toBeDefined();
  });

  test.each([
    "encoder_model.onnx decoder_model_merged.onnx",
    "vision_encoder_q4.onnx embed_tokens_q4.onnx decoder_model_merged_q4.onnx",
    "decoder_model.onnx decoder_with_past_model.onnx",
  ])("onnx: a model of several graphs is refused: %s", async (paths) => {
    const failure = await failureOf(() => Promise.resolve(graphOf(paths.split(" "))));
    expect(failure.code).toBe("unsupported_model");
    expect(failure.message).toContain("of several graphs");
  });
});

function genai(...directories: readonly string[]): RepositoryFile[] {
  return files(...directories.flatMap((it) => [`${it}genai_config.json`, `${it}model.onnx`]));
}

function directoryOf(
  all: RepositoryFile[],
  choice: HuggingFaceChoice = { kind: "default" },
): string | undefined {
  return chooseGenaiDirectory(all, { choice, repo: REPO });
}

describe("chooseGenaiDirectory", () => {
  test("onnx: none where the repository is the model, or has no such model", () => {
    expect(directoryOf(genai(""))).toBeUndefined();
    expect(directoryOf(files("onnx/model.onnx"))).toBeUndefined();
  });

  test("onnx: the only one, else the one for processors", () => {
    expect(directoryOf(genai("gpu/a/"))).toBe("gpu/a");
    expect(directoryOf(genai("gpu/a/", "cpu_and_mobile/b/"))).toBe("cpu_and_mobile/b");
  });

  test("onnx: several are told apart by their names", async () => {
    const all = genai("cpu/a/", "cpu/b/");
    expect(directoryOf(all, quant("B"))).toBe("cpu/b");
    const failure = await failureOf(() => Promise.resolve(directoryOf(all)));
    expect(failure.code).toBe("conflict");
    expect(failure.hint).toContain("`a`, `b`");
    const none = await failureOf(() => Promise.resolve(directoryOf(all, quant("c"))));
    expect(none.code).toBe("model_not_found");
  });
});

test("onnx: a tag is one where something is called so", () => {
  expect(hasOnnx(files("a.ONNX"))).toBe(true);
  expect(hasOnnx(files("a.onnx_data"))).toBe(false);
  expect(isOnnxTag(files("onnx/model.onnx"), "q4")).toBe(true);
  expect(isOnnxTag(files("model.safetensors"), "q4")).toBe(false);
  expect(isOnnxTag(files("x/genai_config.json"), "X")).toBe(true);
  expect(isOnnxTag(files("onnx/model.onnx"), "__proto__")).toBe(false);
});
