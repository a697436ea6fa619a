import { describe, expect, test } from "bun:test";
import { isRoot, isWindows, testIf } from "../helpers/test-if.ts";
import {
  appendFile,
  chmod,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { digestOf } from "../../src/oci/digest.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { DOCKER_GGUF, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { whyNotLinked, writeFailure } from "../../src/store/ingest.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";
import { chunksOf, commitSample, filesIn } from "./sample-model.ts";
import { CAN_MOUNT, smallDisk } from "./small-disk.ts";

const ONE_MIB = 1024 * 1024;
const EMPTY = ["index.json", "oci-layout"];

describe("whyNotLinked", () => {
  test.each([
    ["EXDEV", "it is on another disk than the model store"],
    ["EPERM", "it belongs to another user, or its file system has no hard links"],
    ["EMLINK", "it has too many links already"],
    ["ENOSYS", "its file system does not link it (ENOSYS)"],
    [undefined, "its file system does not link it"],
  ])("store: %s is said in words", (code, words) => {
    expect(whyNotLinked(Object.assign(new Error("no"), { code }))).toBe(words);
  });
});

describe("writeFailure", () => {
  test.each(["ENOSPC", "EDQUOT"])("store: %s is a full disk", (code) => {
    expect(writeFailure(Object.assign(new Error("no"), { code }))).toMatchObject({
      code: "insufficient_storage",
      hint: expect.stringContaining("space"),
    });
  });

  test("store: any other failure stays as it is", () => {
    const error = Object.assign(new Error("no"), { code: "EIO" });

    expect(writeFailure(error)).toBe(error);
  });
});

describe("Transaction.ingestFile", () => {
  test.each([0, 1, ONE_MIB - 1, ONE_MIB, 3 * ONE_MIB + 7])(
    "store: a file of %d bytes becomes a read-only blob",
    async (size) => {
      await using directory = await tempDir();
      const { store, file, bytes } = await sourceFile(directory.path, size);
      const progress: [number, number][] = [];
      await using transaction = await store.begin();

      const result = await transaction.ingestFile(file, {
        onBytes: (done, total) => progress.push([done, total]),
      });

      expect(result).toMatchObject({ digest: digestOf(bytes), size });
      expect(new Uint8Array(await readFile(store.blobPath(result.digest)))).toEqual(bytes);
      expect((await stat(store.blobPath(result.digest))).mode & 0o777).toBe(0o444);
      expect(progress.at(-1)).toEqual(size === 0 ? undefined : [size, size]);
      expect(await readdir(join(store.root, "ingest"))).toEqual([]);
    },
  );

  test("store: a file that is stored already is hashed and not copied again", async () => {
    await using directory = await tempDir();
    const { store, file } = await sourceFile(directory.path, 100);
    await using transaction = await store.begin();
    const first = await transaction.ingestFile(file);
    const inode = (await stat(store.blobPath(first.digest))).ino;

    const second = await transaction.ingestFile(file);

    expect(second).toEqual({ digest: first.digest, size: 100, method: "present" });
    expect((await stat(store.blobPath(first.digest))).ino).toBe(inode);
  });

  test("store: a link shares the bytes and makes the file read-only", async () => {
    await using directory = await tempDir();
    const { store, file } = await sourceFile(directory.path, 100);
    await using transaction = await store.begin();

    const { digest, method } = await transaction.ingestFile(file, { link: true });

    const [source, blob] = [await stat(file), await stat(store.blobPath(digest))];
    expect(method).toBe("link");
    expect(blob.ino).toBe(source.ino);
    expect(source.mode & 0o777).toBe(0o444);
  });

  testIf(CAN_MOUNT, "mounting is not allowed here")(
    "store: a link to another disk becomes a copy, and says why",
    async () => {
      await using directory = await tempDir();
      await using disk = await smallDisk(directory.path);
      const { store } = await sourceFile(directory.path, 0);
      const file = join(disk.path, "elsewhere");
      await writeFile(file, "content");
      await using transaction = await store.begin();

      const result = await transaction.ingestFile(file, { link: true });

      expect(result).toMatchObject({
        method: "copy",
        reason: expect.stringContaining("another disk"),
        size: 7,
      });
    },
  );

  test("store: a symbolic link is followed, also when linking", async () => {
    await using directory = await tempDir();
    const { store, file, bytes } = await sourceFile(directory.path, 100);
    const alias = join(directory.path, "alias");
    await symlink(file, alias);
    await using transaction = await store.begin();

    const { digest } = await transaction.ingestFile(alias, { link: true });

    expect((await stat(store.blobPath(digest))).isFile()).toBe(true);
    expect(digest).toBe(digestOf(bytes));
  });

  test("store: what cannot be read is refused with a reason and leaves nothing", async () => {
    await using directory = await tempDir();
    const { store, file } = await sourceFile(directory.path, 10);
    {
      await using transaction = await store.begin();

      expect(await failureOf(transaction.ingestFile(`${file}-not`))).toMatchObject({
        code: "not_found",
      });
      expect(await failureOf(transaction.ingestFile(join(file, "below")))).toMatchObject({
        code: "not_found",
      });
      expect(await failureOf(transaction.ingestFile(directory.path))).toMatchObject({
        code: "invalid_request",
      });
      expect(
        await failureOf(transaction.ingestFile(file, { signal: AbortSignal.abort() })),
      ).toMatchObject({ name: "AbortError" });
    }
    expect(await filesIn(store.root)).toEqual(["oci-layout"]);
  });

  testIf(!isRoot && !isWindows, "root may read everything, and Windows has no such permissions")(
    "store: a file without permission is refused",
    async () => {
      await using directory = await tempDir();
      const { store, file } = await sourceFile(directory.path, 10);
      await chmod(file, 0);
      await using transaction = await store.begin();

      expect(await failureOf(transaction.ingestFile(file))).toMatchObject({ code: "forbidden" });
    },
  );

  test("store: a file that grows while it is read is refused", async () => {
    await using directory = await tempDir();
    const { store, file } = await sourceFile(directory.path, 4 * ONE_MIB);
    {
      await using transaction = await store.begin();
      let grown: Promise<void> | undefined;
      const onBytes = (): void => void (grown ??= appendFile(file, "more"));

      const attempt = transaction.ingestFile(file, { onBytes });

      expect(await failureOf(attempt)).toMatchObject({
        code: "conflict",
        message: expect.stringContaining("it changed"),
      });
      await grown;
    }
    expect(await filesIn(store.root)).toEqual(["oci-layout"]);
  });

  test.each([false, true])(
    "store: another content than expected is refused (link: %p)",
    async (link) => {
      await using directory = await tempDir();
      const { store, file } = await sourceFile(directory.path, 10);
      const expected = { digest: digestOf(new Uint8Array([1])), size: 10 };
      {
        await using transaction = await store.begin();

        expect(await failureOf(transaction.ingestFile(file, { expected, link }))).toMatchObject({
          code: "digest_mismatch",
        });
      }
      expect(await filesIn(store.root)).toEqual(["oci-layout"]);
    },
  );

  test("store: an abort amid a copy leaves nothing", async () => {
    await using directory = await tempDir();
    const { store, file } = await sourceFile(directory.path, 4 * ONE_MIB);
    const controller = new AbortController();
    {
      await using transaction = await store.begin();

      const attempt = transaction.ingestFile(file, {
        signal: controller.signal,
        onBytes: () => controller.abort(),
      });

      expect(await failureOf(attempt)).toMatchObject({ name: "AbortError" });
      expect(await readdir(join(store.root, "ingest"))).toEqual([]);
    }
    expect(await filesIn(store.root)).toEqual(["oci-layout"]);
  });

  testIf(CAN_MOUNT, "mounting is not allowed here")(
    "store: a file larger than the free space is refused before a byte is written",
    async () => {
      await using directory = await tempDir();
      await using disk = await smallDisk(directory.path);
      const { file } = await sourceFile(directory.path, 5 * ONE_MIB);
      const store = Store.open(join(disk.path, "models"));
      {
        await using transaction = await store.begin();

        expect(await failureOf(transaction.ingestFile(file))).toMatchObject({
          code: "insufficient_storage",
          details: expect.objectContaining({ neededBytes: 5 * ONE_MIB }),
        });
      }
      expect(await filesIn(store.root)).toEqual(["oci-layout"]);
    },
  );
});

describe("Transaction.ingestStream", () => {
  test("store: chunks become one blob", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();

    const blob = await transaction.ingestStream(chunksOf("ab", "", "c"));

    expect(blob).toEqual({ digest: digestOf(new TextEncoder().encode("abc")), size: 3 });
    expect(await readFile(store.blobPath(blob.digest), "utf8")).toBe("abc");
  });

  test.each([
    ["fewer bytes", "ab", "2 bytes came, not 3"],
    ["more bytes", "abcd", "more than 3 bytes came"],
    ["other bytes", "abd", "what came is"],
  ])("store: %s than expected are refused and leave nothing", async (_what, text, reason) => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const expected = { digest: digestOf(new TextEncoder().encode("abc")), size: 3 };
    {
      await using transaction = await store.begin();

      expect(
        (await failureOf(transaction.ingestStream(chunksOf(text), { expected }))).message,
      ).toContain(reason);
    }
    expect(await filesIn(store.root)).toEqual(["oci-layout"]);
  });

  test("store: a blob that is present is not read again, and its source is closed", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    const expected = await transaction.ingestStream(chunksOf("abc"));
    const source = { isRead: false, isClosed: false };
    const chunks = {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          source.isRead = true;
          return { done: true as const, value: undefined };
        },
        return: async () => {
          source.isClosed = true;
          return { done: true as const, value: undefined };
        },
      }),
    };

    const blob = await transaction.ingestStream(chunks, { expected });

    expect(blob).toEqual(expected);
    expect(source).toEqual({ isRead: false, isClosed: true });
  });

  test("store: a source that fails leaves nothing, and its error arrives", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const failure = new Error("the line broke");
    {
      await using transaction = await store.begin();

      expect(await failureOf(transaction.ingestStream(breaking(failure)))).toBe(failure);
    }
    expect(await filesIn(store.root)).toEqual(["oci-layout"]);
  });

  testIf(CAN_MOUNT, "mounting is not allowed here")(
    "store: a full disk is insufficient_storage, without debris",
    async () => {
      await using directory = await tempDir();
      await using disk = await smallDisk(directory.path);
      const store = Store.open(join(disk.path, "models"));
      const kept = await commitSample(store, { name: "kept" });
      const before = await filesIn(store.root);
      {
        await using transaction = await store.begin();

        expect(await failureOf(transaction.ingestStream(endless()))).toMatchObject({
          code: "insufficient_storage",
          hint: expect.stringContaining("tug prune"),
        });
      }
      expect(await filesIn(store.root)).toEqual(before);
      expect(await store.list()).toEqual([kept]);
    },
  );
});

describe("Transaction.writeBlob", () => {
  test("store: a damaged blob of the same digest is mended", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    const { digest } = model.manifest.config;
    const bytes = await readFile(store.blobPath(digest));
    await chmod(store.blobPath(digest), 0o644);
    await writeFile(
      store.blobPath(digest),
      bytes.map((byte) => byte ^ 1),
    );
    await using transaction = await store.begin();

    await transaction.writeBlob(bytes);

    expect((await store.verify({ signal: new AbortController().signal })).problems).toEqual([]);
  });
});

describe("Transaction.commit", () => {
  test("store: what was not committed goes with the transaction, what was stays", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store, { name: "a" });
    const before = await filesIn(store.root);
    {
      await using transaction = await store.begin();
      await transaction.writeBlob(new TextEncoder().encode("not used in the end"));
      await transaction.ingestStream(chunksOf("weights"));
    }

    expect(await filesIn(store.root)).toEqual(before);
    expect(await store.resolve("a")).toEqual(model);
  });

  test("store: the same content gives the same digest and no second blob", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const first = await commitSample(store, { name: "a" });
    const before = await filesIn(store.root);

    const second = await commitSample(store, { name: "b" });

    expect(second.digest).toBe(first.digest);
    expect(second.tags).toEqual(["docker.io/ai/a:latest", "docker.io/ai/b:latest"]);
    expect(await filesIn(store.root)).toEqual(before);
  });

  test("store: a manifest whose blobs are not here is refused, and the index stays as it is", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await commitSample(store, { name: "a" });
    const before = await filesIn(store.root);
    const absent = { mediaType: DOCKER_GGUF, digest: digestOf(new Uint8Array([7])), size: 1 };
    const manifest = encodeCanonical({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: absent,
      layers: [],
    });
    {
      await using transaction = await store.begin();

      expect(await failureOf(transaction.commit(manifest, parseReference("a")))).toMatchObject({
        code: "blob_not_found",
      });
    }
    expect(await filesIn(store.root)).toEqual(before);
    expect((await store.list()).map(({ tags }) => tags)).toEqual([["docker.io/ai/a:latest"]]);
  });

  test("store: a reference with a digest is committed only if it is this one", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const model = await commitSample(store);
    const manifest = await store.readBlob(model.manifestDescriptor);
    await using transaction = await store.begin();

    const same = await transaction.commit(manifest, parseReference(`a@${model.digest}`));
    const other = parseReference(`a:V1@${model.manifest.config.digest}`);

    expect(same.tags).toEqual([]);
    expect(await failureOf(transaction.commit(manifest, other))).toMatchObject({
      code: "conflict",
    });
    expect(
      (await transaction.commit(manifest, parseReference(`a:V1@${model.digest}`))).tags,
    ).toEqual(["docker.io/ai/a:V1"]);
  });

  test("store: a transaction is over once it is disposed", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const transaction = await store.begin();
    await transaction[Symbol.asyncDispose]();
    await transaction[Symbol.asyncDispose]();

    expect((await failureOf(transaction.writeBlob(new Uint8Array([1])))).message).toContain(
      "broken invariant",
    );
    expect(await filesIn(store.root)).toEqual(EMPTY.slice(1));
  });
});

describe("Transaction and sweeps", () => {
  test("store: a sweep does not touch what an open transaction has or found present", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    const doomed = await commitSample(store, { name: "doomed", weights: "wanted again" });
    await using transaction = await store.begin();
    const fresh = await transaction.ingestStream(chunksOf("fresh"));
    const found = await transaction.ingestStream(chunksOf(), {
      expected: doomed.manifest.layers[0],
    });

    await store.remove("doomed", { force: false });
    const report = await store.prune({ all: true, dryRun: false });

    expect(await Promise.all([fresh, found].map(({ digest }) => store.hasBlob(digest)))).toEqual([
      true,
      true,
    ]);
    expect(await store.hasBlob(doomed.manifest.config.digest)).toBe(false);
    expect(report).toMatchObject({ blobs: 0, ingests: 0 });
  });

  test("store: a sweep does not touch the bytes that another transaction is writing", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    const gate = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();

    const ingest = transaction.ingestStream(gated(gate.promise), {
      onBytes: () => started.resolve(),
    });
    await started.promise;
    const report = await store.prune({ all: true, dryRun: false });
    gate.resolve();

    expect(report.ingests).toBe(0);
    expect(await ingest).toEqual({
      digest: digestOf(new TextEncoder().encode("before after")),
      size: 12,
    });
  });
});

async function sourceFile(
  directory: string,
  size: number,
): Promise<{ store: Store; file: string; bytes: Uint8Array<ArrayBuffer> }> {
  const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 7 + (index >> 10)) & 0xff);
  await mkdir(join(directory, "in"), { recursive: true });
  const file = join(directory, "in", "ein Modell 模型.gguf");
  await rm(file, { force: true });
  await writeFile(file, bytes);
  return { store: Store.open(join(directory, "models")), file, bytes };
}

async function* breaking(failure: Error): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(10);
  throw failure;
}

async function* gated(gate: Promise<void>): AsyncGenerator<Uint8Array> {
  yield* chunksOf("before ");
  await gate;
  yield* chunksOf("after");
}

async function* endless(): AsyncGenerator<Uint8Array> {
  for (;;) yield new Uint8Array(ONE_MIB);
}
