import { describe, expect, test } from "bun:test";
import { readFile, readdir, truncate } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BUILTIN_NAME, builtinFile, ensureBuiltin, isBuiltin } from "../../src/models/builtin.ts";
import { packageModel } from "../../src/models/package.ts";
import { Store } from "../../src/store/store.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const signal = new AbortController().signal;

describe("builtinFile", () => {
  test("builtin: is extracted into the cache once", async () => {
    await using directory = await tempDir();
    const cache = join(directory.path, "deep", "cache");

    const paths = await Promise.all([builtinFile(cache), builtinFile(cache), builtinFile(cache)]);

    expect(new Set(paths).size).toBe(1);
    expect(await readdir(cache)).toHaveLength(1);
    expect(dirname(paths[0] ?? "")).toBe(cache);
    expect(await readFile(paths[0] ?? "")).toEqual(await readFile(PEBBLE));
  });

  test("builtin: a damaged extract is replaced", async () => {
    await using directory = await tempDir();
    const path = await builtinFile(directory.path);
    await truncate(path, 1000);

    expect(await builtinFile(directory.path)).toBe(path);
    expect(await readFile(path)).toEqual(await readFile(PEBBLE));
  });
});

describe("ensureBuiltin", () => {
  test("builtin: appears in the store when it is first asked for", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    expect(await store.list()).toEqual([]);

    const model = await ensureBuiltin(store, { signal });

    expect(model.tags).toEqual(["docker.io/ai/pebble:latest"]);
    expect((await store.list()).map(({ digest }) => digest)).toEqual([model.digest]);
    expect(await ensureBuiltin(store, { signal })).toEqual(model);
  });

  test("builtin: a model that has its name is left alone", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { id } = await packageModel(
      store,
      { model: BUILTIN_NAME, gguf: FIRST_SHARD },
      { signal },
    );

    expect((await ensureBuiltin(store, { signal })).digest as string).toBe(id);
  });

  test("builtin: whoever asks first at the same time, there is one", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);

    const models = await Promise.all([1, 2, 3].map(() => ensureBuiltin(store, { signal })));

    expect(new Set(models.map(({ digest }) => digest)).size).toBe(1);
    expect(await store.list()).toHaveLength(1);
  });
});

describe("isBuiltin", () => {
  test.each(["pebble", "ai/pebble", "pebble:latest", "docker.io/ai/pebble", "AI/Pebble"])(
    "builtin: %s is its name",
    (name) => {
      expect(isBuiltin(name)).toBe(true);
    },
  );

  test.each(["me/pebble", "pebble:v2", "ghcr.io/ai/pebble", "", "/pebble", "eaabd86dc398"])(
    "builtin: %j is not its name",
    (name) => {
      expect(isBuiltin(name)).toBe(false);
    },
  );
});
