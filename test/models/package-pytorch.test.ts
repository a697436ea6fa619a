import { describe, expect, test } from "bun:test";
import { basename } from "node:path";
import { directoryFormat } from "../../src/commands/package-path.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import { resolveRunnable } from "../../src/models/runnable.ts";
import { failureOf } from "../store/failure-of.ts";
import { bench } from "./package-bench.ts";

const signal = new AbortController().signal;

const CONFIG = { model_type: "llama", auto_map: { AutoModel: "modeling_x.X" } };
const FILES = {
  "config.json": JSON.stringify(CONFIG),
  "modeling_x.py": "print(1)",
  "pytorch_model.bin": "weights",
  "tokenizer.json": "{}",
  "training_args.bin": "leavings",
};

describe("packageModel: a PyTorch checkpoint", () => {
  test.each(["docker", "cncf"] as const)(
    "pytorch: as %s it keeps its files, the checkpoint first",
    async (format) => {
      await using it = await bench();
      const warnings: string[] = [];
      const directory = await it.directory("m", { ...FILES, "model.safetensors": "other" });

      await it.package(
        { pytorch_dir: directory, format },
        { onProgress: (event) => event.type === "warning" && warnings.push(event.message) },
      );

      const { config, layers } = await inspectModel(it.store, "me/model:v1");
      expect(config).toMatchObject({ format: "pytorch" });
      expect(layers.map(({ path }) => path)).toEqual([
        "pytorch_model.bin",
        "config.json",
        "modeling_x.py",
        "tokenizer.json",
      ]);
      expect(warnings.join()).toContain("left out weights that are not PyTorch's");
      const model = await resolveRunnable(it.store, "me/model:v1", { paths: [] });
      await using bundle = await model.openBundle(signal);
      expect([model.format, basename(bundle.model)]).toEqual(["pytorch", "pytorch_model.bin"]);
      expect(await model.readTraits?.()).toMatchObject({ architecture: "llama", hasAutoMap: true });
    },
  );

  test("pytorch: shards and their index come along", async () => {
    await using it = await bench();
    const shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    const files = Object.fromEntries(shards.map((name) => [name, name]));
    const index = { "pytorch_model.bin.index.json": "{}", "config.json": "{}" };

    await it.package({ pytorch_dir: await it.directory("m", { ...files, ...index }) });

    const { layers } = await inspectModel(it.store, "me/model:v1");
    expect(layers.slice(0, 2).map(({ path }) => path)).toEqual(shards);
    expect(layers.map(({ path }) => path)).toContain("pytorch_model.bin.index.json");
  });

  test.each([
    ["nothing says what it is of", { "pytorch_model.bin": "x" }, "it has no `config.json`"],
    ["other names", { "model.pt": "x", "config.json": "{}" }, "it has no `pytorch_model.bin`"],
    ["no weights", { "config.json": "{}" }, "no weights"],
  ])("pytorch: %s is refused", async (_, files, reason) => {
    await using it = await bench();
    const failure = await failureOf(it.package({ pytorch_dir: await it.directory("m", files) }));
    expect(failure).toMatchObject({ code: "invalid_model_file" });
    expect(failure.message).toContain(reason);
  });

  test("pytorch: given as safetensors it says how", async () => {
    await using it = await bench();
    const failure = await failureOf(
      it.package({ safetensors_dir: await it.directory("m", FILES) }),
    );
    expect(failure).toMatchObject({ hint: expect.stringContaining("--pytorch-dir DIR") });
  });
});

describe("packageModel: what no engine reads", () => {
  test.each([
    ["model.tflite", "TensorFlow Lite", "safetensors or GGUF"],
    ["gemma.task", "LiteRT-LM", "safetensors or GGUF"],
    ["m.mlmodel", "Core ML", "MLX runs it on a Mac"],
    ["m.engine", "TensorRT", "vLLM runs it"],
    ["m.keras", "Keras", "safetensors or GGUF"],
    ["ggml-model-q4_0.bin", "GGML", "as GGUF"],
    ["m.llamafile", "a program with a GGUF in it", "unzip"],
  ])("foreign: the file %s is named for what it is", async (name, title, way) => {
    await using it = await bench();
    const failure = await failureOf(it.package({ gguf: await it.file(name, "bytes") }));
    expect(failure).toMatchObject({
      code: "unsupported_model",
      hint: expect.stringContaining(way),
    });
    expect(failure.message).toContain(title);
  });

  test.each([
    ["model.onnx", "--onnx-dir DIR"],
    ["pytorch_model.bin", "--pytorch-dir DIR"],
  ])("foreign: of %s its directory is wanted", async (name, flag) => {
    await using it = await bench();
    const failure = await failureOf(it.package({ gguf: await it.file(name, "bytes") }));
    expect(failure).toMatchObject({ code: "usage", hint: expect.stringContaining(flag) });
  });

  test.each([
    ["OpenVINO", { "net.xml": "x", "net.bin": "x" }],
    ["Core ML", { "m.mlpackage/Manifest.json": "{}" }],
    ["TensorRT", { "rank0.engine": "x", "config.json": "{}" }],
  ])("foreign: a directory of %s is named for what it is", async (title, files) => {
    await using it = await bench();
    const directory = await it.directory("m", files);
    const failure = await failureOf(it.package({ safetensors_dir: directory }));
    expect(failure.message).toContain(title);
  });
});

describe("directoryFormat", () => {
  test.each([
    ["safetensors_dir", ["model.safetensors", "onnx/model.onnx", "pytorch_model.bin"]],
    ["safetensors_dir", ["m.gguf"]],
    ["onnx_dir", ["config.json", "onnx/model.onnx", "pytorch_model.bin"]],
    ["onnx_dir", ["model.onnx"]],
    ["pytorch_dir", ["config.json", "pytorch_model-00001-of-00002.bin"]],
    ["safetensors_dir", ["pytorch_model.bin"]],
    ["safetensors_dir", ["readme"]],
  ] as const)("directory: %s of %j", async (expected, names) => {
    await using it = await bench();
    const directory = await it.directory("m", Object.fromEntries(names.map((name) => [name, "x"])));
    expect(directoryFormat(directory)).toBe(expected);
  });

  test("directory: what is not there is the packager's to complain about", () => {
    expect(directoryFormat("/no/where")).toBe("safetensors_dir");
  });
});
