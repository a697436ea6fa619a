import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { digestOf } from "../../src/oci/digest.ts";
import { ThreadDigester } from "../../src/store/thread-digester.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";

const BYTES = new TextEncoder().encode("bytes that are hashed elsewhere");
const PIECE = { start: 0, end: BYTES.length, crc: crc32(BYTES) };

describe("ThreadDigester", () => {
  test("thread-digester: sound pieces are hashed, up to the first that is not", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "file");
    await writeFile(path, Buffer.concat([BYTES, BYTES]));
    const file = openSync(path, "r");
    using digester = new ThreadDigester(file);
    const [from, to] = [BYTES.length, 2 * BYTES.length];

    const sound = await digester.hash([PIECE, { start: from, end: to, crc: 1 }]);

    expect([sound, digester.hashedBytes]).toEqual([1, from]);
    expect(await digester.digest()).toBe(digestOf(BYTES));
    expect(await digester.hash([{ start: from, end: to + 1, crc: 1 }])).toBe(0);
    await digester.rewind(0);
    expect(digester.hashedBytes).toBe(0);
    closeSync(file);
  });

  test("thread-digester: what goes wrong there goes wrong here", async () => {
    using digester = new ThreadDigester(1_000_000);

    expect(await failureOf(digester.hash([PIECE]))).toMatchObject({ code: "EBADF" });
    // It goes on afterwards.
    expect(await digester.digest()).toBe(digestOf(new Uint8Array()));
  });

  test("thread-digester: who waits when it is ended is told", async () => {
    const digester = new ThreadDigester(0);
    const waiting = failureOf(digester.digest());

    digester[Symbol.dispose]();

    expect((await waiting).message).toContain("ended");
  });

  test.each([
    ["fails", 'throw new Error("no such thread")', "no such thread"],
    ["cannot be read", "not a program(", "hashing thread failed"],
    ["ends without a word", "process.exit(3)", "hashing thread ended"],
  ])("thread-digester: nobody waits for a thread that %s", async (_, script, reason) => {
    await using directory = await tempDir();
    const path = join(directory.path, "thread.js");
    await writeFile(path, script);
    using digester = new ThreadDigester(0, path);

    expect((await failureOf(digester.digest())).message).toContain(reason);
    // Nor later, when it is gone.
    expect((await failureOf(digester.hash([PIECE]))).message).toContain(reason);
    expect((await failureOf(digester.rewind(0))).message).toContain(reason);
  });
});
