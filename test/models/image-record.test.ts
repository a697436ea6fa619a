import { describe, expect, test } from "bun:test";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../src/errors.ts";
import { inspectModel } from "../../src/models/inspect.ts";
import {
  encodeImage,
  type ImageRecord,
  isImageName,
  readImage,
} from "../../src/models/image-record.ts";
import { imageToForget } from "../../src/models/pull-image.ts";
import { pullModel } from "../../src/models/pull.ts";
import type { Remotes } from "../../src/models/remotes.ts";
import { resolveRunnable } from "../../src/models/runnable.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const DIGEST = `sha256:${"ab".repeat(32)}`;
const IMAGE = `nvcr.io/nim/meta/tiny@${DIGEST}`;
const RECORD: ImageRecord = {
  image: IMAGE,
  engine: "podman",
  size: 12_345,
  isOwn: true,
  created: "2026-01-01T00:00:00Z",
};
const signal = new AbortController().signal;

/** A podman that has one image as soon as it has pulled it. */
const PODMAN = `#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/log"
case "$1" in
version) echo 5.0.0 ;;
pull) : > "$here/has" ;;
rmi) rm "$here/has" ;;
image) [ -e "$here/has" ] || exit 125
  echo '[{"Id":"abc","RepoDigests":["${IMAGE}"],"RepoTags":["nvcr.io/nim/meta/tiny:latest"],"Size":12345,"Created":"2026-01-01T00:00:00Z"}]' ;;
esac
`;

function remotes(offline: boolean): Remotes {
  const credentials = { find: () => Promise.resolve(undefined) };
  return { offline, isInsecure: () => false, credentials } as unknown as Remotes;
}

async function withStore() {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "models"));
  await writeFile(join(directory.path, "podman"), PODMAN);
  await chmod(join(directory.path, "podman"), 0o755);
  const env = { PATH: `${directory.path}:/usr/bin:/bin`, TUG_CONTAINER_ENGINE: "podman" };
  const images = { prefixes: [], env };
  return {
    ...directory,
    store,
    images,
    pull: (from: string, offline = false) =>
      pullModel({ store, remotes: remotes(offline), signal, images }, { from }),
    log: () => readFile(join(directory.path, "log"), "utf8"),
    has: () => writeFile(join(directory.path, "has"), ""),
    put: async (record: ImageRecord, name: string, file?: string) => {
      const encoded = encodeImage(record);
      await using transaction = await store.begin();
      await transaction.writeBlob(
        file === undefined ? encoded.file : new TextEncoder().encode(file),
      );
      await transaction.writeBlob(encoded.config.bytes);
      return await transaction.commit(encoded.manifest.bytes, parseReference(name));
    },
  };
}

async function failure(promise: Promise<unknown>): Promise<AppError> {
  const thrown = await promise.catch((error: unknown) => error);
  if (!(thrown instanceof AppError)) throw new Error(`no AppError: ${String(thrown)}`);
  return thrown;
}

describe("isImageName", () => {
  test.each([
    ["nvcr.io/nim/meta/llama:1", true],
    ["NVCR.IO/nim/x", true],
    ["nvcr.io/nimble/x", false],
    ["nvcr.io/nvidia/x", false],
    ["evil.io/nvcr.io/nim/x", false],
    ["r.example/nim/x", true],
    ["r.example:5000/nim/x", false],
    ["r.example/nimx/x", false],
    ["nim/x", false],
  ])("of %p is %p", (name, isImage) => {
    expect(isImageName(parseReference(name), ["r.example/nim"])).toBe(isImage);
  });
});

describe("a record", () => {
  test("is the same model each time, reads back, and shows the size of the image", async () => {
    await using it = await withStore();
    const model = await it.put(RECORD, "nvcr.io/nim/meta/tiny");

    expect(encodeImage(RECORD).manifest.digest).toBe(model.digest);
    expect(await readImage(it.store, model)).toEqual({ ...RECORD, created: "" });
    expect(await inspectModel(it.store, "nvcr.io/nim/meta/tiny")).toMatchObject({
      config: { format: "nim" },
      size_bytes: 12_345,
    });
    expect(await resolveRunnable(it.store, "nvcr.io/nim/meta/tiny", { paths: [] })).toMatchObject({
      format: "nim",
    });
  });

  test.each([
    `docker.io/ai/x@${DIGEST}`,
    `nvcr.io/nimble/x@${DIGEST}`,
    `nvcr.io.evil.example/nim/x@${DIGEST}`,
  ])("of %p is not run unless that is configured", async (image) => {
    await using it = await withStore();
    await it.put({ ...RECORD, image }, "me/other");

    const error = await failure(resolveRunnable(it.store, "me/other", { paths: "allow" }));

    expect(error.code).toBe("forbidden");
    expect(error.message).toContain(image);
  });
});

describe("pulling", () => {
  const NAME = "nvcr.io/nim/meta/tiny:latest";

  test("asks the container engine, records the digest, and does nothing the second time", async () => {
    await using it = await withStore();

    const first = await it.pull("nvcr.io/nim/meta/tiny");
    const second = await it.pull("nvcr.io/nim/meta/tiny");
    const model = await it.store.resolve(NAME);

    expect(first).toMatchObject({ reference: NAME, up_to_date: false, fetched_bytes: 12_345 });
    expect(second).toMatchObject({ id: first.id, up_to_date: true, fetched_bytes: 0 });
    expect(await readImage(it.store, model)).toMatchObject({ image: IMAGE, isOwn: true });
    expect(await it.log()).toContain(`pull ${NAME}\n`);
  });

  test("of a digest gives a name that can be used", async () => {
    await using it = await withStore();

    const { reference } = await it.pull(IMAGE);

    expect(reference).toBe("nvcr.io/nim/meta/tiny:sha256-abababababab");
    expect(await it.store.resolve(reference)).toMatchObject({ tags: [reference] });
    expect(await it.log()).toContain(`pull ${IMAGE}\n`);
  });

  test("takes offline what the container engine has, and only that", async () => {
    await using it = await withStore();

    const error = await failure(it.pull(NAME, true));
    await it.has();
    await it.pull(NAME, true);

    expect(error.code).toBe("offline");
    expect(await it.log()).not.toContain("pull");
  });

  test("an image that was there before is nobody's to remove", async () => {
    await using it = await withStore();
    await it.has();
    const { id } = await it.pull(NAME);

    expect(await imageToForget(it.store, id, it.images)).toBeUndefined();
  });

  test("nor is one that a record from elsewhere names", async () => {
    await using it = await withStore();
    const { digest } = await it.put({ ...RECORD, image: `docker.io/ai/x@${DIGEST}` }, "me/other");

    expect(await imageToForget(it.store, digest, it.images)).toBeUndefined();
  });

  test("its own goes with the last record of it", async () => {
    await using it = await withStore();
    const { id } = await it.pull(NAME);
    const other = await it.put({ ...RECORD, size: 1 }, "me/other");

    expect(await imageToForget(it.store, id, it.images)).toBeUndefined();
    await it.store.remove(other.digest, { force: true });
    const forget = await imageToForget(it.store, id, it.images);

    expect(await forget?.(signal)).toBe(IMAGE);
    expect(await it.log()).toContain(`rmi ${NAME}\n`);
    expect(await forget?.(signal)).toBeUndefined();
  });
});
