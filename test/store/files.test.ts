import { describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { removeFile, replaceFile, withPatience } from "../../src/store/files.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";

const BYTES = new TextEncoder().encode("new");

/** Work that fails `times` times because somebody holds the file. */
function heldWork(
  times: number,
  code = "EBUSY",
): {
  attempts: number;
  readonly run: () => Promise<void>;
} {
  const work = {
    attempts: 0,
    run: async () => {
      work.attempts += 1;
      if (work.attempts <= times) throw Object.assign(new Error("held"), { code });
    },
  };
  return work;
}

describe("replaceFile", () => {
  test("puts the new bytes in the place of the old", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "index.json");
    await writeFile(path, "old");

    await replaceFile(path, `${path}.tmp`, BYTES);

    expect(await readFile(path, "utf8")).toBe("new");
    expect(await readdir(directory.path)).toEqual(["index.json"]);
  });

  test("leaves nothing behind where the place cannot be had", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "taken");
    await mkdir(join(path, "by a directory"), { recursive: true });

    await failureOf(replaceFile(path, `${path}.tmp`, BYTES));

    expect(await readdir(directory.path)).toEqual(["taken"]);
  });
});

describe("removeFile", () => {
  test.each(["linux", "win32"] as const)("removes a read-only file (%s)", async (platform) => {
    await using directory = await tempDir();
    const path = join(directory.path, "blob");
    await writeFile(path, "x", { mode: 0o444 });

    expect(await removeFile(path, platform)).toBe(true);
    expect(await removeFile(path, platform)).toBe(false);
  });
});

describe("withPatience", () => {
  test("tries again on Windows while somebody holds the file", async () => {
    const work = heldWork(2);

    await withPatience(work.run, "win32");

    expect(work.attempts).toBe(3);
  });

  test.each([
    ["on other systems", "linux", "EBUSY"],
    ["for other failures", "win32", "ENOENT"],
  ] as const)("does not try again %s", async (_, platform, code) => {
    const work = heldWork(1, code);

    expect((await failureOf(withPatience(work.run, platform))).message).toBe("held");
    expect(work.attempts).toBe(1);
  });

  test("gives up in the end", async () => {
    const work = heldWork(Number.POSITIVE_INFINITY);

    expect((await failureOf(withPatience(work.run, "win32"))).message).toBe("held");
    expect(work.attempts).toBe(20);
  });
});
