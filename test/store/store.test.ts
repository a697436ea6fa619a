import { describe, expect, test } from "bun:test";
import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestOf, parseDigest } from "../../src/oci/digest.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_GGUF,
  OCI_INDEX,
  OCI_MANIFEST,
  REF_NAME,
} from "../../src/oci/media-types.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";
import { commitSample, filesIn } from "./sample-model.ts";

const UNKNOWN = parseDigest(`sha256:${"0".repeat(64)}`);
const never = new AbortController().signal;

describe("a store that is not there", () => {
  test("store: every question about a missing store is answered, and creates nothing", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "models"));

    const answers = [
      await store.list(),
      await store.prune({ all: true, dryRun: false }),
      await store.verify({ signal: never }),
      await store.usage(),
      await store.hasBlob(UNKNOWN),
      await store.purge(),
    ];

    expect(answers[0]).toEqual([]);
    expect(await readdir(directory.path)).toEqual([]);
  });

  test.each(["pebble", "sha256:012345678901", UNKNOWN, UNKNOWN.slice(7), `pebble@${UNKNOWN}`])(
    "store: %s is not found in it, with a hint",
    async (name) => {
      await using directory = await tempDir();
      const store = Store.open(join(directory.path, "models"));
      const expected = {
        code: "model_not_found",
        hint: expect.stringContaining("tug list"),
      };

      expect(await failureOf(store.resolve(name))).toMatchObject(expected);
      expect(await failureOf(store.remove(name, { force: true }))).toMatchObject(expected);
      expect(await readdir(directory.path)).toEqual([]);
    },
  );
});

describe("Store.begin", () => {
  test.each([
    ["another program's store", "layout.json"],
    ["somebody's documents", "letter.txt"],
  ])("store: a directory that holds %s is left alone", async (_what, file) => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, file), "{}");
    const store = Store.open(directory.path);

    expect(await failureOf(store.begin())).toMatchObject({ code: "conflict" });
    expect(await failureOf(store.purge())).toMatchObject({ code: "invalid_request" });
    expect(await readdir(directory.path)).toEqual([file]);
  });

  test("store: a layout version from the future is refused", async () => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "oci-layout"), '{"imageLayoutVersion":"2.0.0"}');

    expect((await failureOf(Store.open(directory.path).begin())).message).toContain(
      "its layout version is `2.0.0`",
    );
  });

  test("store: a path that is a file is refused with a reason", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "file");
    await writeFile(file, "");

    expect(await failureOf(Store.open(file).begin())).toMatchObject({ code: "forbidden" });
    expect((await failureOf(Store.open(join(file, "models")).list())).message).toContain(
      "a part of its path is a file",
    );
  });

  test("store: names with spaces and non-ASCII letters are fine", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "Modelle für 日本語"));

    const model = await commitSample(store, { name: "pebble" });

    expect(await store.list()).toEqual([model]);
  });
});

describe("Store.list", () => {
  test("store: models are sorted by display name, then by tag, untagged ones last", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    for (const name of ["zebra", "b/zoo", "ai/apple:v2", "apple:v1", undefined]) {
      await commitSample(store, { ...(name === undefined ? {} : { name }), weights: `w ${name}` });
    }

    const tags = (await store.list()).map((model) => model.tags[0]);

    expect(tags).toEqual([
      "docker.io/ai/apple:v1",
      "docker.io/ai/apple:v2",
      "docker.io/b/zoo:latest",
      "docker.io/ai/zebra:latest",
      undefined,
    ]);
  });

  test("store: a model with several tags is one model", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest } = await commitSample(store, { name: "b" });
    await store.tag(digest, parseReference("a:V1"));

    const [model, ...others] = await store.list();

    expect(model?.tags).toEqual(["docker.io/ai/a:V1", "docker.io/ai/b:latest"]);
    expect(others).toEqual([]);
  });

  test("store: a model whose manifest is damaged does not hide the others", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const bad = await commitSample(store, { name: "bad", weights: "x" });
    await commitSample(store, { name: "good" });
    await damage(store, bad.digest);

    expect((await store.list()).map((model) => model.tags)).toEqual([["docker.io/ai/good:latest"]]);
    expect(await failureOf(store.resolve("bad"))).toMatchObject({ code: "digest_mismatch" });
  });

  test("store: a damaged index is said to be damaged", async () => {
    await using directory = await tempDir();
    await commitSample(Store.open(directory.path), { name: "a" });
    await writeFile(join(directory.path, "index.json"), "{");

    expect((await failureOf(Store.open(directory.path).list())).message).toContain("is damaged");
  });

  test("store: names that other programs gave are understood, and their other entries kept", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { manifestDescriptor } = await commitSample(store);
    const foreign = { mediaType: "x", digest: `sha512:${"0".repeat(128)}`, size: 1 };
    const named = { ...manifestDescriptor, urls: ["u"], annotations: { [REF_NAME]: "short" } };
    await writeIndex(store, [
      named,
      { ...manifestDescriptor, annotations: { [REF_NAME]: "/// no name" } },
      foreign,
    ]);

    expect((await store.resolve("ai/short")).tags).toEqual(["docker.io/ai/short:latest"]);
    await store.tag(manifestDescriptor.digest, parseReference("more"));
    expect(await readManifests(store)).toEqual(expect.arrayContaining([named, foreign]));
  });
});

describe("Store.resolve", () => {
  test.each(["docker.io/ai/pebble:latest", "pebble", " PEBBLE ", "ai/pebble:latest"])(
    "store: %p finds ai/pebble",
    async (name) => {
      await using directory = await tempDir();
      const store = Store.open(directory.path);
      const model = await commitSample(store, { name: "pebble" });
      await commitSample(store, { name: "me/pebble", weights: "other" });

      expect(await store.resolve(name)).toEqual(model);
    },
  );

  test("store: a digest, its digits or the first twelve of them find the model", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store);
    const hex = model.digest.slice(7);

    const found = [];
    for (const name of [model.digest, hex, hex.slice(0, 12), `sha256:${hex.slice(0, 20)}`])
      found.push(await store.resolve(name));

    expect(found).toEqual([model, model, model, model]);
  });

  test("store: twelve hexadecimal letters can be a name", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "abcdefabcdef" });

    expect(await store.resolve("abcdefabcdef")).toEqual(model);
  });

  test("store: the last component finds a model elsewhere if it is the only one with that tag", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "r.example.com/me/pebble:V1" });
    await commitSample(store, { name: "me/pebble", weights: "a" });

    expect(await store.resolve("pebble:V1")).toEqual(model);
    expect(await failureOf(store.resolve("ai/pebble:V1"))).toMatchObject({
      code: "model_not_found",
    });
    await commitSample(store, { name: "you/pebble:V1", weights: "b" });
    expect(await failureOf(store.resolve("pebble:V1"))).toMatchObject({
      code: "conflict",
      message: expect.stringContaining("`you/pebble:V1`"),
    });
  });

  test("store: a digest after a tag is what counts", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const old = await commitSample(store, { name: "pebble", weights: "old" });
    await commitSample(store, { name: "pebble", weights: "new" });

    expect((await store.resolve(`pebble:latest@${old.digest}`)).digest).toBe(old.digest);
    expect((await failureOf(store.resolve(`pebble:latest@${UNKNOWN}`))).message).toContain(
      "it is not in the store",
    );
  });
});

describe("Store.tag", () => {
  test("store: a tag belongs to one model; the one that loses its last tag stays, untagged", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const [a, b] = [
      await commitSample(store, { name: "a" }),
      await commitSample(store, { name: "b", weights: "b" }),
    ];

    await store.tag(b.digest, parseReference("a"));

    expect((await store.resolve(a.digest)).tags).toEqual([]);
    expect((await store.resolve("a")).digest).toBe(b.digest);
    expect(await readManifests(store)).toHaveLength(3);
  });

  test("store: tagging an untagged model replaces its untagged entry", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest } = await commitSample(store);

    await store.tag(digest, parseReference("a"));
    await store.tag(digest, parseReference("a"));

    expect(await readManifests(store)).toHaveLength(1);
  });

  test("store: an unknown model or a name without tag is refused", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest } = await commitSample(store);

    expect(await failureOf(store.tag(UNKNOWN, parseReference("a")))).toMatchObject({
      code: "model_not_found",
    });
    expect((await failureOf(store.tag(digest, parseReference(`a@${digest}`)))).message).toContain(
      "no tag",
    );
  });
});

describe("Store.remove", () => {
  test("store: removing one of two tags keeps the model", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest } = await commitSample(store, { name: "a" });
    await store.tag(digest, parseReference("b"));

    const events = await store.remove("a", { force: false });

    expect(events).toEqual([{ Untagged: "docker.io/ai/a:latest" }]);
    expect((await store.resolve("b")).digest).toBe(digest);
  });

  test("store: removing the last tag removes the model and what nobody shares with it", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const a = await commitSample(store, { name: "a", weights: "a" });
    const b = await commitSample(store, { name: "b", weights: "b" });

    const events = await store.remove("a", { force: false });

    expect(events).toEqual([{ Untagged: "docker.io/ai/a:latest" }, { Deleted: a.digest }]);
    expect((await store.verify({ signal: never })).problems).toEqual([]);
    expect((await readdir(join(store.root, "blobs", "sha256"))).length).toBe(
      b.manifest.layers.length + 2,
    );
  });

  test("store: a digest with several tags is removed only with force", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest } = await commitSample(store, { name: "a" });
    await store.tag(digest, parseReference("b"));

    expect(await failureOf(store.remove(digest, { force: false }))).toMatchObject({
      code: "conflict",
      hint: expect.stringContaining("--force"),
    });
    expect(await store.remove(digest.slice(7, 19), { force: true })).toEqual([
      { Untagged: "docker.io/ai/a:latest" },
      { Untagged: "docker.io/ai/b:latest" },
      { Deleted: digest },
    ]);
    expect(await readdir(join(store.root, "blobs", "sha256"))).toEqual([]);
  });

  test("store: a name is not completed, since removal cannot be undone", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "me/pebble" });

    const failure = await failureOf(store.remove("pebble", { force: true }));

    expect(failure).toMatchObject({
      code: "model_not_found",
      hint: "Give its whole name if you mean `me/pebble`.",
    });
    expect(await store.list()).toEqual([model]);
  });

  test("store: a model with a damaged manifest can be removed", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest } = await commitSample(store, { name: "a" });
    await damage(store, digest);

    await store.remove("a", { force: false });

    expect(await readdir(join(store.root, "blobs", "sha256"))).toEqual([]);
  });

  test("store: content of image indexes that other programs added survives", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const inner = await commitSample(store, { weights: "inner" });
    await commitSample(store, { name: "a", weights: "a" });
    const index = encodeCanonical({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [inner.manifestDescriptor],
    });
    const digest = digestOf(index);
    await writeFile(store.blobPath(digest), index);
    const entries = (await readManifests(store)).filter(
      (entry) => entry["digest"] !== inner.digest,
    );
    await writeIndex(store, [...entries, { mediaType: OCI_INDEX, digest, size: index.length }]);

    await store.remove("a", { force: false });

    expect(await store.hasBlob(inner.manifest.layers[0]?.digest ?? UNKNOWN)).toBe(true);
    expect(await store.list()).toEqual([]);
  });
});

describe("Store.prune", () => {
  test("store: without `all` untagged models stay, with it they go; a rehearsal changes nothing", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { digest, sizeBytes } = await commitSample(store);
    const before = await filesIn(store.root);

    const kept = await store.prune({ all: false, dryRun: false });
    const rehearsed = await store.prune({ all: true, dryRun: true });

    expect(kept).toEqual({ models: [], blobs: 0, ingests: 0, bundles: 0, freedBytes: 0 });
    expect(rehearsed).toEqual({
      models: [digest],
      blobs: 3,
      ingests: 0,
      bundles: 0,
      freedBytes: sizeBytes,
    });
    expect(await filesIn(store.root)).toEqual(before);
    expect(await store.prune({ all: true, dryRun: false })).toEqual(rehearsed);
    expect(await filesIn(store.root)).toEqual(["index.json", "oci-layout"]);
  });

  test("store: bundles of removed models go, files whose names are no digests stay", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    await (await store.openBundle(model))[Symbol.asyncDispose]();
    const note = join("blobs", "sha256", "README");
    await writeFile(join(store.root, note), "");
    await writeIndex(store, []);

    const report = await store.prune({ all: false, dryRun: false });

    expect(report).toMatchObject({ blobs: 3, bundles: 1 });
    expect(await filesIn(store.root)).toEqual([note, "index.json", "oci-layout"]);
  });

  test("store: while a manifest is damaged no blob is swept, and it is said which model to remove", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const bad = await commitSample(store, { name: "bad", weights: "bad" });
    await damage(store, bad.digest);

    expect(await failureOf(store.prune({ all: true, dryRun: false }))).toMatchObject({
      code: "conflict",
      hint: expect.stringContaining("tug rm bad"),
    });
    expect(await store.hasBlob(bad.manifest.layers[0]?.digest ?? UNKNOWN)).toBe(true);
  });
});

describe("what a manifest says besides its layers", () => {
  test("store: does not keep the store from being pruned", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    {
      await using transaction = await store.begin();
      const config = {
        mediaType: DOCKER_CONFIG_V01,
        ...(await transaction.writeBlob(encodeCanonical({}))),
      };
      const manifest = { schemaVersion: 2, config, layers: [config], blobs: [1], manifests: {} };
      await transaction.commit(encodeCanonical(manifest), parseReference("odd"));
    }

    expect(await store.prune({ all: false, dryRun: false })).toMatchObject({ blobs: 0 });
    expect((await store.verify({ signal: never })).problems).toEqual([]);
  });
});

describe("Store.purge", () => {
  test("store: everything of the store goes, other files stay, and the store can be used again", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    await (await store.openBundle(model))[Symbol.asyncDispose]();
    await writeFile(join(store.root, "mine.txt"), "");

    await store.purge();

    expect(await filesIn(store.root)).toEqual(["mine.txt"]);
    expect(await store.list()).toEqual([]);
  });

  test("store: a purged store is purged again without complaint", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await commitSample(store);

    await store.purge();
    await store.purge();

    expect(await commitSample(store, { name: "a" })).toEqual(await store.resolve("a"));
  });

  test("store: neither a running model nor one being written is purged", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    const bundle = await store.openBundle(model);

    expect(await failureOf(store.purge())).toMatchObject({ code: "model_in_use" });
    await bundle[Symbol.asyncDispose]();
    {
      await using _transaction = await store.begin();
      expect(await failureOf(store.purge())).toMatchObject({ code: "conflict" });
    }
    expect(await store.list()).toEqual([model]);
  });
});

describe("Store.verify", () => {
  test("store: a whole store has no problems, and progress ends at the total", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { sizeBytes } = await commitSample(store, { name: "a" });
    const seen: [number, number][] = [];

    const report = await store.verify({
      signal: never,
      onBytes: (done, total) => seen.push([done, total]),
    });

    expect(report).toEqual({ blobs: 3, bytes: sizeBytes, problems: [] });
    expect(seen.at(-1)).toEqual([sizeBytes, sizeBytes]);
  });

  test("store: what is missing, cut, or changed is found, with the models that need it", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const layers = ["missing", "cut", "changed"].map((content) => ({
      content,
      mediaType: DOCKER_GGUF,
    }));
    const { digest, manifest } = await commitSample(store, { name: "a", layers });
    await store.tag(digest, parseReference("b"));
    const [missing = UNKNOWN, cut = UNKNOWN, changed = UNKNOWN] = manifest.layers.map(
      (layer) => layer.digest,
    );
    await Bun.file(store.blobPath(missing)).delete();
    await damage(store, cut, "cu");
    await damage(store, changed, "CHANGED");

    const { problems } = await store.verify({ signal: never });

    const models = ["docker.io/ai/a:latest", "docker.io/ai/b:latest"];
    expect(problems).toEqual(
      expect.arrayContaining([
        { digest: missing, models, problem: "missing" },
        { digest: cut, models, problem: "wrong size" },
        { digest: changed, models, problem: "wrong digest" },
      ]),
    );
    expect(problems).toHaveLength(3);
  });

  test("store: a blob that cannot be read is a problem, not the end", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { manifest } = await commitSample(store);
    const digest = manifest.config.digest;
    await Bun.file(store.blobPath(digest)).delete();
    await mkdir(store.blobPath(digest));
    const size = (await stat(store.blobPath(digest))).size;

    const { problems } = await store.verify({ signal: never });

    expect(problems).toEqual([
      expect.objectContaining({
        digest,
        problem: size === manifest.config.size ? "unreadable" : "wrong size",
      }),
    ]);
  });

  test("store: verification can be cancelled", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await commitSample(store);

    expect(await failureOf(store.verify({ signal: AbortSignal.abort() }))).toMatchObject({
      name: "AbortError",
    });
  });
});

describe("Store.usage", () => {
  test("store: bytes that models share count once, and links of bundles not at all", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const shared = { content: "shared ".repeat(1000), mediaType: DOCKER_GGUF };
    const a = await commitSample(store, { name: "a", layers: [shared] });
    await commitSample(store, {
      name: "b",
      layers: [shared, { content: "b", mediaType: DOCKER_GGUF }],
    });
    const before = await store.usage();
    await (await store.openBundle(a))[Symbol.asyncDispose]();

    const after = await store.usage();

    const configSize = a.manifest.config.size;
    expect(before.models.map(({ sharedBytes }) => sharedBytes)).toEqual([
      7000 + configSize,
      7000 + configSize,
    ]);
    expect(before.totalBytes).toBeLessThan(10_000);
    expect(after.totalBytes - before.totalBytes).toBeLessThan(1000);
    expect(after.reclaimableBytes).toBe(0);
  });
});

describe("Store.readBlob", () => {
  test("store: size and digest are checked, and the limit", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const { manifest } = await commitSample(store);
    const { config } = manifest;

    expect(JSON.parse(new TextDecoder().decode(await store.readBlob(config)))).toEqual({
      config: { format: "gguf" },
    });
    expect(await failureOf(store.readBlob(config, { maxBytes: 1 }))).toMatchObject({
      code: "request_too_large",
    });
    expect(await failureOf(store.readBlob({ ...config, size: 1 }))).toMatchObject({
      code: "digest_mismatch",
    });
    expect(await failureOf(store.readBlob({ digest: UNKNOWN, size: 1 }))).toMatchObject({
      code: "blob_not_found",
    });
    await damage(store, config.digest);
    expect(await failureOf(store.readBlob(config))).toMatchObject({ code: "digest_mismatch" });
  });
});

/** Flips the bytes of a blob, or replaces them. */
async function damage(store: Store, digest: Digest, text?: string): Promise<void> {
  const path = store.blobPath(digest);
  const bytes = await readFile(path);
  await chmod(path, 0o644);
  await writeFile(path, text ?? bytes.map((byte) => byte ^ 1));
}

async function readManifests(store: Store): Promise<Record<string, unknown>[]> {
  return JSON.parse(await readFile(join(store.root, "index.json"), "utf8")).manifests;
}

async function writeIndex(store: Store, manifests: readonly unknown[]): Promise<void> {
  await writeFile(
    join(store.root, "index.json"),
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, manifests }),
  );
}
