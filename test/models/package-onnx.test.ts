import { describe, expect, test } from "bun:test";
import { basename } from "node:path";
import { inspectModel } from "../../src/models/inspect.ts";
import { resolveRunnable } from "../../src/models/runnable.ts";
import { failureOf } from "../store/failure-of.ts";
import { bench } from "./package-bench.ts";

const signal = new AbortController().signal;

const GENAI = {
  model: {
    type: "llama",
    context_length: 2048,
    vocab_size: 100,
    decoder: {
      filename: "model.onnx",
      head_size: 32,
      hidden_size: 192,
      num_attention_heads: 6,
      num_hidden_layers: 3,
      num_key_value_heads: 2,
    },
  },
};

const FILES = {
  "a.json": "{}",
  "model.onnx": "graph",
  "model.onnx.data": "weights",
  "tokenizer.json": "{}",
  LICENSE: "free",
};

describe("packageModel: an ONNX directory", () => {
  test.each(["docker", "cncf"] as const)(
    "onnx: as %s it keeps its files, the graph first",
    async (format) => {
      await using it = await bench();

      await it.package({ onnx_dir: await it.directory("m", FILES), format });

      const { config, layers } = await inspectModel(it.store, "me/model:v1");
      expect(config).toMatchObject({ format: "onnx", size: format === "docker" ? "12B" : null });
      expect(new Set(layers.map(({ path }) => path))).toEqual(new Set(Object.keys(FILES)));
      expect(layers[0]?.path).toBe("model.onnx");
      const model = await resolveRunnable(it.store, "me/model:v1", { paths: [] });
      await using bundle = await model.openBundle(signal);
      expect([model.format, basename(bundle.model)]).toEqual(["onnx", "model.onnx"]);
    },
  );

  test("onnx: a graph in a directory of its own is found, weights of other formats stay behind", async () => {
    await using it = await bench();
    const warnings: string[] = [];
    const directory = await it.directory("m", {
      "config.json": "{}",
      "onnx/model.onnx": "graph",
      "pytorch_model.bin": "x",
      "tf_model.h5": "x",
    });

    await it.package(
      { onnx_dir: directory },
      { onProgress: (event) => void (event.type === "warning" && warnings.push(event.message)) },
    );

    const { layers } = await inspectModel(it.store, "me/model:v1");
    expect(layers.map(({ path }) => path)).toEqual(["onnx/model.onnx", "config.json"]);
    expect(warnings.join("\n")).toContain("left out weights that are not ONNX");
  });

  test.each([
    ["genai_config.json", GENAI, 2048],
    [
      "config.json",
      {
        num_hidden_layers: 3,
        hidden_size: 192,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        max_position_embeddings: 99,
      },
      99,
    ],
  ])("onnx: what it needs is read from %s", async (name, config, contextTokens) => {
    await using it = await bench();
    const files = { "model.onnx": "graph", [name]: JSON.stringify(config) };
    await it.package({ onnx_dir: await it.directory("m", files) });

    const model = await resolveRunnable(it.store, "me/model:v1", { paths: [] });
    const shape = await model.readShape?.(signal);

    expect(shape).toMatchObject({ contextTokens });
    expect(shape?.layers).toHaveLength(3);
    expect(shape?.layers[0]).toEqual({ kind: "attention", keyElements: 64, valueElements: 64 });
  });

  test.each([{}, { model: 5 }, { model: { decoder: [] } }])(
    "onnx: a configuration like %p tells nothing",
    async (config) => {
      await using it = await bench();
      const files = { "model.onnx": "graph", "genai_config.json": JSON.stringify(config) };
      await it.package({ onnx_dir: await it.directory("m", files) });

      const model = await resolveRunnable(it.store, "me/model:v1", { paths: [] });

      expect(await model.readShape?.(signal)).toMatchObject({ layers: [], contextTokens: null });
    },
  );

  test.each<[string, Record<string, string>, RegExp]>([
    ["without a graph", { "config.json": "{}" }, /has no weights|no `\.onnx` file/],
    ["with data only", { "model.onnx.data": "x" }, /no `\.onnx` file/],
  ])("onnx: a directory %s is refused", async (_what, files, message) => {
    await using it = await bench();

    const failure = await failureOf(it.package({ onnx_dir: await it.directory("m", files) }));

    expect(failure.message).toMatch(message);
    expect(await it.contents()).toEqual([]);
  });

  test("onnx: who gives it as another model is told how to", async () => {
    await using it = await bench();

    const failure = await failureOf(
      it.package({ safetensors_dir: await it.directory("m", FILES) }),
    );

    expect(failure).toMatchObject({ hint: expect.stringContaining("--onnx-dir") as string });
  });

  test("onnx: a file is no directory, and what is not there is said", async () => {
    await using it = await bench();

    const file = await failureOf(it.package({ onnx_dir: await it.file("model.onnx") }));
    const missing = await failureOf(it.package({ onnx_dir: "/no/where" }));

    expect(file.message).toContain("not a directory");
    expect(missing.code).toBe("not_found");
  });
});
