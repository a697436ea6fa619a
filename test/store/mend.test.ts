import { describe, expect, test } from "bun:test";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { packageModel } from "../../src/models/package.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const PEBBLE = join(import.meta.dir, "../../src/models/pebble.gguf");
const OPTIONS = { signal: new AbortController().signal, sourceDateEpoch: "" };

/** Overwrites bytes in the middle of a blob, which keeps its size. */
async function damage(path: string): Promise<void> {
  const bytes = await readFile(path);
  const middle = Math.floor(bytes.length / 2);
  bytes.fill(0, middle, middle + 4);
  await chmod(path, 0o644);
  await writeFile(path, bytes);
}

function packaged(store: Store, model: string): Promise<{ id: string }> {
  return packageModel(store, { model, gguf: PEBBLE }, OPTIONS);
}

async function problems(store: Store): Promise<number> {
  return (await store.verify({ signal: OPTIONS.signal })).problems.length;
}

describe("a damaged blob", () => {
  test("is mended by packaging the same file again, and its bundle with it", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "models"));
    await packaged(store, "a/m");
    const model = await store.resolve("a/m");
    await (await store.openBundle(model))[Symbol.asyncDispose]();
    await damage(store.blobPath(model.manifest.layers[0]?.digest ?? model.digest));
    const before = await problems(store);

    await packaged(store, "b/m");

    expect([before, await problems(store)]).toEqual([1, 0]);
    await using bundle = await store.openBundle(await store.resolve("a/m"));
    expect(await readFile(bundle.model)).toEqual(await readFile(PEBBLE));
  });

  test("does not keep its model from being removed, be it the manifest", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "models"));
    await packaged(store, "a/m");
    const { digest } = await store.resolve("a/m");
    await damage(store.blobPath(digest));

    const found = await store.find("a/m");
    const events = await store.remove("a/m", { force: false });

    expect(found.digest).toBe(digest);
    expect(events.at(-1)).toEqual({ Deleted: digest });
    expect(await store.list()).toEqual([]);
  });
});

describe("prune of untagged models", () => {
  test("leaves those that another program has given a name of its own", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "models"));
    await packaged(store, "a/m");
    const path = join(store.root, "index.json");
    const index = JSON.parse(await readFile(path, "utf8")) as {
      manifests: Record<string, unknown>[];
    };
    const [entry] = index.manifests;
    const nameless = { ...entry, annotations: {} };
    await writeFile(path, JSON.stringify({ ...index, manifests: [entry, nameless] }));

    const { models } = await store.prune({ all: true, dryRun: false });

    expect(models).toEqual([]);
    expect((await store.list()).map(({ tags }) => tags)).toEqual([["docker.io/a/m:latest"]]);
  });
});
