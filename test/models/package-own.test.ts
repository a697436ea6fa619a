import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { PackageRequest } from "../../src/api/models.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import { resolveRunnable } from "../../src/models/runnable.ts";
import {
  DOCKER_CONFIG_V02,
  DOCKER_LICENSE,
  DOCKER_MODEL_FILE,
  FILE_PATH,
  MODELPACK_CONFIG,
  MODELPACK_MANIFEST,
  MODELPACK_WEIGHT,
  MODELPACK_WEIGHT_CONFIG,
} from "../../src/oci/media-types.ts";
import { failureOf } from "../store/failure-of.ts";
import { commitSample, type SampleLayer } from "../store/sample-model.ts";
import { bench, type Bench } from "./package-bench.ts";

const signal = new AbortController().signal;

async function own(it: Bench, request: Partial<PackageRequest> = {}): Promise<string> {
  const files = [await it.file("net.bin", "weights"), await it.file("vocab.json", "{}")];
  return it.package({ files, format_name: "Echo", ...request });
}

/** What an engine would get. */
async function opened(it: Bench, name: string) {
  const model = await resolveRunnable(it.store, name, { paths: [] });
  await using bundle = await model.openBundle(signal);
  return { model, bundle, text: await readFile(bundle.model, "utf8") };
}

const layer = (mediaType: string, path: string, content = path): SampleLayer => ({
  content,
  mediaType,
  annotations: { [FILE_PATH]: path },
});

describe("packageModel: a format of one's own", () => {
  test("own: the config names it, and each file is a plain layer at its name", async () => {
    await using it = await bench();

    await own(it, { licenses: [await it.file("LICENSE", "free")], context_size: 2048 });

    const { config, layers, media_type: type } = await inspectModel(it.store, "me/model:v1");
    expect(type).toBe(DOCKER_CONFIG_V02);
    expect(config).toMatchObject({ format: "echo", size: "9B", context_size: 2048 });
    expect(layers.map(({ media_type: mediaType, path }) => [path, mediaType])).toEqual([
      ["net.bin", DOCKER_MODEL_FILE],
      ["vocab.json", DOCKER_MODEL_FILE],
      ["LICENSE", DOCKER_LICENSE],
    ]);
  });

  test.each(["docker", "cncf"] as const)(
    "own: as %s it is opened by its first file",
    async (format) => {
      await using it = await bench();

      await own(it, { format });

      const { model, bundle, text } = await opened(it, "me/model:v1");
      expect(model).toMatchObject({ format: "echo", weightBytes: 9 });
      expect("readShape" in model).toBe(false);
      expect(bundle).toMatchObject({ format: "echo", weightBytes: 9, mmproj: undefined });
      expect([basename(bundle.model), text]).toEqual(["net.bin", "weights"]);
      expect(dirname(bundle.model)).toBe(bundle.directory);
    },
  );

  test.each([
    ["docker", "cncf"],
    ["cncf", "docker"],
  ] as const)("own: from %s to %s it stays what it is", async (from, format) => {
    await using it = await bench();
    await own(it, { format: from });

    await it.package({ from: "me/model:v1", model: "me/other", format });

    const { model, text } = await opened(it, "me/other");
    expect([model.format, model.weightBytes, text]).toEqual(["echo", 9, "weights"]);
  });

  test("own: the same files are the same model, whatever the case of the format's name", async () => {
    await using it = await bench();

    expect(await own(it)).toBe(await own(it, { format_name: "echo" }));
    expect(await own(it, { format_name: "other" })).not.toBe(await own(it));
  });

  test("own: a file with a known name is of the format that was said", async () => {
    await using it = await bench();

    await it.package({ files: [await it.file("net.gguf", "w")], format_name: "echo" });

    expect((await opened(it, "me/model:v1")).model.format).toBe("echo");
  });

  test.each<[string, Partial<PackageRequest>, RegExp]>([
    ["a known format", { format_name: "gguf" }, /`gguf` is a known one/],
    ["a known format in capitals", { format_name: " SafeTensors " }, /is a known one/],
    ["no format", { format_name: undefined as never }, /nothing says what the format is called/],
    ["no name of a format", { format_name: "a b" }, /or no name of any/],
    ["no files", { files: [] }, /nothing says which files it has/],
    ["a format without files", { files: undefined as never, gguf: "/x" }, /which files it has/],
    ["two sources", { gguf: "/x.gguf" }, /exclude each other/],
    ["a relative path", { files: ["net.bin"] }, /not absolute/],
    ["a file that is not there", { files: ["/no/net.bin"] }, /no such file/],
    ["a directory", { files: ["/tmp"] }, /not a regular file/],
  ])("own: %s is refused, and nothing is stored", async (_what, request, message) => {
    await using it = await bench();

    const failure = await failureOf(own(it, request));

    expect(failure.message).toMatch(message);
    expect(await it.contents()).toEqual([]);
  });

  test("own: in a ModelPack names tell formats, so none may tell another", async () => {
    await using it = await bench();
    const files = [await it.file("net.gguf", "w")];

    const failure = await failureOf(it.package({ files, format_name: "echo", format: "cncf" }));

    expect(failure).toMatchObject({ code: "usage", message: expect.stringContaining("gguf") });
  });

  test("own: two files of one name are refused", async () => {
    await using it = await bench();
    const files = [await it.file("a/net.bin"), await it.file("b/NET.bin")];

    expect((await failureOf(it.package({ files, format_name: "echo" }))).code).toBe("usage");
  });
});

describe("resolveRunnable: a format that is not known", () => {
  const MODELPACK = { configType: MODELPACK_CONFIG, artifactType: MODELPACK_MANIFEST };

  test("own: of a ModelPack of another tool the weights are those of that type", async () => {
    await using it = await bench();
    await commitSample(it.store, {
      name: "me/onnx",
      ...MODELPACK,
      config: { config: { format: "onnx" } },
      layers: [
        layer(MODELPACK_WEIGHT_CONFIG, "config.json"),
        layer(MODELPACK_WEIGHT, "onnx/model.onnx", "graph"),
      ],
    });

    const { model, bundle, text } = await opened(it, "me/onnx");

    expect([model.format, model.weightBytes, text]).toEqual(["onnx", 5, "graph"]);
    expect(bundle.model).toBe(join(bundle.directory, "onnx/model.onnx"));
  });

  test("own: weights of a known format win over what the config calls them", async () => {
    await using it = await bench();
    await commitSample(it.store, {
      name: "me/torch",
      ...MODELPACK,
      config: { config: { format: "pytorch" } },
      layers: [layer(MODELPACK_WEIGHT, "m.safetensors"), layer(MODELPACK_WEIGHT_CONFIG, "c.json")],
    });

    const { model, bundle } = await opened(it, "me/torch");

    expect([model.format, bundle.format]).toEqual(["safetensors", "safetensors"]);
  });

  test.each([undefined, 5, "", "../x", "a b", "x".repeat(100)])(
    "own: a format called %p has no weights known here",
    async (format) => {
      await using it = await bench();
      await commitSample(it.store, {
        name: "me/odd",
        configType: DOCKER_CONFIG_V02,
        config: { config: { format } },
        layers: [layer(DOCKER_MODEL_FILE, "x.bin")],
      });

      const failure = await failureOf(resolveRunnable(it.store, "me/odd", { paths: [] }));

      expect(failure.code).toBe("unsupported_model");
    },
  );
});
