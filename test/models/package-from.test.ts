import { describe, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { PackageRequest } from "../../src/api/models.ts";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import {
  DOCKER_CHAT_TEMPLATE,
  DOCKER_GGUF,
  DOCKER_LICENSE,
  DOCKER_MODEL_FILE,
  FILE_PATH,
  MODELPACK_CONFIG,
  MODELPACK_WEIGHT,
} from "../../src/oci/media-types.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { failureOf } from "../store/failure-of.ts";
import { writeSparseGguf } from "../store/gguf-file.ts";
import { commitSample } from "../store/sample-model.ts";
import { bench, type Bench, documents, EMPTY_DDUF, safetensorsFiles } from "./package-bench.ts";

async function projector(it: Bench, name: string): Promise<string> {
  const path = join(it.path, name);
  const values = {
    "general.architecture": { string: "clip" },
    "general.name": { string: name },
  };
  await writeSparseGguf(path, { values });
  return path;
}

const template = (path: string) => ({
  content: path,
  mediaType: DOCKER_CHAT_TEMPLATE,
  annotations: { [FILE_PATH]: path },
});

/** A variant of `me/model:v1`. @returns what is in the store under its name, and the warnings */
async function variant(it: Bench, request: Partial<PackageRequest>, from = "me/model:v1") {
  const warnings: string[] = [];
  const onProgress = (event: Progress | Warning) =>
    event.type === "warning" && warnings.push(event.message);
  await it.package({ from, model: "me/variant", ...request }, { onProgress });
  const model = await it.store.resolve("me/variant");
  const details = await inspectModel(it.store, "me/variant");
  return { model, details, warnings, ...(await documents(it.store, model)) };
}

const layersOf = ({ details }: Awaited<ReturnType<typeof variant>>) =>
  details.layers.map(({ media_type: type, path }) => [path, type.split(".ai.")[1] ?? type]);

describe("package --from", () => {
  test("from: another context size shares every layer", async () => {
    await using it = await bench();
    await it.package({ licenses: [await it.file("LICENSE")] });
    const source = await it.store.resolve("me/model:v1");
    const blobs = await readdir(join(it.store.root, "blobs", "sha256"));

    const { model, config, manifest } = await variant(it, { context_size: 1024 });

    expect(model.manifest.layers).toEqual(source.manifest.layers);
    expect(config["config"].context_size).toBe(1024);
    const before = await documents(it.store, source);
    expect(config).toEqual({
      ...before.config,
      config: { ...before.config["config"], context_size: 1024 },
    });
    expect(manifest["annotations"]).toEqual(before.manifest["annotations"]);
    const after = await readdir(join(it.store.root, "blobs", "sha256"));
    expect(after.length - blobs.length).toBe(2);
  });

  test("from: the same as packaging it so at once", async () => {
    await using it = await bench();
    await it.package();

    const { model } = await variant(it, {
      context_size: 1024,
      annotations: { "org.example.b": "2", "org.example.a": "1" },
    });

    const direct = await it.package({
      context_size: 1024,
      annotations: { "org.example.a": "1", "org.example.b": "2" },
    });
    expect(model.digest as string).toBe(direct);
  });

  test("from: nothing but another name is the same model", async () => {
    await using it = await bench();
    const id = await it.package();

    const { model } = await variant(it, {});

    expect(model.digest as string).toBe(id);
    expect(model.tags).toEqual(["docker.io/me/model:v1", "docker.io/me/variant:latest"]);
  });

  test("from: what others wrote stays as they wrote it", async () => {
    await using it = await bench();
    const config = {
      config: { format: "gguf", quantization: "MOSTLY_Q4_K_M", parameters: "361.82 M", new: [1] },
      descriptor: { created: "2025-01-02T03:04:05.678Z", other: true },
      files: [{ diffID: "sha256:0", type: "x" }],
      more: { a: 1 },
    };
    await commitSample(it.store, { name: "me/old", config });

    const made = await variant(it, { context_size: -1 }, "me/old");

    expect(made.config).toEqual({
      config: { ...config.config, context_size: -1 },
      descriptor: config.descriptor,
      more: { a: 1 },
      rootfs: { type: "rootfs", diff_ids: made.manifest["layers"].map((l: never) => l["digest"]) },
    });
    expect(made.manifest["layers"][0].annotations).toBeUndefined();
  });

  test("from: a licence is added, a template and a projector replace those there are", async () => {
    await using it = await bench();
    await it.package({
      licenses: [await it.file("LICENSE", "old"), await it.file("NOTICE", "notice")],
      chat_template: await it.file("old.jinja", "old"),
      mmproj: await projector(it, "old.gguf"),
    });

    const made = await variant(it, {
      licenses: [await it.file("new/LICENSE", "new"), await it.file("COPYING", "copying")],
      chat_template: await it.file("new.jinja", "new"),
      mmproj: await projector(it, "new.gguf"),
    });

    expect(layersOf(made)).toEqual([
      ["pebble.gguf", "gguf.v3"],
      ["NOTICE", "license"],
      ["COPYING", "license"],
      ["LICENSE", "license"],
      ["new.jinja", "chat.template.jinja"],
      ["new.gguf", "mmproj"],
    ]);
    expect(made.config["rootfs"].diff_ids).toEqual(made.details.layers.map(({ digest }) => digest));
    await using bundle = await it.store.openBundle(made.model);
    expect(await readFile(bundle.chatTemplate ?? "", "utf8")).toBe("new");
  });

  test("from: a licence that is there already is not added again", async () => {
    await using it = await bench();
    await it.package({ licenses: [await it.file("LICENSE", "text")] });

    const made = await variant(it, { licenses: [await it.file("COPY", "text")] });

    expect(layersOf(made)).toHaveLength(2);
  });

  test("from: a time and annotations are written over the old ones", async () => {
    await using it = await bench();
    await it.package({ annotations: { "org.example.a": "1", "org.example.b": "1" } });

    const made = await variant(it, {
      created: "2026-01-02T03:04:05Z",
      annotations: { "org.example.b": "2" },
    });

    expect(made.details.annotations).toMatchObject({
      "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
      "org.opencontainers.image.title": "Pebble Chat",
      "org.example.a": "1",
      "org.example.b": "2",
    });
    expect(made.config["descriptor"].created).toBe("2026-01-02T03:04:05Z");
  });

  test("from: a directory keeps its layout, and a new template takes the place of the old", async () => {
    await using it = await bench();
    await it.package({ safetensors_dir: await it.directory("m", safetensorsFiles()) });

    const made = await variant(it, {
      chat_template: await it.file("chat_template.jinja", "new"),
      context_size: 512,
    });

    expect(made.details.media_type).toBe("application/vnd.docker.ai.model.config.v0.2+json");
    expect(made.details.layers).toHaveLength(8);
    expect(made.details.config.context_size).toBe(512);
    const clash = variant(it, { licenses: [await it.file("README.md", "text")] });
    expect(await failureOf(clash)).toMatchObject({ code: "usage" });
  });

  test("from: to ModelPack and back is the model that it was", async () => {
    await using it = await bench();
    const extras = {
      licenses: [await it.file("LICENSE")],
      chat_template: await it.file("chat.jinja", "{{ messages }}"),
      mmproj: await projector(it, "mmproj-v.gguf"),
    };
    const docker = await it.package({ ...extras, model: "me/docker" });
    const modelPack = await it.package({ ...extras, model: "me/pack", format: "cncf" });

    const to = await variant(it, { format: "cncf" }, "me/docker");
    const back = await variant(it, { format: "docker" }, "me/pack");

    expect(to.model.digest as string).toBe(modelPack);
    expect(back.model.digest as string).toBe(docker);
    expect([...to.warnings, ...back.warnings]).toEqual([]);
  });

  test("from: a directory goes to ModelPack and back, too", async () => {
    await using it = await bench();
    const safetensors = await it.directory("m", safetensorsFiles());
    const docker = await it.package({ safetensors_dir: safetensors, model: "me/docker" });
    const pack = { safetensors_dir: safetensors, model: "me/pack", format: "cncf" } as const;
    const modelPack = await it.package(pack);

    const to = await variant(it, { format: "cncf" }, "me/docker");
    const back = await variant(it, { format: "docker" }, "me/pack");

    expect(to.model.digest as string).toBe(modelPack);
    expect(back.model.digest as string).toBe(docker);
  });

  test("from: a DDUF goes to ModelPack and back, too", async () => {
    await using it = await bench();
    const dduf = await it.file("pipe.dduf", EMPTY_DDUF);
    const docker = await it.package({ dduf, model: "me/docker" });
    const modelPack = await it.package({ dduf, model: "me/pack", format: "cncf" });

    const to = await variant(it, { format: "cncf" }, "me/docker");
    const back = await variant(it, { format: "docker" }, "me/pack");

    expect(to.model.digest as string).toBe(modelPack);
    expect(back.model.digest as string).toBe(docker);
  });

  test("from: a context size has a field only in Docker's format", async () => {
    await using it = await bench();
    await it.package({ context_size: 512, model: "me/docker" });
    await it.package({ format: "cncf", model: "me/pack" });

    const lost = await variant(it, { format: "cncf" }, "me/docker");
    expect(lost.warnings).toEqual([
      "the packaged context size is left out: ModelPack has no field for it",
    ]);
    for (const request of [{ from: "me/pack" }, { from: "me/docker", format: "cncf" as const }]) {
      const error = await failureOf(it.package({ ...request, context_size: 1 }));
      expect(error).toMatchObject({ code: "usage" });
      expect(error.message).toContain("ModelPack");
    }
    const made = await variant(it, { format: "docker", context_size: 64 }, "me/pack");
    expect(made.config["config"].context_size).toBe(64);
    expect(made.config["config"].gguf["general.architecture"]).toBe("llama");
  });

  test("from: a ModelPack's own words stay, its list of layers is kept up", async () => {
    await using it = await bench();
    const config = {
      descriptor: { createdAt: "2025-01-02T03:04:05Z", family: "x", authors: ["a"] },
      modelfs: { type: "layers", diffIds: [] },
      config: { format: "gguf", capabilities: { reasoning: true } },
    };
    await commitSample(it.store, {
      name: "me/pack",
      config,
      configType: MODELPACK_CONFIG,
      artifactType: "application/vnd.cncf.model.manifest.v1+json",
      layers: [
        { content: "w", mediaType: MODELPACK_WEIGHT, annotations: { [FILE_PATH]: "w.gguf" } },
      ],
    });

    const made = await variant(it, { licenses: [await it.file("LICENSE")] }, "me/pack");

    expect(made.config).toEqual({
      ...config,
      modelfs: { type: "layers", diffIds: made.details.layers.map(({ digest }) => digest) },
    });
    expect(made.details.artifact_type).toBe("application/vnd.cncf.model.manifest.v1+json");
    expect(made.details.layers[1]).toMatchObject({
      media_type: "application/vnd.cncf.model.doc.v1.raw",
      path: "LICENSE",
    });
  });

  test("from: layers without names get those that engines look for", async () => {
    await using it = await bench();
    const layers = [
      { content: "1", mediaType: DOCKER_GGUF },
      { content: "2", mediaType: DOCKER_GGUF },
      { content: "t", mediaType: DOCKER_CHAT_TEMPLATE },
      { content: "a", mediaType: DOCKER_LICENSE },
      { content: "b", mediaType: DOCKER_LICENSE },
    ];
    await commitSample(it.store, { name: "me/old", layers });

    const made = await variant(it, { format: "cncf" }, "me/old");

    expect(made.details.layers.map(({ path }) => path)).toEqual([
      "model-00001-of-00002.gguf",
      "model-00002-of-00002.gguf",
      "chat_template.jinja",
      "LICENSE",
      "LICENSE-2",
    ]);
  });

  test("from: of two templates one is the model's", async () => {
    await using it = await bench();
    await commitSample(it.store, {
      name: "me/old",
      layers: [
        { content: "w", mediaType: DOCKER_GGUF },
        template("../a.jinja"),
        template("b.jinja"),
      ],
    });

    const made = await variant(it, { format: "cncf" }, "me/old");

    expect(made.details.layers.map(({ path }) => path)).toEqual([
      "model.gguf",
      "a.jinja",
      "b.jinja",
    ]);
  });

  test("from: archives of files are not converted", async () => {
    await using it = await bench();
    const mediaType = "application/vnd.docker.ai.vllm.config.tar";
    await commitSample(it.store, { name: "me/old", layers: [{ content: "t", mediaType }] });

    const error = await failureOf(variant(it, { format: "cncf" }, "me/old"));

    expect(error).toMatchObject({ code: "unsupported_model" });
    expect(error.message).toContain("archive of files");
  });

  test("from: what is no model, has no config, or is not there", async () => {
    await using it = await bench();
    await commitSample(it.store, { name: "me/image", configType: "application/x-image" });
    await commitSample(it.store, { name: "me/broken", config: "text" });

    const image = failureOf(variant(it, { context_size: 1 }, "me/image"));
    const broken = failureOf(variant(it, { context_size: 1 }, "me/broken"));
    const missing = failureOf(variant(it, {}, "me/none"));

    expect(await image).toMatchObject({ code: "unsupported_model" });
    expect(await broken).toMatchObject({ code: "invalid_model_file" });
    expect(await missing).toMatchObject({ code: "model_not_found" });
  });

  test("from: weights that are damaged in the store are not converted", async () => {
    await using it = await bench();
    await commitSample(it.store, {
      name: "me/pack",
      config: { descriptor: {}, config: { format: "gguf" } },
      configType: MODELPACK_CONFIG,
      layers: [
        { content: "x", mediaType: MODELPACK_WEIGHT, annotations: { [FILE_PATH]: "w.gguf" } },
      ],
    });

    const error = await failureOf(variant(it, { format: "docker" }, "me/pack"));

    expect(error).toMatchObject({ code: "invalid_model_file" });
    expect(error.message).toContain("`w.gguf`");
  });

  test("from: any function may find the model", async () => {
    await using it = await bench();
    const id = await it.package();

    const found = await it.package(
      { from: "another name", model: "me/other" },
      { findModel: () => it.store.resolve(id) },
    );

    expect(found).toBe(id);
  });

  test("from: a file that is no weights stays a file", async () => {
    await using it = await bench();
    await commitSample(it.store, {
      name: "me/old",
      layers: [
        { content: "w", mediaType: DOCKER_GGUF, annotations: { [FILE_PATH]: "w.gguf" } },
        { content: "f", mediaType: DOCKER_MODEL_FILE, annotations: { [FILE_PATH]: "d/f.py" } },
      ],
    });

    const made = await variant(it, { format: "cncf" }, "me/old");

    expect(made.details.layers[1]).toMatchObject({
      media_type: "application/vnd.cncf.model.weight.config.v1.raw",
      path: "d/f.py",
    });
  });

  test("from: with other sources, or none", async () => {
    await using it = await bench();
    await it.package();

    const both = await failureOf(it.package({ from: "me/model:v1", gguf: PEBBLE }));
    expect(both.code).toBe("usage");
    expect(both.message).toMatch(/--gguf.*--from/);
  });
});
