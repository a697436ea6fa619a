import { describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { WorkerRecords } from "../../src/runtime/worker-records.ts";
import { tempDir } from "../helpers/temp-dir.ts";

describe("WorkerRecords", () => {
  test("keep what was added until it is removed, across processes", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    const first = new WorkerRecords(path);
    first.add({ pid: 1, startTime: "a" });
    first.add({ pid: 2, startTime: "b" });
    first.remove(1);
    first.close();

    const second = new WorkerRecords(path);

    expect(second.list()).toEqual([{ pid: 2, startTime: "b" }]);
    second.close();
  });

  test("begin anew where the database is damaged, and leave it beside", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    await writeFile(path, "no database at all, but long enough to be looked at");

    const records = new WorkerRecords(path);

    expect(records.list()).toEqual([]);
    expect(await readdir(directory.path)).toContain("tug.db.damaged");
    records.close();
  });

  test("do not take a database that another process holds for a damaged one", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    using holder = new Database(path, { create: true });
    holder.run("PRAGMA locking_mode = EXCLUSIVE");
    holder.run("BEGIN EXCLUSIVE");

    const records = new WorkerRecords(path, { busyTimeoutMs: 10 });

    expect(() => records.list()).toThrow("locked");
    expect(await readdir(directory.path)).not.toContain("tug.db.damaged");
  });
});
