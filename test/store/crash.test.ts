import { describe, expect, test } from "bun:test";
import { mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseDigest } from "../../src/oci/digest.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { commitSample, filesIn } from "./sample-model.ts";
import { startStoreProcess } from "./store-process.ts";

const never = new AbortController().signal;

describe("a process that is killed", () => {
  test("store: amid a blob, it loses nothing committed and leaves nothing after the next sweep", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "kept" });
    const before = await filesIn(store.root);
    await using writer = await startStoreProcess("write", store.root);

    const [part = ""] = await readdir(join(store.root, "ingest"));
    const whileAlive = await store.prune({ all: true, dryRun: false });
    await writer.kill();
    const afterwards = await store.prune({ all: false, dryRun: false });

    expect(await Bun.file(join(store.root, "ingest", part)).exists()).toBe(false);
    expect([whileAlive.ingests, afterwards.ingests]).toEqual([0, 1]);
    expect(await store.list()).toEqual([model]);
    expect(await filesIn(store.root)).toEqual(before);
  });

  test("store: between its blobs and its commit, its blobs go with the next sweep", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using writer = await startStoreProcess("ingested", store.root);
    const digest = parseDigest(writer.said);

    const whileAlive = await store.prune({ all: true, dryRun: false });
    const isKept = await store.hasBlob(digest);
    await writer.kill();
    const afterwards = await store.prune({ all: true, dryRun: false });

    expect([whileAlive.blobs, isKept, afterwards.blobs, await store.hasBlob(digest)]).toEqual([
      0,
      true,
      1,
      false,
    ]);
    expect(await readdir(join(store.root, "pins"))).toEqual([]);
  });

  test("store: with an open bundle, it protects its blobs until then and not longer", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest, manifest } = await commitSample(store, { name: "a" });
    const weights = manifest.layers[0]?.digest ?? digest;
    await using user = await startStoreProcess("bundle", store.root, "a");

    const events = await store.remove("a", { force: false });
    const isKept = (await store.hasBlob(weights)) && (await Bun.file(user.said).exists());
    await user.kill();
    const report = await store.prune({ all: false, dryRun: false });

    expect(events).toContainEqual({ Deleted: digest });
    expect(isKept).toBe(true);
    expect(report).toMatchObject({ blobs: 3, bundles: 1 });
    expect(await filesIn(store.root)).toEqual(["index.json", "oci-layout"]);
  });

  test("store: with the lock in its hands, it does not keep others from writing", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await commitSample(store, { name: "a" });
    await using holder = await startStoreProcess("lock", join(store.root, "lock"));

    const commit = commitSample(store, { name: "b", weights: "b" });
    await holder.kill();

    expect((await commit).tags).toEqual(["docker.io/ai/b:latest"]);
  });
});

describe("a crash between two steps", () => {
  test("store: while the store is created, it can be created again", async () => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "lock"), "");
    await writeFile(join(directory.path, "oci-layout.tmp"), '{"imageLay');

    const model = await commitSample(Store.open(directory.path), { name: "a" });

    expect(await Store.open(directory.path).list()).toEqual([model]);
  });

  test("store: before the index is renamed, the old one counts and the new one goes", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    await writeFile(join(store.root, "ingest", "index-0123.part"), '{"manifests":[]}');

    expect(await store.list()).toEqual([model]);
    expect((await store.prune({ all: false, dryRun: false })).ingests).toBe(1);
    expect(await filesIn(join(store.root, "ingest"))).toEqual([]);
  });

  test("store: while a bundle is made, the half of it is not taken for one, and goes", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    const { bundles, half, dead } = names(store.root, model.digest.slice(7));
    await mkdir(join(half, "model"), { recursive: true });
    await mkdir(dead, { recursive: true });
    await writeFile(join(dead, "file"), "");

    await using bundle = await store.openBundle(model);
    const report = await store.prune({ all: false, dryRun: false });

    expect((await stat(bundle.model)).size).toBe(bundle.weightBytes);
    expect(report.bundles).toBe(1);
    expect(await readdir(bundles)).toEqual([model.digest.slice(7)]);
  });
});

describe("two processes", () => {
  test("store: that commit and tag at once lose none of it", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);

    const [one, two] = await Promise.all(
      ["one", "two"].map((name) => startStoreProcess("commit", store.root, name)),
    );
    await one?.[Symbol.asyncDispose]();
    await two?.[Symbol.asyncDispose]();

    const tags = (await store.list()).flatMap((model) => model.tags);
    const own = tags.filter((tag) =>
      /^docker\.io\/ai\/(?:one|two)-\d$/.test(tag.replace(":latest", "")),
    );
    expect(own).toHaveLength(20);
    expect(tags.filter((tag) => tag.includes("contended"))).toHaveLength(1);
    expect((await store.verify({ signal: never })).problems).toEqual([]);
    expect(await store.prune({ all: true, dryRun: true })).toMatchObject({
      models: [],
      blobs: 0,
      ingests: 0,
      bundles: 0,
    });
  });
});

function names(root: string, hex: string): { bundles: string; half: string; dead: string } {
  const bundles = join(root, "bundles");
  return { bundles, half: join(bundles, hex), dead: join(bundles, "0123456789abcdef.tmp") };
}
