import { describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { LogFile, parseHeader } from "../../src/runtime/log-file.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const TIME = "2026-01-31T12:00:00.000Z";
const STAMP = `[${TIME}] `;
const now = (): Date => new Date(TIME);
const ENGINE = { model: "ai/m:latest", model_id: "sha256:1", backend: "llama.cpp", pid: 7 };
const HEADER = `# ${JSON.stringify({ time: TIME, ...ENGINE })}\n`;

describe("LogFile", () => {
  test("log file: nothing is created before the first write", async () => {
    await using directory = await tempDir();

    await using _file = new LogFile(join(directory.path, "deep", "worker-1.log"));

    expect(await readdir(directory.path)).toEqual([]);
  });

  test("log file: the header, and then each line with its time, however it came in pieces", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "worker-1.log");
    await using file = new LogFile(path, { now });

    void file.begin(ENGINE);
    for (const piece of ["one", " line\ntwo", "\n\nfo", "ur"]) await file.write(utf8(piece));

    expect(await readFile(path, "utf8")).toBe(
      `${HEADER}${STAMP}one line\n${STAMP}two\n${STAMP}\n${STAMP}four`,
    );
  });

  test("log file: at its limit it goes on in a new file under the same header and keeps one", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "wörker 1.log");
    await using file = new LogFile(path, { maxBytes: HEADER.length + 10, now });

    await file.begin(ENGINE);
    for (const line of ["first\n", "second\n", "third\n"]) await file.write(utf8(line));

    const continued = `# ${JSON.stringify({ time: TIME, ...ENGINE, continued: true })}\n`;
    expect((await readdir(directory.path)).toSorted()).toEqual(["wörker 1.log", "wörker 1.log.1"]);
    expect(await readFile(path, "utf8")).toBe(`${continued}${STAMP}third\n`);
    expect(await readFile(`${path}.1`, "utf8")).toBe(`${continued}${STAMP}second\n`);
  });

  test("log file: a line without an end is kept within the limit as well", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "worker-1.log");
    await using file = new LogFile(path, { maxBytes: 100, now });

    for (let index = 0; index < 10; index += 1) await file.write(utf8("x".repeat(60)));

    expect((await readFile(path)).length).toBeLessThan(200);
    expect((await readFile(`${path}.1`)).length).toBeLessThan(200);
    expect(await readFile(path, "utf8")).toStartWith(`${STAMP}x`);
  });

  test("log file: it goes on behind the worker before, also one that died in a line", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "worker-1.log");
    await writeFile(path, "of the one before");

    await using file = new LogFile(path, { now });
    await Promise.all([file.begin(ENGINE), file.write(utf8("a")), file.write(utf8("b"))]);

    expect(await readFile(path, "utf8")).toBe(`of the one before\n${HEADER}${STAMP}ab`);
    expect(await readdir(directory.path)).toEqual(["worker-1.log"]);
  });

  test("log file: a file that is full already is moved before the first line", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "worker-1.log");
    await writeFile(path, "old\n".repeat(10));

    await using file = new LogFile(path, { maxBytes: 20, now });
    await file.begin(ENGINE);

    expect(await readFile(path, "utf8")).toBe(HEADER);
    expect(await readFile(`${path}.1`, "utf8")).toBe("old\n".repeat(10));
  });

  test("log file: a path that cannot be written costs the log only", async () => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "file"), "");
    await mkdir(join(directory.path, "worker-2.log"));
    for (const path of [join("file", "worker-1.log"), "worker-2.log"]) {
      await using file = new LogFile(join(directory.path, path));
      await file.begin(ENGINE);
      await file.write(utf8("a"));
      await file.write(utf8("b"));
    }

    expect((await readdir(directory.path)).toSorted()).toEqual(["file", "worker-2.log"]);
  });
});

describe("parseHeader", () => {
  test("header: what was written is read", () => {
    expect(parseHeader(HEADER.trimEnd())).toEqual({ time: TIME, ...ENGINE });
  });

  test.each(["", "# ", "# {", "# null", "# 1", '# {"time":1,"model":"m"}', `${STAMP}# {}`, "#"])(
    "header: `%s` is none",
    (line) => {
      expect(parseHeader(line)).toBeUndefined();
    },
  );
});
