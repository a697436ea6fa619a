import { describe, expect, test } from "bun:test";
import { readdir, readFile, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { digestOf } from "../../src/oci/digest.ts";
import { type BlobId, type PartialBlob, Store, type Transaction } from "../../src/store/store.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { testIf } from "../helpers/test-if.ts";
import { failureOf } from "./failure-of.ts";
import { CAN_MOUNT, smallDisk } from "./small-disk.ts";

const KIB = 1024;
const BYTES = Uint8Array.from({ length: 1000 * KIB }, (_, index) => (index * 7919) >>> 3);
const BLOB = { digest: digestOf(BYTES), size: BYTES.length };

/** Writes those bytes of the blob, or of another one in its place. */
function write(
  partial: PartialBlob,
  { start, end }: { readonly start: number; readonly end: number },
  bytes: Uint8Array = BYTES,
): void {
  using writer = partial.writeFrom(start);
  writer.write(bytes.subarray(start, end));
}

async function hashAll(partial: PartialBlob): Promise<void> {
  while ((await partial.hashNext()) !== undefined);
}

describe.each([
  ["as they come", false],
  ["in a thread", true],
])("PartialBlob: bytes are hashed %s", (_name, isThreaded) => {
  async function open(transaction: Transaction, blob: BlobId = BLOB): Promise<PartialBlob> {
    await transaction.claim(blob);
    const partial = await transaction.openPartial(blob, { isThreaded });
    if (typeof partial === "string") throw new Error(`the blob is ${partial}`);
    return partial;
  }

  test("partial: bytes that arrive in order are hashed and become a blob", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    await using partial = await open(transaction);

    write(partial, { start: 0, end: 300 * KIB });
    write(partial, { start: 300 * KIB, end: BYTES.length });

    expect([partial.isWhole, partial.canHash]).toEqual([true, isThreaded]);
    await hashAll(partial);
    expect(await partial.digest()).toBe(BLOB.digest);
    await partial.publish();
    expect(Buffer.compare(await readFile(store.blobPath(BLOB.digest)), BYTES)).toBe(0);
    expect((await stat(store.blobPath(BLOB.digest))).mode & 0o777).toBe(0o444);
    expect(await transaction.openPartial(BLOB)).toBe("present");
  });

  test("partial: bytes that arrive out of order are hashed when those before them are there", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    await using partial = await open(transaction);

    write(partial, { start: 700 * KIB, end: BYTES.length });
    write(partial, { start: 100 * KIB, end: 500 * KIB });
    expect([partial.hashedBytes, partial.canHash, await partial.digest()]).toEqual([
      0,
      false,
      undefined,
    ]);
    expect(partial.missing).toEqual([
      { start: 0, end: 100 * KIB },
      { start: 500 * KIB, end: 700 * KIB },
    ]);
    write(partial, { start: 0, end: 100 * KIB });
    await hashAll(partial);
    expect(partial.hashedBytes).toBe(500 * KIB);
    write(partial, { start: 500 * KIB, end: 700 * KIB });
    await hashAll(partial);

    expect(await partial.digest()).toBe(BLOB.digest);
  });

  test("partial: what is written while the digest catches up is hashed up to where it has come", async () => {
    await using directory = await tempDir();
    await using transaction = await Store.open(directory.path).begin();
    await using partial = await open(transaction);
    using ahead = partial.writeFrom(10 * KIB);
    ahead.write(BYTES.subarray(10 * KIB, 20 * KIB));
    write(partial, { start: 0, end: 10 * KIB });

    await hashAll(partial);
    // A thread waits until the piece is finished.
    expect(partial.hashedBytes).toBe(isThreaded ? 10 * KIB : 20 * KIB);
    ahead.write(BYTES.subarray(20 * KIB));
    ahead[Symbol.dispose]();
    await hashAll(partial);

    expect(await partial.digest()).toBe(BLOB.digest);
  });

  test("partial: one holder at a time; the next one finds what the first left", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    await using other = await store.begin();
    {
      await using partial = await open(transaction);
      write(partial, { start: 100 * KIB, end: 200 * KIB });
      await other.claim(BLOB);
      expect(await other.openPartial(BLOB)).toBe("busy");
      expect(await other.partialBytes(BLOB.digest)).toBeGreaterThan(0);
    }

    await using partial = await open(other);

    expect([partial.doneBytes, partial.missing]).toEqual([
      100 * KIB,
      [
        { start: 0, end: 100 * KIB },
        { start: 200 * KIB, end: BYTES.length },
      ],
    ]);
  });

  test("partial: who writes nothing leaves nothing", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    {
      await using _partial = await open(transaction);
    }

    expect(await readdir(join(store.root, "ingest"))).toEqual([]);
    expect(await transaction.partialBytes(BLOB.digest)).toBe(0);
  });

  test("partial: a range that was written again counts by its new bytes", async () => {
    await using directory = await tempDir();
    await using transaction = await Store.open(directory.path).begin();
    await using partial = await open(transaction);
    const wrong = BYTES.slice();
    wrong[500 * KIB] = (wrong[500 * KIB] ?? 0) ^ 1;
    write(partial, { start: 0, end: BYTES.length }, wrong);
    await hashAll(partial);
    expect(await partial.digest()).toBe(digestOf(wrong));
    const [first, second] = [
      { start: 0, end: 64 * KIB },
      { start: 448 * KIB, end: 512 * KIB },
    ];

    partial.forget(first);
    write(partial, first);
    expect(await partial.rehash()).toBe(false);
    partial.forget(second);
    write(partial, second);
    expect([await partial.rehash(), await partial.digest()]).toEqual([true, undefined]);
    await hashAll(partial);

    expect(await partial.digest()).toBe(BLOB.digest);
  });

  test("partial: a digest that was remembered half way is gone back to, not to the beginning", async () => {
    await using directory = await tempDir();
    await using transaction = await Store.open(directory.path).begin();
    const bytes = new Uint8Array(130 * KIB * KIB);
    const blob = { digest: digestOf(bytes), size: bytes.length };
    await using partial = await open(transaction, blob);
    const wrong = bytes.slice();
    wrong[100 * KIB * KIB] = 1;
    write(partial, { start: 0, end: bytes.length }, wrong);
    await hashAll(partial);
    partial.forget({ start: 99 * KIB * KIB, end: 101 * KIB * KIB });
    for (const range of partial.missing) write(partial, range, bytes);

    expect(await partial.rehash()).toBe(true);
    expect(partial.hashedBytes).toBeGreaterThanOrEqual(64 * KIB * KIB);
    await hashAll(partial);

    expect(await partial.digest()).toBe(blob.digest);
  });

  test("partial: bytes that the disk changed are lost, and said to be", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    {
      await using partial = await open(transaction);
      write(partial, { start: 0, end: BYTES.length });
    }
    const part = join(store.root, "ingest", `${BLOB.digest.slice(7)}.part`);
    const spoiled = await readFile(part);
    spoiled[200 * KIB] = (spoiled[200 * KIB] ?? 0) ^ 1;
    await writeFile(part, spoiled);

    await using partial = await open(transaction);
    const lost: unknown[] = [];
    for (let range = await partial.hashNext(); range; range = await partial.hashNext())
      if (range.end > range.start) lost.push(range);

    expect(lost).toEqual([{ start: 192 * KIB, end: 256 * KIB }]);
    expect(partial.missing).toEqual([{ start: 192 * KIB, end: 256 * KIB }]);
    write(partial, { start: 192 * KIB, end: 256 * KIB });
    await hashAll(partial);
    expect(await partial.digest()).toBe(BLOB.digest);
  });

  test("partial: after it was distrusted nothing of it counts", async () => {
    await using directory = await tempDir();
    await using transaction = await Store.open(directory.path).begin();
    {
      await using partial = await open(transaction);
      write(partial, { start: 0, end: BYTES.length });
      partial.distrust();
    }

    await using partial = await open(transaction);

    expect(partial.doneBytes).toBe(0);
  });

  test("partial: what another came before with stays, if it is sound", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    await using partial = await open(transaction);
    write(partial, { start: 0, end: BYTES.length });
    await using other = await store.begin();
    await other.writeBlob(BYTES);
    const before = await stat(store.blobPath(BLOB.digest));

    await hashAll(partial);
    await partial.publish();

    expect((await stat(store.blobPath(BLOB.digest))).ino).toBe(before.ino);
  });

  test("partial: a blob of the wrong size is no blob, and is replaced", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    await writeFile(store.blobPath(BLOB.digest), "short");

    expect(await transaction.claim(BLOB)).toBe(false);
    await using partial = await open(transaction);
    write(partial, { start: 0, end: BYTES.length });
    await hashAll(partial);
    await partial.publish();

    expect(await transaction.claim(BLOB)).toBe(true);
    expect(digestOf(await readFile(store.blobPath(BLOB.digest)))).toBe(BLOB.digest);
  });

  test("partial: unverified bytes never become a blob, and none are written behind the end", async () => {
    await using directory = await tempDir();
    const store = Store.open(directory.path);
    await using transaction = await store.begin();
    await using partial = await open(transaction);
    write(partial, { start: 0, end: BYTES.length }, new Uint8Array(BYTES.length));

    expect((await failureOf(partial.publish())).message).toContain("broken invariant");
    expect(() => partial.writeFrom(BYTES.length).write(new Uint8Array(1))).toThrow(
      "broken invariant",
    );
    expect(await store.hasBlob(BLOB.digest)).toBe(false);
  });
});

describe("PartialBlob: the journal", () => {
  testIf(CAN_MOUNT, "mounting is not allowed here")(
    "partial: an entry that finds no room costs no more than itself",
    async () => {
      await using directory = await tempDir();
      await using disk = await smallDisk(directory.path);
      const store = Store.open(join(disk.path, "store"));
      await using transaction = await store.begin();
      await transaction.claim(BLOB);
      const partial = await transaction.openPartial(BLOB);
      if (typeof partial === "string") throw new Error(`the blob is ${partial}`);
      await using _partial = partial;
      write(partial, { start: 0, end: 1 });
      const { bavail, bsize } = await statfs(disk.path);
      await writeFile(join(disk.path, "full"), new Uint8Array(bavail * bsize));

      // The page of the file is there; the journal needs another one.
      for (let start = 1; start < 400; start += 1) write(partial, { start, end: start + 1 });

      expect(partial.doneBytes).toBe(400);
      const whole = (): void => write(partial, { start: 400, end: BYTES.length });
      expect(whole).toThrow("no space is left");
    },
  );
});
