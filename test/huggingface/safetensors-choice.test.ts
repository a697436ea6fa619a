import { describe, expect, test } from "bun:test";
import type { HuggingFaceChoice } from "../../src/huggingface/name.ts";
import {
  chooseSafetensors,
  hasSafetensors,
  type SafetensorsChoice,
} from "../../src/huggingface/safetensors-choice.ts";
import type { RepositoryFile } from "../../src/huggingface/shards.ts";
import { fixtureRepository } from "../fakes/hugging-face.ts";
import { failureOf } from "./failure-of.ts";

const REPO = "hf.co/org/repo";

function files(...paths: readonly string[]): RepositoryFile[] {
  return paths.map((path) => ({ path, size: 1e9, digest: undefined }));
}

function choose(
  paths: readonly string[],
  options: { choice?: HuggingFaceChoice; index?: readonly string[] } = {},
): Promise<SafetensorsChoice> {
  const { choice = { kind: "default" }, index } = options;
  return chooseSafetensors(files(...paths), {
    choice,
    repo: REPO,
    readIndex: () =>
      index === undefined ? Promise.reject(new Error("not needed")) : Promise.resolve(index),
  });
}

async function weightsOf(...args: Parameters<typeof choose>): Promise<string[]> {
  return (await choose(...args)).weights.map(({ path }) => path);
}

const SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX = "model.safetensors.index.json";

test("a repository as they are: the shards and what engines read besides", async () => {
  const paths = fixtureRepository("safetensors").entries.map(
    (entry) => (entry as RepositoryFile).path,
  );
  const { weights, others, warnings } = await choose(paths);
  expect(weights.map(({ path }) => path)).toEqual([
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
  ]);
  expect(others.map(({ path }) => path)).toEqual([
    "LICENSE",
    "README.md",
    "USE_POLICY.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "modeling_tiny.py",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  expect(warnings).toEqual([
    "left out weights that are not needed (4.0 GB): `consolidated.safetensors`, `onnx/model.onnx`, `original/consolidated.00.pth` and 1 more",
  ]);
});

describe("weights", () => {
  test.each([
    [
      "the single file",
      ["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"],
      ["model.safetensors"],
    ],
    ["shards with an index before a single file", ["model.safetensors", INDEX, ...SHARDS], SHARDS],
    ["the single file without an index", ["model.safetensors", ...SHARDS], ["model.safetensors"]],
    ["shards without an index", SHARDS, SHARDS],
    [
      "a complete single file before incomplete shards",
      ["model.safetensors", INDEX, SHARDS[1] ?? ""],
      ["model.safetensors"],
    ],
    [
      "an only file of any name",
      ["tiny-v2.safetensors", "consolidated.safetensors"],
      ["tiny-v2.safetensors"],
    ],
    [
      "`consolidated` where there is nothing else",
      ["consolidated.safetensors"],
      ["consolidated.safetensors"],
    ],
    [
      "one variant where there is nothing else",
      ["model.fp16.safetensors"],
      ["model.fp16.safetensors"],
    ],
    [
      "not hidden or foreign directories",
      ["model.safetensors", ".cache/model.safetensors", "onnx/a.safetensors"],
      ["model.safetensors"],
    ],
  ])("%s", async (_, paths, expected) => {
    expect(await weightsOf(paths)).toEqual(expected);
    expect(await weightsOf(paths.toReversed())).toEqual(expected);
  });

  test("an index decides where names do not", async () => {
    const paths = ["weights.00.safetensors", "weights.01.safetensors", "old.safetensors", INDEX];
    const index = ["weights.00.safetensors", "weights.01.safetensors"];
    expect(await weightsOf(paths, { index })).toEqual(index);
  });

  test.each([
    [["a.safetensors", "b.safetensors"], "are not there: `b.safetensors`"],
    [["../../etc/passwd"], "are not there: `../../etc/passwd`"],
    [["config.json"], "are not there: `config.json`"],
    [[], "lists no files"],
  ])("an index of %p is refused", async (index, reason) => {
    const failure = await failureOf(choose(["a.safetensors", "config.json", INDEX], { index }));
    expect(failure.code).toBe("invalid_model_file");
    expect(failure.message).toContain(reason);
  });

  test("missing shards are an error", async () => {
    const failure = await failureOf(choose(["model-00002-of-00003.safetensors"]));
    expect(failure.code).toBe("invalid_model_file");
    expect(failure.message).toContain("1 of 3 shards");
  });

  test("two checkpoints are ambiguous until one is named", async () => {
    const paths = ["v1-pruned.safetensors", "v1.safetensors", "config.json"];
    const failure = await failureOf(choose(paths));
    expect(failure.code).toBe("conflict");
    expect(failure.message).toContain("`v1.safetensors` (1.0 GB)");
    const choice = { kind: "file", path: "v1.safetensors" } as const;
    const chosen = await choose(paths, { choice });
    expect(chosen.weights.map(({ path }) => path)).toEqual(["v1.safetensors"]);
    expect(chosen.others.map(({ path }) => path)).toEqual(["config.json"]);
  });

  test.each([
    ["x.safetensors", "model_not_found"],
    ["b-00001-of-00002.safetensors", "invalid_model_file"],
  ])("naming %s fails", async (path, code) => {
    const paths = ["a.safetensors", "b-00001-of-00002.safetensors"];
    const failure = await failureOf(choose(paths, { choice: { kind: "file", path } }));
    expect(failure.code as string).toBe(code);
  });

  test("naming a shard takes all of them", async () => {
    const choice = { kind: "file", path: SHARDS[1] ?? "" } as const;
    expect(await weightsOf(["model.safetensors", ...SHARDS], { choice })).toEqual(SHARDS);
  });
});

describe("components", () => {
  test("of a pipeline come along, each in one precision", async () => {
    const paths = [
      "model_index.json",
      "unet/config.json",
      "unet/diffusion_pytorch_model.safetensors",
      "unet/diffusion_pytorch_model.fp16.safetensors",
      "unet/diffusion_pytorch_model.bin",
      "vae/diffusion_pytorch_model.fp16.safetensors",
    ];
    const { weights, others, warnings } = await choose(paths);
    expect(weights.map(({ path }) => path)).toEqual([
      "unet/diffusion_pytorch_model.safetensors",
      "vae/diffusion_pytorch_model.fp16.safetensors",
    ]);
    expect(others.map(({ path }) => path)).toEqual(["model_index.json", "unet/config.json"]);
    expect(warnings[0]).toContain("unet/diffusion_pytorch_model.fp16.safetensors");
  });

  test("of sentence-transformers come along, other directories do not", async () => {
    const paths = [
      "modules.json",
      "model.safetensors",
      "1_Pooling/config.json",
      "2_Dense/model.safetensors",
      "extra/model.safetensors",
    ];
    expect(await weightsOf(paths)).toEqual(["2_Dense/model.safetensors", "model.safetensors"]);
  });
});

describe("no weights that can be used", () => {
  test.each([
    [
      "pickles",
      ["pytorch_model.bin", "config.json"],
      "its weights are pickles (`pytorch_model.bin`), which can run code",
    ],
    ["another format", ["rust_model.ot"], "in a format that no engine opens: `rust_model.ot`"],
    ["TensorFlow Lite", ["model.tflite", "config.json"], "its weights are of TensorFlow Lite"],
    ["LiteRT", ["gemma.litertlm"], "its weights are of LiteRT-LM"],
    ["Core ML", ["m.mlpackage/Manifest.json"], "its weights are of Core ML"],
    ["OpenVINO", ["openvino_model.xml", "openvino_model.bin"], "its weights are of OpenVINO"],
    ["nothing", ["README.md"], "it has no weights"],
    [
      "an adapter",
      ["adapter_model.safetensors", "adapter_config.json"],
      "it holds an adapter, not a model",
    ],
  ])("%s", async (_, paths, reason) => {
    const failure = await failureOf(choose(paths));
    expect(failure.code).toBe("unsupported_model");
    expect(failure.message).toContain(reason);
    expect(failure.hint).toBeDefined();
  });

  test("are not taken for some", () => {
    expect(hasSafetensors(files("original/a.safetensors", "a.bin"))).toBe(false);
    expect(hasSafetensors(files("a.SAFETENSORS"))).toBe(true);
  });
});
