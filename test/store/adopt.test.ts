import { describe, expect, test } from "bun:test";
import { utimesSync } from "node:fs";
import { chmod, link, readdir, readFile, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { digestOf } from "../../src/oci/digest.ts";
import { Store } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf } from "./failure-of.ts";
import { CAN_MOUNT, smallDisk } from "./small-disk.ts";

const BYTES = new TextEncoder().encode("weights that belong to another program");
const BLOB = { digest: digestOf(BYTES), size: BYTES.length };

/** A file of another program, old and writable. */
async function foreignFile(path: string): Promise<string> {
  await writeFile(path, BYTES);
  await chmod(path, 0o640);
  await utimes(path, 1_000_000, 1_000_000);
  return path;
}

async function stateOf(path: string): Promise<unknown> {
  const { mode, mtimeMs, ino, size, uid } = await stat(path);
  return { mode, mtimeMs, ino, size, uid, bytes: (await readFile(path)).toString("hex") };
}

describe("Transaction.adoptFile", () => {
  test("adopt: a file is shared, and stays as it is for its owner", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const file = await foreignFile(join(directory.path, "foreign"));
    const before = await stateOf(file);
    await using transaction = await store.begin();

    const result = await transaction.adoptFile(file, BLOB);
    const again = await transaction.adoptFile(file, BLOB);

    expect(result).toMatchObject({ ...BLOB, method: expect.stringMatching(/^(link|clone)$/) });
    expect(again.method).toBe("present");
    expect(await stateOf(file)).toEqual(before);
    expect(Buffer.compare(await readFile(store.blobPath(BLOB.digest)), BYTES)).toBe(0);
  });

  test("adopt: what is not committed goes, and the file stays", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const file = await foreignFile(join(directory.path, "foreign"));
    const before = await stateOf(file);
    {
      await using transaction = await store.begin();
      await transaction.adoptFile(file, BLOB);
    }

    expect(await store.hasBlob(BLOB.digest)).toBe(false);
    expect(await stateOf(file)).toEqual(before);
  });

  testIf(CAN_MOUNT, "mounting is not allowed here")(
    "adopt: a file on another disk is copied, and says why",
    async () => {
      await using directory = await tempDir();
      await using disk = await smallDisk(directory.path);
      const store = Store.open(join(directory.path, "store"));
      const file = await foreignFile(join(disk.path, "foreign"));
      const before = await stateOf(file);
      await using transaction = await store.begin();

      const result = await transaction.adoptFile(file, BLOB);

      expect(result).toMatchObject({
        method: "copy",
        reason: expect.stringContaining("another disk"),
      });
      expect((await stat(store.blobPath(BLOB.digest))).mode & 0o777).toBe(0o444);
      expect(await stateOf(file)).toEqual(before);
    },
  );

  test("adopt: a file with other bytes, or of another size, is refused and stays as it is", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const file = await foreignFile(join(directory.path, "foreign"));
    const before = await stateOf(file);
    await using transaction = await store.begin();
    const wrong = [
      { ...BLOB, digest: digestOf(new Uint8Array([1])) },
      { ...BLOB, size: BLOB.size + 1 },
    ];

    for (const blob of wrong)
      expect(await failureOf(transaction.adoptFile(file, blob))).toMatchObject({
        code: "digest_mismatch",
      });
    expect(await failureOf(transaction.adoptFile(`${file}-not`, BLOB))).toMatchObject({
      code: "not_found",
    });
    expect(await failureOf(transaction.adoptFile(directory.path, BLOB))).toMatchObject({
      code: "invalid_request",
    });

    expect(await stateOf(file)).toEqual(before);
    expect(await readdir(join(store.root, "ingest"))).toEqual([]);
    expect(await readdir(join(store.root, "blobs", "sha256"))).toEqual([]);
  });

  test("adopt: a file that changes while it is read is refused", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const file = await foreignFile(join(directory.path, "foreign"));
    await using transaction = await store.begin();

    const failure = await failureOf(
      transaction.adoptFile(file, BLOB, {
        onBytes: () => utimesNow(file),
      }),
    );

    expect(failure).toMatchObject({ code: "conflict" });
    expect(await readdir(join(store.root, "ingest"))).toEqual([]);
  });

  test("adopt: who has given up stores nothing", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const file = await foreignFile(join(directory.path, "foreign"));
    await using transaction = await store.begin();

    const failure = await failureOf(
      transaction.adoptFile(file, BLOB, { signal: AbortSignal.abort() }),
    );

    expect(failure.name).toBe("AbortError");
    expect(await store.hasBlob(BLOB.digest)).toBe(false);
  });

  test("adopt: a file that was linked elsewhere already is no obstacle", async () => {
    await using directory = await tempDir();
    const store = Store.open(join(directory.path, "store"));
    const file = await foreignFile(join(directory.path, "foreign"));
    await link(file, `${file}-2`);
    await using transaction = await store.begin();

    await transaction.adoptFile(`${file}-2`, BLOB);

    expect((await store.verify({ signal: new AbortController().signal })).problems).toEqual([]);
    expect(await store.hasBlob(BLOB.digest)).toBe(true);
  });
});

function utimesNow(path: string): void {
  // Synchronously: it must happen before the file is looked at again.
  utimesSync(path, 2_000_000, 2_000_000);
}
