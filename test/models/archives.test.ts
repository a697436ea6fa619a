import { describe, expect, test } from "bun:test";
import { appendFile, chmod, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import type { Progress, Warning } from "../../src/api/progress.ts";
import { AppError } from "../../src/errors.ts";
import { readDigests } from "../../src/models/archive-digests.ts";
import { ArchiveLimits } from "../../src/models/archive-limits.ts";
import { findModels } from "../../src/models/archive-models.ts";
import { decompressed } from "../../src/archive/decompress.ts";
import { type ExportSelection, exportModels } from "../../src/models/export.ts";
import { importModels } from "../../src/models/import.ts";
import { packageModel } from "../../src/models/package.ts";
import { type TarEntry, TAR_END, encodeTarHeader, paddingOf } from "../../src/archive/tar.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { Store, type StoredModel } from "../../src/store/store.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";

const signal = new AbortController().signal;

async function* chunked(bytes: Uint8Array, size = 10_007): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size)
    yield bytes.subarray(start, start + size);
}

type Files = readonly (readonly [name: string, body: Uint8Array])[];

function encode(files: Files): Buffer {
  const parts = files.flatMap(([name, body]) => [
    encodeTarHeader({ name, size: body.length, kind: "file" }),
    body,
    new Uint8Array(paddingOf(body.length)),
  ]);
  return Buffer.concat([...parts, TAR_END]);
}

async function exported(store: Store, selection: ExportSelection): Promise<Buffer> {
  const { sizeBytes, chunks } = await exportModels(store, selection, { signal });
  const archive = Buffer.concat(await Array.fromAsync(chunks));
  expect(archive.length).toBe(sizeBytes);
  return archive;
}

function imported(
  store: Store,
  archive: Uint8Array,
  onProgress?: (event: Progress | Warning) => void,
): Promise<StoredModel[]> {
  return importModels(store, chunked(archive), {
    signal,
    ...(onProgress === undefined ? {} : { onProgress }),
  });
}

async function failure(work: Promise<unknown>): Promise<AppError> {
  const thrown = await work.catch((error: unknown) => error);
  if (thrown instanceof AppError) return thrown;
  throw new Error(`no AppError but ${String(thrown)}`);
}

/** Two models of the same weights, which differ in what is around them, and one of others. */
async function stores(): Promise<
  AsyncDisposable & { path: string; store: Store; other: Store; one: string; two: string }
> {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "store"));
  const make = (model: string, gguf: string, context?: number) =>
    packageModel(
      store,
      { model, gguf, ...(context === undefined ? {} : { context_size: context }) },
      { signal },
    );
  const { id: one } = await make("me/one:v1", PEBBLE);
  const { id: two } = await make("me/two:v1", PEBBLE, 512);
  await make("me/shards", FIRST_SHARD);
  return {
    path: directory.path,
    store,
    other: Store.open(join(directory.path, "other")),
    one,
    two,
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

function namesIn(archive: Uint8Array): string[] {
  const { stdout } = Bun.spawnSync(["tar", "-tf", "-"], { stdin: archive });
  return stdout.toString().trim().split("\n");
}

const blobName = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;

const blobsOf = ({ manifest }: StoredModel): string[] =>
  [manifest.config, ...manifest.layers].map(({ digest }) => digest);

async function* failing(): AsyncGenerator<Uint8Array> {
  yield gzipSync("x").subarray(0, 12);
  throw new AppError("cancelled", "cancelled");
}

const CONFIG = new TextEncoder().encode('{"config":{"format":"gguf"}}');
const LAYER = new TextEncoder().encode("weights");
const describeBlob = (bytes: Uint8Array) => ({ digest: digestOf(bytes), size: bytes.length });
const manifestOf = (mediaType: string): Uint8Array =>
  encodeCanonical({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType, ...describeBlob(CONFIG) },
    layers: [{ mediaType: "application/vnd.docker.ai.gguf.v3", ...describeBlob(LAYER) }],
  });
const MODEL = manifestOf("application/vnd.docker.ai.model.config.v0.1+json");
const IMAGE = manifestOf("application/vnd.oci.image.config.v1+json");
const blob = (bytes: Uint8Array): readonly [string, Uint8Array] => [
  blobName(digestOf(bytes)),
  bytes,
];
const BLOBS = [blob(CONFIG), blob(LAYER)];
const entryOf = (bytes: Uint8Array, name?: string, mediaType?: string) => ({
  mediaType: mediaType ?? "application/vnd.oci.image.manifest.v1+json",
  ...describeBlob(bytes),
  ...(name === undefined ? {} : { annotations: { "org.opencontainers.image.ref.name": name } }),
});
const index = (...manifests: unknown[]): readonly [string, Uint8Array] => [
  "index.json",
  encodeCanonical({ schemaVersion: 2, manifests }),
];
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

async function importFiles(
  files: Files,
  onProgress?: (event: Progress | Warning) => void,
): Promise<StoredModel[]> {
  await using directory = await tempDir();
  return await imported(Store.open(join(directory.path, "store")), encode(files), onProgress);
}

describe("several models", () => {
  test("archive: they come back as they were, and what they share is in it once", async () => {
    await using it = await stores();

    const archive = await exported(it.store, { models: ["me/one:v1", "me/two:v1", it.one] });
    const models = await imported(it.other, archive);

    const names = namesIn(archive);
    expect(names).toHaveLength(new Set(names).size);
    expect(names).not.toContain("manifest.json");
    expect(models.map(({ digest }) => digest as string)).toEqual([it.one, it.two]);
    expect(models).toEqual([
      await it.store.resolve("me/one:v1"),
      await it.store.resolve("me/two:v1"),
    ]);
    expect((await it.other.verify({ signal })).problems).toEqual([]);
  });

  test("archive: one that is damaged keeps all of them out", async () => {
    await using it = await stores();
    const archive = await exported(it.store, { models: ["me/one:v1", "me/shards"] });
    const at = archive.length - 5000;
    archive[at] = (archive[at] ?? 0) ^ 1;

    expect((await failure(imported(it.other, archive))).code).toBe("digest_mismatch");

    expect(await it.other.list()).toEqual([]);
    expect(await readdir(join(it.other.root, "blobs", "sha256"))).toEqual([]);
  });

  testIf(Bun.which("skopeo") !== null, "there is no skopeo here")(
    "archive: skopeo reads each by its name, and what skopeo writes is imported",
    async () => {
      await using it = await stores();
      const file = join(it.path, "m.tar");
      const again = join(it.path, "again.tar");
      await writeFile(file, await exported(it.store, { models: ["me/one:v1", "me/two:v1"] }));

      const source = `oci-archive:${file}:docker.io/me/two:v1`;
      const target = `oci-archive:${again}:docker.io/me/two:v1`;
      const copy = Bun.spawnSync(["skopeo", "--insecure-policy", "copy", source, target]);

      expect(copy.stderr.toString()).toBe("");
      const [model] = await imported(it.other, await Bun.file(again).bytes());
      expect(model?.digest as string).toBe(it.two);
      expect(model?.tags).toEqual(["docker.io/me/two:v1"]);
    },
  );
});

describe("what the other side has is left out", () => {
  test("archive: blobs that are named stay out, and come from the store they are imported into", async () => {
    await using it = await stores();
    const one = await it.store.resolve("me/one:v1");
    await imported(it.other, await exported(it.store, { models: ["me/one:v1"] }));

    const whole = await exported(it.store, { models: ["me/two:v1"] });
    const archive = await exported(it.store, { models: ["me/two:v1"], have: blobsOf(one) });
    const [model] = await imported(it.other, archive);

    expect(archive.length).toBeLessThan(whole.length / 10);
    expect(model).toEqual(await it.store.resolve("me/two:v1"));
  });

  test("archive: the id of a model stands for its blobs", async () => {
    await using it = await stores();

    const archive = await exported(it.store, { models: ["me/two:v1"], have: [it.one] });

    const two = await it.store.resolve("me/two:v1");
    // The manifests are always there: they say what the archive is about.
    expect(namesIn(archive)).toContain(blobName(it.two));
    expect(namesIn(archive)).toContain(blobName(two.manifest.config.digest));
    for (const { digest } of two.manifest.layers)
      expect(namesIn(archive)).not.toContain(blobName(digest));
  });

  test("archive: without them nothing is imported, and the error says what is missing", async () => {
    await using it = await stores();
    const archive = await exported(it.store, {
      models: ["me/shards", "me/two:v1"],
      have: [it.one],
    });

    const error = await failure(imported(it.other, archive));

    expect(error.code).toBe("blob_not_found");
    expect(error.message).toContain("cannot import `me/two:v1`: `sha256:");
    expect(error.hint).toContain("--missing-from");
    expect(await it.other.list()).toEqual([]);
  });

  test.each([
    ["plain", (bytes: Buffer) => bytes],
    ["gzip", (bytes: Buffer) => gzipSync(bytes, { level: 1 })],
    ["zstd", (bytes: Buffer) => zstdCompressSync(bytes)],
  ])("archive: an earlier one tells what it had (%s)", async (_, compress) => {
    await using it = await stores();
    const file = join(it.path, "earlier.tar");
    await writeFile(file, compress(await exported(it.store, { models: ["me/one:v1"] })));

    const digests = await readDigests(file, { signal });

    const one = await it.store.resolve("me/one:v1");
    expect([...digests].toSorted()).toEqual([it.one, ...blobsOf(one)].toSorted());
  });

  test("archive: one that left blobs out itself still names them", async () => {
    await using it = await stores();
    const file = join(it.path, "second.tar");
    await writeFile(file, await exported(it.store, { models: ["me/two:v1"], have: [it.one] }));

    const digests = await readDigests(file, { signal });

    expect([...digests]).toEqual(
      expect.arrayContaining(blobsOf(await it.store.resolve("me/two:v1"))),
    );
  });

  test("archive: one that is cut tells nothing: what is missing would be left out", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "cut.tar");
    const header = { name: blobName(digestOf(LAYER)), size: 8 * 2 ** 20, kind: "file" } as const;
    await writeFile(file, Buffer.concat([encodeTarHeader(header), new Uint8Array(2 ** 20)]));

    expect(await failure(readDigests(file, { signal }))).toMatchObject({
      code: "invalid_model_file",
      message: expect.stringContaining("ends within an entry"),
    });
  });

  test("archive: any text tells by the digests in it", async () => {
    await using it = await stores();
    const file = join(it.path, "list.json");
    await writeFile(file, JSON.stringify([{ id: it.one }, { id: `${it.two}0` }, "sha256:12"]));

    expect([...(await readDigests(file, { signal }))]).toEqual([it.one]);
  });

  test("archive: a pipe tells, too", async () => {
    await using it = await stores();
    const fifo = join(it.path, "fifo");
    Bun.spawnSync(["mkfifo", fifo]);

    const digests = readDigests(fifo, { signal });
    await appendFile(fifo, `${it.one}\n`);

    expect([...(await digests)]).toEqual([it.one]);
  });

  test("archive: what tells nothing is a mistake", async () => {
    await using it = await stores();
    const file = join(it.path, "notes.txt");
    await writeFile(file, "nothing");

    expect((await failure(readDigests(file, { signal }))).code).toBe("invalid_request");
    const missing = await failure(readDigests(join(it.path, "no"), { signal }));
    expect(missing.code).toBe("not_found");
    expect((await failure(readDigests(it.path, { signal }))).message).toContain("is a directory");
  });
});

describe("compressed archives", () => {
  test.each([
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ] as const)("archive: %s is taken as it is", async (_, compress) => {
    await using it = await stores();
    const archive = compress(await exported(it.store, { models: ["me/one:v1", "me/shards"] }));

    const models = await imported(it.other, archive);

    expect(models.map(({ tags }) => tags)).toEqual([
      ["docker.io/me/one:v1"],
      ["docker.io/me/shards:latest"],
    ]);
  });

  test.each([
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ] as const)("archive: %s that is cut is refused and leaves nothing", async (_, compress) => {
    await using it = await stores();
    const archive = compress(await exported(it.store, { models: ["me/one:v1"] }));

    for (const share of [0.3, 0.9]) {
      const cut = archive.subarray(0, Math.floor(archive.length * share));
      expect((await failure(imported(it.other, cut))).code).toBe("invalid_model_file");
    }
    expect(await readdir(join(it.other.root, "blobs", "sha256"))).toEqual([]);
  });

  test("archive: damage in the compression is said", async () => {
    const bytes = gzipSync(Buffer.alloc(100_000, "abc"));
    bytes.fill(0xff, 60, 90);

    const error = await failure(Array.fromAsync(decompressed(chunked(bytes))));

    expect(error.message).toContain("cannot be decompressed");
  });

  test("archive: what the source fails with is not blamed on the compression", async () => {
    expect((await failure(Array.fromAsync(decompressed(failing())))).code).toBe("cancelled");
  });

  test.each([
    ["bzip2", "425a6839314159"],
    ["xz", "fd377a585a000004"],
    ["zip", "504b030414000000"],
  ])("archive: %s is refused by its name", async (name, hex) => {
    const error = await failure(Array.fromAsync(decompressed(chunked(Buffer.from(hex, "hex"), 2))));

    expect(error.message).toBe(`cannot read the archive: it is ${name}`);
  });

  test("archive: what unpacks to absurdly much is cut off", async () => {
    const limits = new ArchiveLimits({ freeBytes: 1_000_000 });
    const bomb = chunked(gzipSync(Buffer.alloc(50_000_000)));

    const unpacked = limits.unpacked(decompressed(limits.packed(bomb)));
    let bytes = 0;
    const read = async (): Promise<void> => {
      for await (const chunk of unpacked) bytes += chunk.length;
    };

    expect((await failure(read())).message).toContain("unpacks to more than");
    expect(bytes).toBeLessThan(20_000_000);
  });

  test("archive: what is no part of a model is passed over only up to a bound", () => {
    const limits = new ArchiveLimits({ maxIgnoredBytes: 1000 });
    const entry = { name: "x", size: 600, kind: "file" } as TarEntry;

    limits.ignore(entry);

    expect(() => limits.ignore(entry)).toThrow("most of it is no part of a model");
  });
});

describe("hostile and odd archives", () => {
  test("archive: an index within the index gives its models, without a name for several", async () => {
    const inner = encodeCanonical({
      schemaVersion: 2,
      manifests: [entryOf(MODEL), { ...entryOf(IMAGE), digest: `sha256:${"0".repeat(64)}` }],
    });
    const type = "application/vnd.oci.image.index.v1+json";

    const models = await importFiles([
      ...BLOBS,
      blob(MODEL),
      blob(inner),
      index(entryOf(inner, "docker.io/me/m:v1", type)),
    ]);

    expect(models.map(({ digest, tags }) => [digest, tags])).toEqual([
      [digestOf(MODEL), ["docker.io/me/m:v1"]],
    ]);
  });

  test("archive: what is no model among models is left out with a warning", async () => {
    const warnings: string[] = [];

    const models = await importFiles(
      [...BLOBS, blob(MODEL), blob(IMAGE), index(entryOf(MODEL, "me/m:v1"), entryOf(IMAGE))],
      (event) => event.type === "warning" && warnings.push(event.message),
    );

    expect(models.map(({ tags }) => tags)).toEqual([["docker.io/me/m:v1"]]);
    expect(warnings).toEqual([
      "left out of the import: `application/vnd.oci.image.config.v1+json` is no model",
    ]);
  });

  test("archive: names that are none are no tags", async () => {
    const [model] = await importFiles([
      ...BLOBS,
      blob(MODEL),
      index(entryOf(MODEL, "latest"), entryOf(MODEL, "../x/y"), entryOf(MODEL, "me/ok:v1")),
    ]);

    expect(model?.tags).toEqual(["docker.io/me/ok:v1"]);
  });

  test("archive: images of docker save are called what they are", async () => {
    const list = text(JSON.stringify([{ Config: "x.json", RepoTags: ["a:b"], Layers: [] }]));

    const error = await failure(
      importFiles([...BLOBS, blob(IMAGE), index(entryOf(IMAGE)), ["manifest.json", list]]),
    );

    expect(error.code).toBe("unsupported_model");
    expect(error.message).toContain("docker save");
  });

  test("archive: the same blob twice is no harm, two indexes are", async () => {
    const files: Files = [...BLOBS, ...BLOBS, blob(MODEL), index(entryOf(MODEL))];

    expect(await importFiles(files)).toHaveLength(1);

    const error = await failure(importFiles([...files, index(entryOf(IMAGE))]));
    expect(error.message).toContain("two files `index.json`");
  });

  test("archive: a blob of the wrong bytes is refused though a good one follows", async () => {
    const [name, bytes] = blob(LAYER);
    const wrong = bytes.map((byte) => byte ^ 1);
    const files: Files = [[name, wrong], ...BLOBS, blob(MODEL), index(entryOf(MODEL))];

    expect((await failure(importFiles(files))).code).toBe("digest_mismatch");
  });

  test.each([
    ["a symbolic link", "2"],
    ["a hard link", "1"],
  ])("archive: a blob that is %s is refused", async (_, type) => {
    await using directory = await tempDir();
    const archive = encode([[blobName(digestOf(LAYER)), new Uint8Array(0)]]);
    archive[156] = type.charCodeAt(0);
    archive.write("/etc/passwd", 157, "latin1");
    archive.fill(" ", 148, 156);
    const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    archive.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");

    const error = await failure(imported(Store.open(join(directory.path, "s")), archive));

    expect(error.message).toContain("a blob in it is a link");
  });

  test.each([
    ["a size beyond all disks", { size: 8 * 2 ** 40, kind: "file" } as const, "it ends within"],
    ["a path that leads out", { size: 0, kind: "file", name: "a/../../b" } as const, "leads out"],
  ])("archive: %s is refused", async (_, header, message) => {
    await using directory = await tempDir();
    const name = blobName(digestOf(LAYER));
    const archive = Buffer.concat([encodeTarHeader({ name, ...header }), LAYER]);

    const error = await failure(imported(Store.open(join(directory.path, "s")), archive));

    expect(error.message).toContain(message);
    expect(await readdir(join(directory.path, "s", "blobs", "sha256"))).toEqual([]);
  });

  test("archive: entries without end are refused", async () => {
    await using directory = await tempDir();
    const header = encodeTarHeader({ name: "n", size: 0, kind: "file" });
    const archive = Buffer.concat([...Array.from({ length: 40_001 }, () => header), TAR_END]);

    const error = await failure(imported(Store.open(join(directory.path, "s")), archive));

    expect(error.message).toContain("more than 40000 entries");
  });

  test("archive: a blob of another size than a manifest says keeps all models out", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "s"));
    const lying = Buffer.from(
      Buffer.from(MODEL)
        .toString()
        .replace(`"size":${LAYER.length}`, `"size":${LAYER.length + 1}`),
    );
    const files: Files = [
      ...BLOBS,
      blob(MODEL),
      blob(lying),
      index(entryOf(MODEL, "me/good:v1"), entryOf(lying, "me/lying:v1")),
    ];

    expect((await failure(imported(store, encode(files)))).code).toBe("invalid_model_file");
    expect(await store.list()).toEqual([]);
  });

  test("archive: an index that names the same index many times is looked into once", async () => {
    const inner = { schemaVersion: 2, manifests: [entryOf(MODEL), entryOf(IMAGE)] };
    const bytes = encodeCanonical(inner);
    const all = new Map([MODEL, IMAGE, bytes].map((one) => [digestOf(one), one]));
    const entry = entryOf(bytes, undefined, "application/vnd.oci.image.index.v1+json");
    const reads: string[] = [];

    const models = await findModels(
      {
        sizes: new Map([...all].map(([digest, one]) => [digest, one.length])),
        manifest: undefined,
        index: { manifests: Array.from({ length: 100 }, () => entry) },
      },
      {
        readBlob: ({ digest }) => {
          reads.push(digest);
          return Promise.resolve(all.get(digest) ?? new Uint8Array());
        },
        onWarning: () => undefined,
      },
    );

    expect(models).toHaveLength(1);
    expect(reads).toEqual([...new Set(reads)]);
  });

  test("archive: manifests that would fill the memory are refused", async () => {
    const large = new Uint8Array(4 * 2 ** 20);
    const digests = Array.from({ length: 100 }, (_, n) => digestOf(text(String(n))));

    const found = findModels(
      {
        sizes: new Map(digests.map((digest) => [digest, large.length])),
        manifest: undefined,
        index: { manifests: digests.map((digest) => ({ digest })) },
      },
      { readBlob: () => Promise.resolve(large), onWarning: () => undefined },
    );

    expect((await failure(found)).message).toContain("too many manifests");
  });

  test("archive: a manifest that is none is said to be none", async () => {
    const junk = text("{}");

    expect((await failure(importFiles([blob(junk), index(entryOf(junk))]))).code).toBe(
      "unsupported_model",
    );
  });

  test("archive: a store's directory as a tar file is an archive", async () => {
    await using it = await stores();
    await rm(join(it.store.root, "lock"), { force: true });

    const { stdout } = Bun.spawnSync(["tar", "-cf", "-", "-C", it.store.root, "."]);
    const models = await imported(it.other, stdout);

    expect(models).toHaveLength(3);
    expect(await it.other.list()).toEqual(await it.store.list());
  });

  test("export: a blob of another size is an error before the first byte", async () => {
    await using it = await stores();
    const { manifest } = await it.store.resolve("me/one:v1");
    const path = it.store.blobPath(manifest.config.digest);
    await chmod(path, 0o644);
    await writeFile(path, "x");

    expect((await failure(exported(it.store, { models: ["me/one:v1"] }))).code).toBe(
      "digest_mismatch",
    );
  });
});
