import { describe, expect, test } from "bun:test";
import { testIf } from "../helpers/test-if.ts";
import { chmod, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Progress } from "../../src/api/progress.ts";
import { AppError } from "../../src/errors.ts";
import { exportModels } from "../../src/models/export.ts";
import { importModels } from "../../src/models/import.ts";
import { packageModel } from "../../src/models/package.ts";
import { TAR_END, encodeTarHeader, paddingOf } from "../../src/archive/tar.ts";
import { digestOf, hexOf } from "../../src/oci/digest.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { Store, type StoredModel } from "../../src/store/store.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const signal = new AbortController().signal;

async function* chunked(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += 10_007) {
    yield bytes.subarray(start, start + 10_007);
  }
}

function encode(files: Readonly<Record<string, Uint8Array>>): Buffer {
  const parts = Object.entries(files).flatMap(([name, body]) => [
    encodeTarHeader({ name, size: body.length, kind: "file" }),
    body,
    new Uint8Array(paddingOf(body.length)),
  ]);
  return Buffer.concat([...parts, TAR_END]);
}

async function exported(store: Store, ...models: string[]): Promise<Buffer> {
  const { chunks } = await exportModels(store, { models }, { signal });
  return Buffer.concat(await Array.fromAsync(chunks));
}

async function imported(store: Store, archive: Uint8Array): Promise<StoredModel> {
  const [model, ...others] = await importModels(store, chunked(archive), { signal });
  expect(others).toEqual([]);
  return model as StoredModel;
}

async function failure(work: Promise<unknown>): Promise<AppError> {
  const thrown = await work.catch((error: unknown) => error);
  if (thrown instanceof AppError) return thrown;
  throw new Error(`no AppError but ${String(thrown)}`);
}

async function stores(): Promise<
  AsyncDisposable & { path: string; store: Store; other: Store; id: string }
> {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "store"));
  const { id } = await packageModel(store, { model: "me/model:v1", gguf: FIRST_SHARD }, { signal });
  return {
    path: directory.path,
    store,
    other: Store.open(join(directory.path, "other")),
    id,
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

describe("exportModels and importModels", () => {
  test("export: what is exported is imported as the same model", async () => {
    await using it = await stores();

    const model = await imported(it.other, await exported(it.store, "me/model:v1"));

    expect(model).toEqual(await it.store.resolve("me/model:v1"));
    expect(model.digest as string).toBe(it.id);
    expect((await it.other.verify({ signal })).problems).toEqual([]);
  });

  test.each<[string, string[], string[]]>([
    ["its whole name", ["me/model:v1"], ["docker.io/me/model:v1"]],
    ["a part of its name", ["model:v1"], ["docker.io/me/model:v1"]],
    ["two names", ["other:x", "me/model:v1"], ["docker.io/me/model:v1", "docker.io/me/other:x"]],
    ["its digest", [], ["docker.io/me/model:v1", "docker.io/me/other:x"]],
  ])("export: a model has the names it was called by: %s", async (_, names, tags) => {
    await using it = await stores();
    await it.store.tag((await it.store.resolve("me/model:v1")).digest, {
      registry: "docker.io",
      repository: "me/other",
      tag: "x",
    });

    const bytes = await exported(it.store, ...(names.length === 0 ? [it.id] : names));

    expect((await imported(it.other, bytes)).tags).toEqual(tags);
  });

  test("export: the archive has the size that was announced, and is the same every time", async () => {
    await using it = await stores();

    const { sizeBytes } = await exportModels(it.store, { models: [it.id] }, { signal });

    const archive = await exported(it.store, it.id);
    expect(archive.length).toBe(sizeBytes);
    expect(await exported(it.store, "me/model:v1")).toEqual(archive);
  });

  test("export: the archive is laid out as Docker Model Runner reads it", async () => {
    await using it = await stores();
    const { manifest } = await it.store.resolve(it.id);
    await writeFile(join(it.path, "m.tar"), await exported(it.store, it.id));

    const { stdout } = Bun.spawnSync(["tar", "-tf", join(it.path, "m.tar")]);
    const raw = Bun.spawnSync(["tar", "-xOf", join(it.path, "m.tar"), "manifest.json"]).stdout;

    const blobs = [manifest.config, ...manifest.layers].map(
      ({ digest }) => `blobs/sha256/${hexOf(digest)}`,
    );
    expect(stdout.toString().trim().split("\n")).toEqual([
      "oci-layout",
      "index.json",
      "blobs/",
      "blobs/sha256/",
      `blobs/sha256/${it.id.slice(7)}`,
      ...blobs,
      "manifest.json",
    ]);
    expect(digestOf(raw) as string).toBe(it.id);
  });

  testIf(Bun.which("skopeo") !== null, "there is no skopeo here")(
    "export: skopeo reads the archive",
    async () => {
      await using it = await stores();
      await writeFile(join(it.path, "m.tar"), await exported(it.store, it.id));

      const image = `oci-archive:${join(it.path, "m.tar")}:docker.io/me/model:v1`;
      const { stdout, exitCode } = Bun.spawnSync(["skopeo", "inspect", "--raw", image]);

      expect(exitCode).toBe(0);
      expect(digestOf(stdout) as string).toBe(it.id);
    },
  );

  test("export: an unknown model is not found", async () => {
    await using it = await stores();

    const error = await failure(exported(it.store, "me/nothing"));

    expect(error.code).toBe("model_not_found");
  });

  test("export: a missing blob is found out before the first byte", async () => {
    await using it = await stores();
    const { manifest } = await it.store.resolve(it.id);
    await rm(it.store.blobPath(manifest.layers[1]?.digest as never));

    expect((await failure(exported(it.store, it.id))).code).toBe("blob_not_found");
  });

  test("export: a damaged blob ends the archive with an error", async () => {
    await using it = await stores();
    const { manifest } = await it.store.resolve(it.id);
    const path = it.store.blobPath(manifest.layers[1]?.digest as never);
    const bytes = await readFile(path);
    bytes[400_000] = (bytes[400_000] ?? 0) ^ 1;
    await chmod(path, 0o644);
    await writeFile(path, bytes);

    expect((await failure(exported(it.store, it.id))).code).toBe("digest_mismatch");
  });

  test("export: an abort ends it", async () => {
    await using it = await stores();

    const { chunks } = await exportModels(
      it.store,
      { models: [it.id] },
      { signal: AbortSignal.abort() },
    );
    const thrown = await Array.fromAsync(chunks).catch((error: unknown) => error);

    expect((thrown as Error).name).toBe("AbortError");
  });

  test("import: Docker Model Runner's archive, which has no names, stays untagged", async () => {
    await using it = await stores();
    const directory = join(it.path, "dmr");
    await mkdir(directory);
    await writeFile(join(it.path, "m.tar"), await exported(it.store, it.id));
    Bun.spawnSync(["tar", "-xf", join(it.path, "m.tar"), "-C", directory]);
    const { stdout } = Bun.spawnSync(["tar", "-cf", "-", "blobs", "manifest.json"], {
      cwd: directory,
    });

    const model = await imported(it.other, stdout);

    expect(model.digest as string).toBe(it.id);
    expect(model.tags).toEqual([]);
  });

  test("import: an image layout without manifest.json is read by its index", async () => {
    await using it = await stores();
    const directory = join(it.path, "layout");
    await mkdir(directory);
    await writeFile(join(it.path, "m.tar"), await exported(it.store, it.id));
    Bun.spawnSync(["tar", "-xf", join(it.path, "m.tar"), "-C", directory]);
    const { stdout } = Bun.spawnSync(
      ["tar", "-cf", "-", "./blobs", "./index.json", "./oci-layout"],
      {
        cwd: directory,
      },
    );

    expect((await imported(it.other, stdout)).tags).toEqual(["docker.io/me/model:v1"]);
  });

  test("import: progress names each blob and ends at its size", async () => {
    await using it = await stores();
    const archive = await exported(it.store, it.id);
    const done = new Map<string, Progress>();

    const [model] = await importModels(it.other, chunked(archive), {
      signal,
      onProgress: (event) => event.type === "progress" && done.set(event.id, event),
    });

    expect(model?.manifest.layers).toHaveLength(3);
    for (const { digest, size } of model?.manifest.layers ?? []) {
      expect(done.get(digest)).toMatchObject({ done_bytes: size, total_bytes: size });
    }
  });

  test("import: an archive cut anywhere is refused and leaves nothing", async () => {
    await using it = await stores();
    const archive = await exported(it.store, it.id);
    const cuts = [0.1, 0.45, 0.9, 0.995].map((share) => Math.floor(archive.length * share));

    for (const bytes of [...cuts, archive.length - 6000]) {
      const error = await failure(imported(it.other, archive.subarray(0, bytes)));
      expect(error.code).toBe("invalid_model_file");
    }

    expect(await it.other.list()).toEqual([]);
    expect(await readdir(join(it.other.root, "blobs", "sha256"))).toEqual([]);
  });

  test("import: a blob that is not what its name says is refused", async () => {
    await using it = await stores();
    const archive = await exported(it.store, it.id);
    archive[500_000] = (archive[500_000] ?? 0) ^ 1;

    expect((await failure(imported(it.other, archive))).code).toBe("digest_mismatch");
    expect(await it.other.list()).toEqual([]);
  });

  test("import: an abort leaves nothing", async () => {
    await using it = await stores();
    const archive = await exported(it.store, it.id);
    const aborting = new AbortController();

    const thrown = await importModels(it.other, chunked(archive), {
      signal: aborting.signal,
      onProgress: () => aborting.abort(),
    }).catch((error: unknown) => error);

    expect((thrown as Error).name).toBe("AbortError");
    expect(await readdir(join(it.other.root, "blobs", "sha256"))).toEqual([]);
  });

  const BYTES = new TextEncoder().encode("{}");
  const BLOB = { digest: digestOf(BYTES), size: BYTES.length };
  const manifestOf = (mediaType: string) =>
    encodeCanonical({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType, ...BLOB },
      layers: [],
    });
  const IMAGE = manifestOf("application/vnd.oci.image.config.v1+json");
  const MODEL = manifestOf("application/vnd.docker.ai.model.config.v0.1+json");
  const REFUSED: readonly (readonly [string, Record<string, Uint8Array>, AppError["code"]])[] = [
    ["an archive of something else", { "README.md": BYTES }, "invalid_model_file"],
    [
      "an archive of docker save",
      { "manifest.json": new TextEncoder().encode('[{"Config":"x.json"}]') },
      "unsupported_model",
    ],
    [
      "an image",
      { [`blobs/sha256/${hexOf(BLOB.digest)}`]: BYTES, "manifest.json": IMAGE },
      "unsupported_model",
    ],
    ["a manifest without its blobs", { "manifest.json": MODEL }, "blob_not_found"],
    ["a name that leads out", { "blobs/sha256/../../../x": BYTES }, "invalid_model_file"],
    ["a manifest of 5 MB", { "manifest.json": new Uint8Array(5_000_000) }, "invalid_model_file"],
    [
      "an index whose manifest is missing",
      { "index.json": encodeCanonical({ manifests: [{ digest: digestOf(MODEL) }] }) },
      "invalid_model_file",
    ],
    [
      "an index with a digest that is none",
      { "index.json": encodeCanonical({ manifests: [{ digest: "sha256:../../x" }] }) },
      "invalid_model_file",
    ],
    ["an index that is no JSON", { "index.json": BYTES.slice(0, 1) }, "invalid_model_file"],
    ["an index of 5 MB", { "index.json": new Uint8Array(5_000_000) }, "invalid_model_file"],
    ["nothing at all", {}, "invalid_model_file"],
  ];

  test.each(REFUSED)("import: %s is refused", async (_, files, code) => {
    await using it = await stores();

    const error = await failure(imported(it.other, encode(files)));

    expect(error.code).toBe(code);
    expect(await it.other.list()).toEqual([]);
    expect(await stat(join(it.path, "x")).catch(() => "none")).toBe("none");
  });

  test("import: the built-in model survives the round trip", async () => {
    await using it = await stores();
    await packageModel(it.store, { model: "me/pack", gguf: PEBBLE, format: "cncf" }, { signal });

    const model = await imported(it.other, await exported(it.store, "me/pack"));

    expect(model.tags).toEqual(["docker.io/me/pack:latest"]);
    await using bundle = await it.other.openBundle(model, {});
    expect(await readFile(bundle.model)).toEqual(await readFile(PEBBLE));
  });
});
