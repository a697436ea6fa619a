import { describe, expect, test } from "bun:test";
import { chmod, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import {
  DOCKER_CHAT_TEMPLATE,
  DOCKER_CONFIG_V02,
  DOCKER_DDUF,
  DOCKER_GGUF,
  DOCKER_LICENSE,
  DOCKER_MMPROJ,
  DOCKER_MODEL_FILE,
  DOCKER_SAFETENSORS,
  FILE_PATH,
  MODELPACK_CONFIG,
  MODELPACK_MANIFEST,
  MODELPACK_WEIGHT,
  MODELPACK_WEIGHT_CONFIG,
  TITLE,
} from "../../src/oci/media-types.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";
import { commitSample, filesIn, type SampleLayer, type SampleOptions } from "./sample-model.ts";

const V02 = { configType: DOCKER_CONFIG_V02 };
const MODELPACK = { configType: MODELPACK_CONFIG, artifactType: MODELPACK_MANIFEST };

describe("Store.openBundle", () => {
  test("bundle: an older model gets fixed names, with its projector and template", async () => {
    await using opened = await openSample({
      layers: [
        layer(DOCKER_GGUF, "weights", "strange name.gguf"),
        layer(DOCKER_LICENSE, "licence", "LICENSE"),
        layer(DOCKER_CHAT_TEMPLATE, "{{ messages }}", "x.jinja"),
        layer(DOCKER_MMPROJ, "projector", "mmproj-x.gguf"),
        layer(DOCKER_MODEL_FILE, "{}", "sub/config.json"),
      ],
      config: { config: { format: "gguf", context_size: 8192 } },
    });

    expect(opened.files).toEqual([
      "model.gguf",
      "model.mmproj",
      join("sub", "config.json"),
      "template.jinja",
    ]);
    expect(opened.bundle).toMatchObject({ format: "gguf", contextTokens: 8192, weightBytes: 7 });
    expect(basename(opened.bundle.model)).toBe("model.gguf");
    expect(await readFile(opened.bundle.mmproj ?? "", "utf8")).toBe("projector");
    expect(await readFile(opened.bundle.chatTemplate ?? "", "utf8")).toBe("{{ messages }}");
  });

  test("bundle: shards get the names by which llama.cpp finds them, in the order of the layers", async () => {
    const layers = ["a", "bb", "ccc"].map((content) =>
      layer(DOCKER_GGUF, content, `${content}.gguf`),
    );
    await using opened = await openSample({ layers });

    expect(opened.files).toEqual([1, 2, 3].map((number) => `model-0000${number}-of-00003.gguf`));
    expect(await readFile(opened.bundle.model, "utf8")).toBe("a");
    expect(opened.bundle.weightBytes).toBe(6);
  });

  test("bundle: two projectors or templates are none", async () => {
    const kinds = [DOCKER_MMPROJ, DOCKER_CHAT_TEMPLATE];
    const layers = kinds.flatMap((type) => [layer(type, `${type} 1`), layer(type, `${type} 2`)]);
    await using opened = await openSample({ layers: [layer(DOCKER_GGUF, "w"), ...layers] });

    expect(opened.files).toEqual(["model.gguf"]);
    expect([opened.bundle.mmproj, opened.bundle.chatTemplate]).toEqual([undefined, undefined]);
  });

  test("bundle: a model of a layer per file keeps its paths", async () => {
    await using opened = await openSample({
      ...V02,
      layers: [
        layer(DOCKER_LICENSE, "l", "LICENSE"),
        layer(DOCKER_GGUF, "second", "q4/m-00002-of-00002.gguf"),
        layer(DOCKER_GGUF, "first", "q4/m-00001-of-00002.gguf"),
        layer(DOCKER_MODEL_FILE, "{}", "../../config.json"),
        layer(DOCKER_MODEL_FILE, "{}", "config.json"),
      ],
    });

    const shards = [1, 2].map((number) => join("q4", `m-0000${number}-of-00002.gguf`));
    expect(opened.files).toEqual(["LICENSE", "config.json", ...shards]);
    expect(relative(opened.bundle.directory, opened.bundle.model)).toBe(shards[0] ?? "");
  });

  test("bundle: a ModelPack's config says what its raw weights are", async () => {
    await using opened = await openSample({
      ...MODELPACK,
      config: { config: { format: "GGUF" } },
      layers: [
        layer(MODELPACK_WEIGHT, "w", "weights.bin"),
        layer(MODELPACK_WEIGHT, "p", "mmproj.gguf"),
        layer(MODELPACK_WEIGHT_CONFIG, "t", "chat_template.jinja"),
      ],
    });

    expect(opened.bundle).toMatchObject({ format: "gguf", contextTokens: undefined });
    expect(
      [opened.bundle.model, opened.bundle.mmproj, opened.bundle.chatTemplate].map((path) =>
        basename(path ?? ""),
      ),
    ).toEqual(["weights.bin", "mmproj.gguf", "chat_template.jinja"]);
  });

  test("bundle: a title serves as path, and weights without any path get a name", async () => {
    const titled = {
      content: "{}",
      mediaType: DOCKER_MODEL_FILE,
      annotations: { [TITLE]: "config.json" },
    };
    await using opened = await openSample({
      ...V02,
      layers: [layer(DOCKER_GGUF, "w"), titled, layer(DOCKER_LICENSE, "l")],
    });

    expect(opened.files).toEqual(["config.json", "model.gguf"]);
  });

  test.each([
    [DOCKER_SAFETENSORS, "safetensors", ["model.safetensors"]],
    [DOCKER_DDUF, "dduf", ["model.dduf"]],
  ] as const)("bundle: %s is opened as %s", async (mediaType, format, files) => {
    await using opened = await openSample({ layers: [layer(mediaType, "w")] });

    expect(opened.bundle.format).toBe(format);
    expect<readonly string[]>(opened.files).toEqual(files);
  });

  test("bundle: safetensors files of older models keep their names where they have some", async () => {
    const layers = ["a.safetensors", "b.safetensors"].map((name) =>
      layer(DOCKER_SAFETENSORS, name, name),
    );
    await using opened = await openSample({ layers });

    expect(opened.files).toEqual(["a.safetensors", "b.safetensors"]);
  });

  test.each([
    ["no weights", { layers: [layer(DOCKER_LICENSE, "l")] }, "unsupported_model", "no weights"],
    [
      "a path that leaves the model",
      { ...V02, layers: [layer(DOCKER_GGUF, "w", "a/../../b")] },
      "invalid_model_file",
      "leaves",
    ],
    [
      "an absolute path",
      { ...V02, layers: [layer(DOCKER_GGUF, "w", "/etc/passwd")] },
      "invalid_model_file",
      "absolute",
    ],
    [
      "two files of one name",
      { ...V02, layers: [layer(DOCKER_GGUF, "w", "m.gguf"), layer(DOCKER_LICENSE, "l", "M.GGUF")] },
      "invalid_model_file",
      "two of its files",
    ],
    [
      "a file that is also a directory",
      { ...V02, layers: [layer(DOCKER_GGUF, "w", "m/m.gguf"), layer(DOCKER_LICENSE, "l", "m")] },
      "invalid_model_file",
      "two of its files",
    ],
    [
      "a file in the place of the weights",
      { layers: [layer(DOCKER_GGUF, "w"), layer(DOCKER_MODEL_FILE, "x", "model.gguf")] },
      "invalid_model_file",
      "two of its files",
    ],
  ] as const)(
    "bundle: a model with %s is refused, and nothing is made",
    async (...[_what, sample, code, reason]) => {
      await using directory = await tempDir();
      const store = Store.open(directory.path);
      const model = await commitSample(store, { name: "a", ...sample });

      const attempt = store.openBundle(model);

      expect(await failureOf(attempt)).toMatchObject({
        code,
        message: expect.stringContaining(reason),
      });
      expect(await readdir(join(store.root, "bundles"))).toEqual([]);
      expect(await readdir(join(store.root, "pins"))).toEqual([]);
    },
  );

  test("bundle: the same file twice is one file", async () => {
    const twice = layer(DOCKER_LICENSE, "l", "LICENSE");
    await using opened = await openSample({
      ...V02,
      layers: [layer(DOCKER_GGUF, "w", "m.gguf"), twice, twice],
    });

    expect(opened.files).toEqual(["LICENSE", "m.gguf"]);
  });

  test("bundle: it costs no disk space and is made once", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    await using first = await store.openBundle(model);
    const made = await stat(first.directory);

    await using second = await store.openBundle(model);

    expect(second.directory).toBe(first.directory);
    expect((await stat(second.directory)).ino).toBe(made.ino);
    expect((await stat(first.model)).mode & 0o222).toBe(0);
  });

  test("bundle: one that lost a file is made again", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    const first = await store.openBundle(model);
    await first[Symbol.asyncDispose]();
    await rm(first.model, { force: true });

    await using second = await store.openBundle(model);

    expect(await readFile(second.model, "utf8")).toBe("weights");
    expect(await readdir(join(store.root, "bundles"))).toHaveLength(1);
  });

  test("bundle: many callers at once get one directory", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });

    const bundles = await Promise.all(
      Array.from({ length: 8 }, () => Store.open(store.root).openBundle(model)),
    );

    expect(new Set(bundles.map((bundle) => bundle.model)).size).toBe(1);
    await Promise.all(bundles.map((bundle) => bundle[Symbol.asyncDispose]()));
    expect(await readdir(join(store.root, "bundles"))).toHaveLength(1);
    expect(await readdir(join(store.root, "pins"))).toEqual([]);
  });

  test("bundle: a blob that is missing is said to be, not found out by the engine", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    await rm(store.blobPath(model.manifest.layers[0]?.digest ?? model.digest), { force: true });

    expect(await failureOf(store.openBundle(model))).toMatchObject({ code: "blob_not_found" });
  });

  test("bundle: a config that is no JSON object says nothing", async () => {
    await using opened = await openSample({ config: [1] });

    expect(opened.bundle.contextTokens).toBeUndefined();
  });

  test("bundle: a context larger than engines can count is not said at all", async () => {
    for (const [size, expected] of [
      [2 ** 31 - 1, 2 ** 31 - 1],
      [-1, -1],
      [2 ** 31, undefined],
      [0, undefined],
    ] as const) {
      await using opened = await openSample({ config: { config: { context_size: size } } });

      expect(opened.bundle.contextTokens).toBe(expected);
    }
  });

  test("bundle: a damaged config is an error", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    const path = store.blobPath(model.manifest.config.digest);
    await chmod(path, 0o644);
    await writeFile(path, "x".repeat(model.manifest.config.size));

    expect(await failureOf(store.openBundle(model))).toMatchObject({ code: "digest_mismatch" });
  });
});

type OpenBundle = Awaited<ReturnType<Store["openBundle"]>>;

async function openSample(
  options: SampleOptions,
): Promise<AsyncDisposable & { readonly bundle: OpenBundle; readonly files: readonly string[] }> {
  const directory = await tempDir();
  const store = Store.open(directory.path);
  const bundle = await store.openBundle(await commitSample(store, { name: "a", ...options }));
  return {
    bundle,
    files: await filesIn(bundle.directory),
    async [Symbol.asyncDispose]() {
      await bundle[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

function layer(mediaType: string, content: string, path?: string): SampleLayer {
  return {
    mediaType,
    content,
    ...(path === undefined ? {} : { annotations: { [FILE_PATH]: path } }),
  };
}
