import { describe, expect, test } from "bun:test";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { LogFile } from "../../src/runtime/log-file.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("LogFile", () => {
  test("log file: nothing is created before the first write", async () => {
    await using directory = await tempDir();

    await using _file = new LogFile(join(directory.path, "deep", "worker-1.log"));

    expect(await readdir(directory.path)).toEqual([]);
  });

  test("log file: at its limit it goes on in a new file and keeps one before it", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "wörker 1.log");
    await using file = new LogFile(path, { maxBytes: 10 });

    for (const line of ["first line\n", "second line\n", "third line\n"])
      await file.write(utf8(line));

    expect((await readdir(directory.path)).toSorted()).toEqual(["wörker 1.log", "wörker 1.log.1"]);
    expect(await readFile(path, "utf8")).toBe("third line\n");
    expect(await readFile(`${path}.1`, "utf8")).toBe("second line\n");
  });

  test("log file: the log of the worker before is kept as .1", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "worker-1.log");
    await writeFile(path, "of the one before");

    await using file = new LogFile(path);
    await Promise.all([file.write(utf8("a")), file.write(utf8("b"))]);

    expect(await readFile(path, "utf8")).toBe("ab");
    expect(await readFile(`${path}.1`, "utf8")).toBe("of the one before");
  });

  test("log file: a path that cannot be written costs the log only", async () => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "file"), "");
    await using file = new LogFile(join(directory.path, "file", "worker-1.log"));

    await file.write(utf8("a"));
    await file.write(utf8("b"));

    expect(await readdir(directory.path)).toEqual(["file"]);
  });
});
