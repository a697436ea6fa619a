import { describe, expect, test } from "bun:test";
import { chmod, copyFile, mkdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { failureOf } from "../store/failure-of.ts";
import { encodeGguf } from "../store/gguf-file.ts";
import { encodeSafetensors } from "../store/safetensors-file.ts";
import {
  bench,
  type Bench,
  documents,
  EMPTY_DDUF,
  safetensorsFiles,
  shard,
} from "./package-bench.ts";

const PROJECTOR = encodeGguf({ values: { "general.architecture": { string: "clip" } } });
const ADAPTER = encodeGguf({
  values: { "general.architecture": { string: "llama" }, "general.type": { string: "adapter" } },
});
const SMALL_MODEL = encodeGguf({ values: { "general.architecture": { string: "llama" } } });

type Files = Readonly<Record<string, string | Uint8Array>>;

/** Packages a directory of these files. @returns what `inspect` says, and the warnings */
async function packaged(it: Bench, files: Files, format: "docker" | "cncf" = "docker") {
  const warnings: string[] = [];
  const onProgress = (event: Progress | Warning) =>
    event.type === "warning" && warnings.push(event.message);
  const directory = await it.directory("model", files);
  const id = await it.package({ safetensors_dir: directory, format }, { onProgress });
  return { id, warnings, details: await inspectModel(it.store, id) };
}

const layersOf = ({ details }: Awaited<ReturnType<typeof packaged>>) =>
  details.layers.map(({ media_type: type, path }) => [
    path,
    type.replace("application/vnd.docker.ai.", "").replace("application/vnd.cncf.model.", ""),
  ]);

async function refusal(files: Files): Promise<Error & { code?: string; hint?: string }> {
  await using it = await bench();
  const error = await failureOf(packaged(it, files));
  expect(await it.contents()).toEqual([]);
  return error;
}

describe("packaging a directory", () => {
  test("directory: every file is a layer at its path, in the order of a walk", async () => {
    await using it = await bench();

    const model = await packaged(it, {
      ...safetensorsFiles(),
      "sub/deep/notes.txt": "notes",
      "sub.py": "code",
    });

    expect(layersOf(model)).toEqual([
      ["LICENSE", "license"],
      ["README.md", "model.file"],
      ["chat_template.jinja", "chat.template.jinja"],
      ["config.json", "model.file"],
      ["model-00001-of-00002.safetensors", "safetensors"],
      ["model-00002-of-00002.safetensors", "safetensors"],
      ["model.safetensors.index.json", "model.file"],
      ["sub/deep/notes.txt", "model.file"],
      ["sub.py", "model.file"],
      ["tokenizer.json", "model.file"],
    ]);
    expect(model.warnings).toEqual([]);
    expect(model.details.media_type).toBe("application/vnd.docker.ai.model.config.v0.2+json");
  });

  test("directory: the config says what the headers and config.json say", async () => {
    await using it = await bench();

    await packaged(it, safetensorsFiles());

    const model = await it.store.resolve("me/model:v1");
    const { config } = await documents(it.store, model);
    expect(config["config"]).toEqual({
      format: "safetensors",
      quantization: "BF16",
      parameters: "1K",
      architecture: "llama",
      size: `${((2 * shard(1).length) / 1000).toFixed(2)}kB`,
      safetensors: { format: "pt", context_length: "2048", tensor_count: "2" },
    });
    const { config: shown } = await inspectModel(it.store, "me/model:v1");
    expect(shown).toMatchObject({ format: "safetensors", context_size: 2048, gguf: null });
  });

  test("directory: its bundle has every file at its path", async () => {
    await using it = await bench();
    await packaged(it, { ...safetensorsFiles(), "sub/a.txt": "a" });

    await using bundle = await it.store.openBundle(await it.store.resolve("me/model:v1"));

    expect(bundle.format).toBe("safetensors");
    expect(bundle.model).toBe(join(bundle.directory, "model-00001-of-00002.safetensors"));
    expect(await readFile(join(bundle.directory, "sub/a.txt"), "utf8")).toBe("a");
    expect(await readFile(bundle.chatTemplate ?? "", "utf8")).toBe("{{ messages }}");
  });

  test("directory: the digest does not depend on its name, on times, modes or the order of files", async () => {
    await using it = await bench();
    const { id } = await packaged(it, safetensorsFiles());
    const other = await it.directory(
      "elsewhere/under another name",
      Object.fromEntries(Object.entries(safetensorsFiles()).toReversed()),
    );
    await utimes(join(other, "config.json"), 1, 1_700_000_000);
    await chmod(join(other, "LICENSE"), 0o755);

    expect(await it.package({ safetensors_dir: other, model: "you/b" })).toBe(id);
    // A GGUF flag that names a directory means the same.
    expect(await it.package({ gguf: other })).toBe(id);
  });

  test("directory: hidden names and links are skipped", async () => {
    await using it = await bench();
    const directory = await it.directory("m", {
      "model.safetensors": shard(1),
      ".git/config": "secret",
      ".env": "secret",
    });
    await symlink("/etc/passwd", join(directory, "passwd"));
    await symlink("/etc", join(directory, "etc"));

    const id = await it.package({ safetensors_dir: directory });

    const { layers } = await inspectModel(it.store, id);
    expect(layers.map(({ path }) => path)).toEqual(["model.safetensors"]);
  });

  test("directory: one that is a link is followed", async () => {
    await using it = await bench();
    const directory = await it.directory("m", { "model.safetensors": shard(1) });
    await symlink(directory, join(it.path, "link"));

    const id = await it.package({ safetensors_dir: join(it.path, "link") });

    expect(await it.package({ safetensors_dir: directory })).toBe(id);
  });

  test("directory: of shards that are here twice, each counts once", async () => {
    await using it = await bench();

    await packaged(it, { ...safetensorsFiles(), "consolidated.safetensors": shard(3) });

    const { config } = await inspectModel(it.store, "me/model:v1");
    expect(config.parameters).toBe("1K");
  });

  test("directory: pickles are plain files, with a warning", async () => {
    await using it = await bench();

    const model = await packaged(it, {
      "model.safetensors": shard(1),
      "pytorch_model.bin": "pickle",
      "training_args.bin": "pickle",
    });

    expect(layersOf(model)).toContainEqual(["pytorch_model.bin", "model.file"]);
    expect(model.warnings).toEqual([
      "`pytorch_model.bin` and 1 more like it may be a pickle, which runs code when it is opened: packaged as a plain file",
    ]);
  });

  test("directory: of several templates one is the model's", async () => {
    await using it = await bench();

    const model = await packaged(it, {
      "model.safetensors": shard(1),
      "additional_chat_templates/rag.jinja": "rag",
      "a.jinja": "a",
      "chat_template.jinja": "main",
      "chat_template.json": "{}",
    });

    const templates = layersOf(model).filter(([, type]) => type === "chat.template.jinja");
    expect(templates).toEqual([["chat_template.jinja", "chat.template.jinja"]]);
    expect(layersOf(model)).toHaveLength(5);
  });

  test("directory: a config that is damaged, and one that is huge, are packaged with a warning", async () => {
    await using it = await bench();

    for (const config of ["{no", "[1]", `{"a":"${"x".repeat(5_000_000)}"}`]) {
      const { warnings, details } = await packaged(it, {
        "model.safetensors": shard(1),
        "config.json": config,
      });
      expect(warnings).toEqual(["`config.json` is no configuration that can be read"]);
      expect(details.config.architecture).toBeNull();
    }
  });

  test("directory: GGUF files have the facts of their headers", async () => {
    await using it = await bench();

    const model = await packaged(it, {
      "pebble.gguf": await readFile(PEBBLE),
      "mmproj-f16.gguf": PROJECTOR,
      "adapter.gguf": ADAPTER,
      "README.md": "text",
    });

    expect(layersOf(model)).toEqual([
      ["README.md", "model.file"],
      ["adapter.gguf", "gguf.v3.lora"],
      ["mmproj-f16.gguf", "mmproj"],
      ["pebble.gguf", "gguf.v3"],
    ]);
    expect(model.details.config).toMatchObject({
      format: "gguf",
      parameters: "2.76M",
      quantization: "Q8_0",
      context_size: 2048,
    });
    expect(model.warnings).toEqual([]);
    await using bundle = await it.store.openBundle(await it.store.resolve(model.id));
    expect(bundle.model).toBe(join(bundle.directory, "pebble.gguf"));
    expect(bundle.mmproj).toBe(join(bundle.directory, "mmproj-f16.gguf"));
  });

  test("directory: a projector is known by its header, and there is one", async () => {
    await using it = await bench();

    const model = await packaged(it, {
      "a-vision-bf16.gguf": PROJECTOR,
      "b-vision-f16.gguf": encodeGguf({
        values: { "general.architecture": { string: "clip" }, x: { uint32: 1 } },
      }),
      "c.gguf": SMALL_MODEL,
    });

    expect(layersOf(model)).toEqual([
      ["b-vision-f16.gguf", "mmproj"],
      ["c.gguf", "gguf.v3"],
    ]);
    expect(model.warnings).toEqual([
      "`a-vision-bf16.gguf` is left out: a model has one projector, here `b-vision-f16.gguf`",
    ]);
  });

  test("directory: of two GGUF models engines open the first, which is said", async () => {
    await using it = await bench();

    const { warnings } = await packaged(it, {
      "a.gguf": SMALL_MODEL,
      "b.gguf": await readFile(PEBBLE),
    });

    expect(warnings).toEqual(["the directory has 2 GGUF models: engines open the first, `a.gguf`"]);
  });

  test("directory: the shards of a GGUF are one model", async () => {
    await using it = await bench();
    const directory = join(it.path, "shards");
    await mkdir(directory);
    for (const index of [1, 2, 3]) {
      const name = `pebble-chat-q8_0-0000${index}-of-00003.gguf`;
      await copyFile(join(FIRST_SHARD, "..", name), join(directory, name));
    }

    const { config } = await inspectModel(
      it.store,
      await it.package({ safetensors_dir: directory }),
    );
    expect(config.parameters).toBe("2.76M");

    await rm(join(directory, "pebble-chat-q8_0-00002-of-00003.gguf"));
    const error = await failureOf(it.package({ safetensors_dir: directory }));
    expect(error.message).toContain("found 2 of 3");
  });

  test("directory: as ModelPack, weights are raw and each layer says where it belongs", async () => {
    await using it = await bench();

    const model = await packaged(it, safetensorsFiles(), "cncf");

    expect(layersOf(model)).toEqual([
      ["LICENSE", "doc.v1.raw"],
      ["README.md", "doc.v1.raw"],
      ["chat_template.jinja", "weight.config.v1.raw"],
      ["config.json", "weight.config.v1.raw"],
      ["model-00001-of-00002.safetensors", "weight.v1.raw"],
      ["model-00002-of-00002.safetensors", "weight.v1.raw"],
      ["model.safetensors.index.json", "weight.config.v1.raw"],
      ["tokenizer.json", "weight.config.v1.raw"],
    ]);
    expect(model.details.config).toMatchObject({ format: "safetensors", parameters: "1K" });
    await using bundle = await it.store.openBundle(await it.store.resolve(model.id));
    expect(bundle.format).toBe("safetensors");
  });

  test("directory: weights of a second format are files of a ModelPack", async () => {
    await using it = await bench();

    const model = await packaged(
      it,
      { "a.gguf": SMALL_MODEL, "b.safetensors": shard(1), "v.gguf": PROJECTOR },
      "cncf",
    );

    expect(layersOf(model)).toEqual([
      ["a.gguf", "weight.v1.raw"],
      ["b.safetensors", "weight.config.v1.raw"],
      ["mmproj-v.gguf", "weight.v1.raw"],
    ]);
  });

  test("directory: licences and a template can be added, the template instead of its own", async () => {
    await using it = await bench();
    const directory = await it.directory("m", safetensorsFiles());
    const license = await it.file("EXTRA-LICENSE");
    const template = await it.file("chat_template.jinja", "other");

    const id = await it.package({
      safetensors_dir: directory,
      licenses: [license],
      chat_template: template,
    });

    const { layers } = await inspectModel(it.store, id);
    expect(layers.map(({ path }) => path).slice(-3)).toEqual([
      "tokenizer.json",
      "EXTRA-LICENSE",
      "chat_template.jinja",
    ]);
    const clash = it.package({
      safetensors_dir: directory,
      licenses: [await it.file("other/license")],
    });
    expect(await failureOf(clash)).toMatchObject({ code: "usage" });
  });

  test("directory: the same licence twice is one layer, the same file twice is two", async () => {
    await using it = await bench();

    const model = await packaged(it, {
      "model.safetensors": shard(1),
      LICENSE: "a licence",
      "sub/LICENSE": "a licence",
      "a/__init__.py": "",
      "b/__init__.py": "",
    });

    expect(layersOf(model).map(([path]) => path)).toEqual([
      "LICENSE",
      "a/__init__.py",
      "b/__init__.py",
      "model.safetensors",
    ]);
  });

  test("directory: names are stored composed, as most systems write them", async () => {
    await using it = await bench();

    const model = await packaged(it, { "model.safetensors": shard(1), "u\u0308ber.txt": "x" });

    expect(layersOf(model)[1]).toEqual(["\u00FCber.txt", "model.file"]);
  });
});

describe("directories that are refused", () => {
  test("directory: no weights", async () => {
    expect(await refusal({ "README.md": "text" })).toMatchObject({
      code: "invalid_model_file",
      message: expect.stringContaining("the directory has no weights"),
    });
  });

  test("directory: nothing but pickles, or projectors", async () => {
    const pickles = await refusal({ "pytorch_model.bin": "x", "config.json": "{}" });
    expect(pickles.message).toContain("except pickles");
    expect((await refusal({ "a.gguf": PROJECTOR })).message).toContain("no weights");
  });

  test("directory: nothing but links, as in the Hugging Face cache: the hint says what to do", async () => {
    await using it = await bench();
    const directory = await it.directory("snapshot", {});
    await mkdir(directory, { recursive: true });
    await symlink(PEBBLE, join(directory, "model.gguf"));

    const error = await failureOf(it.package({ safetensors_dir: directory }));

    expect(error).toMatchObject({ hint: expect.stringContaining("cp -rL") });
  });

  test.each<[string, Files]>([
    [
      "found 1 of 2",
      { "model-00001-of-00002.safetensors": shard(1), "x-00001-of-00001.safetensors": shard(2) },
    ],
    ["cannot have", { "model-00003-of-00002.safetensors": shard(1) }],
    ["cannot have", { "model-00000-of-00002.safetensors": shard(1) }],
    [
      "`model.safetensors.index.json` names it found 1 of 3",
      {
        "a.safetensors": shard(1),
        "model.safetensors.index.json": JSON.stringify({
          weight_map: { a: "a.safetensors", b: "b.safetensors", c: "../../etc/passwd" },
        }),
      },
    ],
  ])("directory: an incomplete set (%s)", async (message, files) => {
    const error = await refusal(files);
    expect(error).toMatchObject({ code: "invalid_model_file" });
    expect(error.message).toContain(message);
  });

  test("directory: weights that ModelPack would take for a projector", async () => {
    await using it = await bench();

    const error = await failureOf(packaged(it, { "mmproj.safetensors": shard(1) }, "cncf"));

    expect(error).toMatchObject({ code: "usage" });
    expect(error.message).toContain("its name says that it is a projector");
  });

  test("directory: damaged weights are named by their path", async () => {
    const error = await refusal({ "sub/model.safetensors": shard(1).subarray(0, 50) });
    expect(error).toMatchObject({ code: "invalid_model_file" });
    expect(error.message).toContain("`sub/model.safetensors`");
    expect((await refusal({ "m.dduf": "no archive" })).message).toContain("not a DDUF file");
  });

  test.each([["Config.json"], ["CONFIG.JSON/x"]])(
    "directory: %s beside config.json, which many systems cannot have",
    async (name) => {
      const error = await refusal({
        "model.safetensors": shard(1),
        "config.json": "{}",
        [name]: "{}",
      });
      expect(error).toMatchObject({ code: "usage" });
      expect(error.message).toContain("two files called");
    },
  );

  test.each(["con.txt", "a:b.json", "back\\slash", "line\nbreak", "dot."])(
    "directory: a file called %j, which not every system can have",
    async (name) => {
      const error = await refusal({ "model.safetensors": shard(1), [name]: "x" });
      expect(error).toMatchObject({ code: "usage" });
      expect(error.message).not.toMatch(/\p{Cc}/u);
    },
  );

  test("directory: one that is too deep", async () => {
    const deep = `${"d/".repeat(40)}x`;
    expect((await refusal({ "m.safetensors": shard(1), [deep]: "x" })).message).toContain(
      "directories in one another",
    );
  });

  test("directory: one that is not there, and a file", async () => {
    await using it = await bench();

    const missing = it.package({ safetensors_dir: join(it.path, "none") });
    expect(await failureOf(missing)).toMatchObject({ code: "not_found" });
    const file = it.package({ safetensors_dir: await it.file("m.safetensors") });
    expect(await failureOf(file)).toMatchObject({ code: "usage" });
  });

  test("directory: a manifest over what registries take", async () => {
    await using it = await bench();
    const directory = await it.directory("m", { "model.safetensors": shard(1) });
    const annotations = Object.fromEntries(
      Array.from({ length: 256 }, (_, index) => [`key-${index}`, "x".repeat(16_384)]),
    );

    const error = await failureOf(it.package({ safetensors_dir: directory, annotations }));

    expect(error).toMatchObject({ code: "unsupported_model" });
    expect(error.message).toContain("registries take 4194304");
  });

  test("directory: an abort ends the walk", async () => {
    await using it = await bench();
    const directory = await it.directory("m", safetensorsFiles());

    const packaging = it.package({ safetensors_dir: directory }, { signal: AbortSignal.abort() });

    expect((await failureOf(packaging)).name).toBe("AbortError");
  });
});

describe("packaging a DDUF", () => {
  test("dduf: it is one layer with its facts", async () => {
    await using it = await bench();
    const dduf = await it.file("pipe.dduf", EMPTY_DDUF);

    const id = await it.package({ dduf, licenses: [await it.file("LICENSE")] });

    const details = await inspectModel(it.store, id);
    const { config } = await documents(it.store, await it.store.resolve(id));
    expect(details.layers.map(({ media_type: type, path }) => [type, path])).toEqual([
      ["application/vnd.docker.ai.dduf", "pipe.dduf"],
      ["application/vnd.docker.ai.license", "LICENSE"],
    ]);
    expect(details.media_type).toBe("application/vnd.docker.ai.model.config.v0.1+json");
    expect(details.annotations["org.opencontainers.image.title"]).toBe("pipe");
    expect(config["config"]).toEqual({
      format: "dduf",
      architecture: "diffusers",
      size: "52B",
      diffusers: { dduf_file: "pipe.dduf", layout: "dduf" },
    });
  });

  test("dduf: as ModelPack too, and in a directory", async () => {
    await using it = await bench();
    const dduf = await it.file("pipe.dduf", EMPTY_DDUF);
    const modelPack = await inspectModel(it.store, await it.package({ dduf, format: "cncf" }));
    expect(modelPack.config.format).toBe("dduf");
    expect(modelPack.layers[0]?.media_type).toBe("application/vnd.cncf.model.weight.v1.raw");

    const model = await packaged(it, { "pipe.dduf": EMPTY_DDUF, "README.md": "text" });
    expect(layersOf(model)).toEqual([
      ["README.md", "model.file"],
      ["pipe.dduf", "dduf"],
    ]);
  });

  test.each<[string, Uint8Array, RegExp]>([
    ["a text", Buffer.from("text"), /not a DDUF/],
    ["nothing", Buffer.alloc(0), /not a DDUF/],
    ["half an archive", EMPTY_DDUF.subarray(0, 30), /truncated/],
    ["safetensors", encodeSafetensors([]), /not a DDUF/],
  ])("dduf: %s is refused", async (_, bytes, message) => {
    await using it = await bench();
    const dduf = await it.file("pipe.dduf", bytes);

    const error = await failureOf(it.package({ dduf }));

    expect(error).toMatchObject({ code: "invalid_model_file" });
    expect(error.message).toMatch(message);
  });

  test("dduf: a missing file and a directory", async () => {
    await using it = await bench();
    await writeFile(join(it.path, "x"), "");

    expect(await failureOf(it.package({ dduf: join(it.path, "none") }))).toMatchObject({
      code: "not_found",
    });
    expect((await failureOf(it.package({ dduf: it.path }))).message).toContain("cannot read");
  });
});
