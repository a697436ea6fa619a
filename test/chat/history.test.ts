import { describe, expect, test } from "bun:test";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { History, HISTORY_ENTRIES, isHistoryWanted } from "../../src/chat/history.ts";
import { tempDir } from "../helpers/temp-dir.ts";

describe("History", () => {
  test("history: entries of several lines survive, equal neighbours count once", async () => {
    await using directory = await tempDir();
    const options = { file: join(directory.path, "deep", "history"), isWritable: true };
    const history = await History.open(options);

    for (const entry of ["one", "two\nlines", "two\nlines", "  ", "日本"]) await history.add(entry);

    expect((await History.open(options)).entries).toEqual(["one", "two\nlines", "日本"]);
    expect((await stat(options.file)).mode & 0o777).toBe(
      process.platform === "win32" ? 0o666 : 0o600,
    );
  });

  test("history: two sessions that write at once lose nothing", async () => {
    await using directory = await tempDir();
    const options = { file: join(directory.path, "history"), isWritable: true };
    const [first, second] = [await History.open(options), await History.open(options)];

    await first.add("a");
    await second.add("b");
    await first.add("c");

    expect((await History.open(options)).entries).toEqual(["a", "b", "c"]);
  });

  test("history: it is bounded, in memory and on disk", async () => {
    await using directory = await tempDir();
    const options = { file: join(directory.path, "history"), isWritable: true };
    const lines = Array.from({ length: 2 * HISTORY_ENTRIES + 1 }, (_, index) => `"${index}"\n`);
    await writeFile(options.file, lines.join(""));

    const history = await History.open(options);
    await history.add("last");

    expect(history.entries).toHaveLength(HISTORY_ENTRIES);
    expect(history.entries.at(-1)).toBe("last");
    expect((await readFile(options.file, "utf8")).trimEnd().split("\n")).toHaveLength(
      HISTORY_ENTRIES + 1,
    );
  });

  test("history: not writable, it writes nothing and remembers for the session", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "history");
    const history = await History.open({ file, isWritable: false });

    await history.add("secret");

    expect(history.entries).toEqual(["secret"]);
    expect(await Bun.file(file).exists()).toBe(false);
  });

  test("history: a file that cannot be read or written is no failure", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "history");
    await mkdir(file);
    const history = await History.open({ file, isWritable: true });

    await history.add("one");

    expect(history.entries).toEqual(["one"]);
  });

  test("history: a line that is not JSON is taken as it is", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "history");
    await writeFile(file, 'plain words\n"json"\n42\n');

    expect((await History.open({ file, isWritable: true })).entries).toEqual([
      "plain words",
      "json",
      "42",
    ]);
  });

  test("history: either variable turns writing off", () => {
    expect(isHistoryWanted({})).toBe(true);
    expect(isHistoryWanted({ TUG_NOHISTORY: "" })).toBe(true);
    expect(isHistoryWanted({ TUG_NOHISTORY: "1" })).toBe(false);
    expect(isHistoryWanted({ DOCKER_MODEL_NOHISTORY: "1" })).toBe(false);
  });
});
