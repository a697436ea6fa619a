import { describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { inspectModel, listModels } from "../../src/models/inspect.ts";
import { packageModel } from "../../src/models/package.ts";
import { Store } from "../../src/store/store.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const signal = new AbortController().signal;

describe("listModels", () => {
  test("inspect: a store that is not there has no models", async () => {
    expect(await listModels(Store.open("/nowhere"))).toEqual([]);
  });

  test("inspect: models are listed with what they are", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const created = "2026-01-02T03:04:05Z";
    await packageModel(store, { model: "me/b", gguf: PEBBLE, created }, { signal });
    await packageModel(store, { model: "me/a", gguf: PEBBLE, format: "cncf" }, { signal });

    const models = await listModels(store);

    expect(models.map(({ tags }) => tags)).toEqual([
      ["docker.io/me/a:latest"],
      ["docker.io/me/b:latest"],
    ]);
    expect(models[1]?.created).toBe(1_767_323_045);
    expect(models[1]?.size_bytes).toBeGreaterThan(3_000_768);
    expect(models.map(({ config }) => config.quantization)).toEqual(["Q8_0", "Q8_0"]);
  });

  test("inspect: a model without its config is listed, so that it can be removed", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await packageModel(store, { model: "me/a", gguf: PEBBLE }, { signal });
    const { manifest } = await store.resolve("me/a");
    await rm(store.blobPath(manifest.config.digest));

    const [model] = await listModels(store);

    expect(model?.tags).toEqual(["docker.io/me/a:latest"]);
    expect(model?.config).toMatchObject({ format: "gguf", parameters: null, gguf: null });
    expect((await inspectModel(store, "me/a")).layers).toHaveLength(1);
  });
});
