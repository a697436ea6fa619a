import { describe, expect, test } from "bun:test";
import { chmod, copyFile, readFile, readdir, symlink, utimes, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AppError } from "../../src/errors.ts";
import { ensureBuiltin } from "../../src/models/builtin.ts";
import { packageModel } from "../../src/models/package.ts";
import { resolveRunnable } from "../../src/models/runnable.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import {
  DOCKER_CONFIG_V01,
  DOCKER_LICENSE,
  FILE_PATH,
  MODELPACK_CONFIG,
  OCI_MANIFEST,
} from "../../src/oci/media-types.ts";
import { Store } from "../../src/store/store.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tar } from "../helpers/tar.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { writeSparseGguf } from "../store/gguf-file.ts";
import { commitSample } from "../store/sample-model.ts";

const signal = new AbortController().signal;

async function storeIn(directory: { path: string }): Promise<Store> {
  const store = Store.open(join(directory.path, "store"));
  await packageModel(store, { model: "me/model:v1", gguf: FIRST_SHARD }, { signal });
  return store;
}

async function failure(resolving: Promise<unknown>): Promise<AppError> {
  const thrown = await resolving.catch((error: unknown) => error);
  if (thrown instanceof AppError) return thrown;
  throw new Error(`no AppError but ${String(thrown)}`);
}

describe("resolveRunnable", () => {
  test("runnable: a stored model is opened as a bundle", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);

    const model = await resolveRunnable(store, "me/model:v1", { paths: [] });
    await using bundle = await model.openBundle(signal);

    const { digest } = await store.resolve("me/model:v1");
    expect(model).toMatchObject({ id: digest, name: "me/model:v1", format: "gguf" });
    expect(model.weightBytes).toBe(1_320_608 + 840_672 + 839_840);
    expect(bundle.weightBytes).toBe(model.weightBytes);
    expect(basename(bundle.model)).toBe("model-00001-of-00003.gguf");
    expect(await readdir(dirname(bundle.model))).toHaveLength(3);
  });

  test("runnable: the shape of a stored model is that of its file, whatever the shards", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);

    const stored = await resolveRunnable(store, "me/model:v1", { paths: [] });
    const file = await resolveRunnable(store, PEBBLE, { paths: "allow" });

    const shape = await stored.readShape?.(signal);
    expect(shape).toMatchObject({ architecture: "llama", weightBytes: 2_934_528 });
    expect(await file.readShape?.(signal)).toEqual(shape);
    expect([stored.projectorBytes, stored.adapterBytes]).toEqual([0, 0]);
  });

  test("runnable: projectors and adapters are counted apart from the weights", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const path = join(directory.path, "mmproj.gguf");
    await writeSparseGguf(path, { values: { "general.architecture": { string: "clip" } } });
    await packageModel(store, { model: "me/seeing", gguf: PEBBLE, mmproj: path }, { signal });

    const model = await resolveRunnable(store, "me/seeing", { paths: [] });

    expect(model.projectorBytes).toBe((await readFile(path)).length);
    expect(await model.readShape?.(signal)).toMatchObject({ weightBytes: 2_934_528 });
  });

  test("runnable: a ModelPack is opened as well", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);
    const request = { model: "me/pack", gguf: PEBBLE, format: "cncf" } as const;
    await packageModel(store, request, { signal });

    const model = await resolveRunnable(store, "me/pack", { paths: [] });
    await using bundle = await model.openBundle(signal);

    expect(model.format).toBe("gguf");
    expect(await readFile(bundle.model)).toEqual(await readFile(PEBBLE));
  });

  test("runnable: packed weights are counted as they are packed, or looked at where nothing says what they are", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const archive = tar([{ name: "q/m.safetensors", content: "weights" }]);
    const open = async (name: string, config: unknown) => {
      const mediaType = "application/vnd.cncf.model.weight.v1.tar";
      const annotations = { [FILE_PATH]: "q" };
      const layers = [{ mediaType, content: archive, annotations }];
      await commitSample(store, { name, config, configType: MODELPACK_CONFIG, layers });
      return resolveRunnable(store, name, { paths: [] });
    };

    const said = await open("said", { config: { format: "safetensors" } });
    const silent = await open("silent", {});

    expect(said).toMatchObject({ format: "safetensors", weightBytes: archive.length });
    expect(silent).toMatchObject({ format: "safetensors", weightBytes: 7 });
    await using bundle = await said.openBundle(signal);
    expect(await readFile(bundle.model, "utf8")).toBe("weights");
    // The look let go of its own pin.
    const pins = await readdir(join(store.root, "pins"));
    expect(pins.filter((name) => name.endsWith(".pins"))).toHaveLength(1);
  });

  test("runnable: pebble is there without having been added, and never somebody else's", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);
    await packageModel(store, { model: "me/pebble", gguf: FIRST_SHARD }, { signal });

    const model = await resolveRunnable(store, "pebble", { paths: [] });

    expect(model.id).toBe((await ensureBuiltin(store, { signal })).digest);
    expect(model.name).toBe("pebble");
    expect(model.weightBytes).toBe(3_000_768);
  });

  test("runnable: an unknown name says how to get a model", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);

    const error = await failure(resolveRunnable(store, "me/nothing", { paths: "allow" }));

    expect(error.code).toBe("model_not_found");
    for (const command of ["tug pull", "tug search", "tug list", "tug run pebble"]) {
      expect(error.hint).toContain(command);
    }
  });

  test("runnable: what is no name is refused as one", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);

    const error = await failure(resolveRunnable(store, "./model.gguf", { paths: "allow" }));

    expect(error.code).toBe("invalid_reference");
  });

  test("runnable: a model without weights cannot be run", async () => {
    await using directory = await tempDir();
    const store = await storeIn(directory);
    await using transaction = await store.begin();
    const config = await transaction.writeBlob(encodeCanonical({}));
    const license = await transaction.writeBlob(new TextEncoder().encode("text"));
    const manifest = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: DOCKER_CONFIG_V01, ...config },
      layers: [{ mediaType: DOCKER_LICENSE, ...license }],
    };
    const { digest } = await transaction.commit(encodeCanonical(manifest));

    const error = await failure(resolveRunnable(store, digest, { paths: [] }));

    expect(error.code).toBe("unsupported_model");
  });
});

describe("resolveRunnable with a path", () => {
  test("runnable: a file is served from where it is", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));

    const model = await resolveRunnable(store, PEBBLE, { paths: "allow" });
    await using bundle = await model.openBundle(signal);

    expect(model).toMatchObject({ name: PEBBLE, format: "gguf", weightBytes: 3_000_768 });
    expect(model.id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(bundle).toMatchObject({ model: PEBBLE, directory: dirname(PEBBLE), format: "gguf" });
    expect(await readdir(directory.path)).toEqual([]);
  });

  test("runnable: any shard opens the first", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const third = FIRST_SHARD.replace("00001-of", "00003-of");

    const model = await resolveRunnable(store, third, { paths: "allow" });
    await using bundle = await model.openBundle(signal);

    expect(bundle.model).toBe(FIRST_SHARD);
    expect(model.weightBytes).toBe(1_320_608 + 840_672 + 839_840);
    expect((await resolveRunnable(store, FIRST_SHARD, { paths: "allow" })).id).toBe(model.id);
  });

  test("runnable: a file that was changed is another model, a link to it is the same", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const [path, link] = [join(directory.path, "m.gguf"), join(directory.path, "l.gguf")];
    await copyFile(PEBBLE, path);
    await symlink(path, link);
    const idOf = async (name: string) =>
      (await resolveRunnable(store, name, { paths: "allow" })).id;
    const before = await idOf(path);
    expect(await idOf(link)).toBe(before);

    await utimes(path, 1, 1);

    expect(await idOf(path)).not.toBe(before);
  });

  test("runnable: linked shards are opened by their own names", async () => {
    await using directory = await tempDir();
    const names = [1, 2, 3].map((index) => `m-0000${index}-of-00003.gguf`);
    for (const [index, name] of names.entries()) {
      const target = FIRST_SHARD.replace("00001-of", `0000${index + 1}-of`);
      await symlink(target, join(directory.path, name));
    }
    const path = join(directory.path, names[1] ?? "");

    const model = await resolveRunnable(Store.open(directory.path), path, { paths: "allow" });
    await using bundle = await model.openBundle(signal);

    expect(bundle.model).toBe(join(directory.path, names[0] ?? ""));
  });

  test("runnable: who may name no files learns nothing of them", async () => {
    const store = Store.open("/nowhere");

    const there = await failure(resolveRunnable(store, PEBBLE, { paths: [] }));
    const absent = await failure(resolveRunnable(store, `${PEBBLE}.not`, { paths: [] }));

    expect(there.code).toBe("forbidden");
    expect(absent.message.replace(".not", "")).toBe(there.message);
  });

  test("runnable: a file of the list may be named by everybody", async () => {
    const store = Store.open("/nowhere");
    const roundabout = join(dirname(PEBBLE), "..", "models", "pebble.gguf");

    expect((await resolveRunnable(store, PEBBLE, { paths: [roundabout] })).format).toBe("gguf");
    const other = resolveRunnable(store, FIRST_SHARD, { paths: [PEBBLE] });
    expect((await failure(other)).code).toBe("forbidden");
  });

  test("runnable: a missing file and a missing shard are named", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const shard = join(directory.path, "m-00001-of-00002.gguf");
    await copyFile(FIRST_SHARD, shard);

    const absent = await failure(
      resolveRunnable(store, join(directory.path, "no.gguf"), { paths: "allow" }),
    );
    const incomplete = await failure(resolveRunnable(store, shard, { paths: "allow" }));

    expect(absent).toMatchObject({ code: "not_found" });
    expect(incomplete.code).toBe("invalid_model_file");
    expect(incomplete.message).toContain("`m-00002-of-00002.gguf`");
  });

  test("runnable: what is no model is found out when it is opened", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const [text, projector] = [join(directory.path, "t.gguf"), join(directory.path, "p.gguf")];
    await writeFile(text, "hello");
    await writeSparseGguf(projector, { values: { "general.architecture": { string: "clip" } } });

    const notGguf = await resolveRunnable(store, text, { paths: "allow" });
    const notModel = await resolveRunnable(store, projector, { paths: "allow" });

    expect((await failure(notGguf.openBundle(signal))).code).toBe("invalid_model_file");
    expect((await failure(notModel.openBundle(signal))).code).toBe("unsupported_model");
  });
});

test("runnable: a damaged config is an error that says so", async () => {
  await using directory = await tempDir();
  const store = await storeIn(directory);
  const { manifest } = await store.resolve("me/model:v1");
  const path = store.blobPath(manifest.config.digest);
  const bytes = await readFile(path);
  bytes[10] = (bytes[10] ?? 0) + 1;
  await chmod(path, 0o644);
  await writeFile(path, bytes);

  const error = await failure(resolveRunnable(store, "me/model:v1", { paths: [] }));

  expect(error.code).toBe("digest_mismatch");
});
