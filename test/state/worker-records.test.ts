import { describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StateDatabase } from "../../src/state/database.ts";
import { WorkerRecords } from "../../src/state/worker-records.ts";
import { tempDir } from "../helpers/temp-dir.ts";

describe("WorkerRecords", () => {
  test("keep what was added until it is removed, across processes", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    using firstState = new StateDatabase(path);
    const first = new WorkerRecords(firstState);
    first.add({ pid: 1, startTime: "a" });
    first.add({ pid: 2, startTime: "b" });
    first.remove(1);

    using secondState = new StateDatabase(path);
    const second = new WorkerRecords(secondState);

    expect(second.list()).toEqual([{ pid: 2, startTime: "b" }]);
  });

  test("begin anew where the database is damaged, and leave it beside", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    await writeFile(path, "no database at all, but long enough to be looked at");

    using state = new StateDatabase(path);
    const records = new WorkerRecords(state);

    expect(records.list()).toEqual([]);
    expect(await readdir(directory.path)).toContain("tug.db.damaged");
  });

  test("do not take a database that another process holds for a damaged one", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    using holder = new Database(path, { create: true });
    holder.run("PRAGMA locking_mode = EXCLUSIVE");
    holder.run("BEGIN EXCLUSIVE");

    using state = new StateDatabase(path, { busyTimeoutMs: 10 });
    const records = new WorkerRecords(state);

    expect(() => records.list()).toThrow("locked");
    expect(await readdir(directory.path)).not.toContain("tug.db.damaged");
  });
});
