import { describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { chmod, open, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../src/errors.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { StoredSettings } from "../../src/state/model-settings.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { isRoot, isWindows, testIf } from "../helpers/test-if.ts";

const GOAL = "do what the test does";

function failureOf(work: () => unknown): AppError {
  try {
    work();
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}

/** Writes garbage over all but the first page: it opens, and breaks where it is read. */
async function damageInside(path: string): Promise<void> {
  const { size } = await stat(path);
  const file = await open(path, "r+");
  await file.write(Buffer.alloc(size - 4096, 0xa5), 0, size - 4096, 4096);
  await file.close();
}

describe("StateDatabase", () => {
  test("is made with its directory when it is first used, and only then", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "deep", "tug.db");
    using state = new StateDatabase(path);
    expect(await readdir(directory.path)).toEqual([]);

    state.open();

    expect(await Bun.file(path).exists()).toBe(true);
    expect(state.open()).toBe(state.open());
  });

  test("of the version before is opened, and is its owner's alone from then on", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    // As a killed runner leaves it: with the files beside it, and for everybody to read.
    const script = `
      process.umask(0o022);
      const { Database } = require("bun:sqlite");
      const database = new Database(${JSON.stringify(path)}, { create: true });
      database.run("PRAGMA journal_mode = WAL");
      database.run("CREATE TABLE IF NOT EXISTS workers (pid INTEGER PRIMARY KEY, start_time TEXT NOT NULL) STRICT");
      database.run("INSERT INTO workers VALUES (4711, 'then')");
      process.kill(process.pid, "SIGKILL");`;
    await Bun.spawn([process.execPath, "-e", script], { stdio: ["ignore", "ignore", "inherit"] })
      .exited;
    const modes = async (): Promise<number[]> =>
      Promise.all(
        ["", "-wal", "-shm"].map(async (suffix) => (await stat(`${path}${suffix}`)).mode & 0o777),
      );
    if (!isWindows) expect(await modes()).toEqual([0o644, 0o644, 0o644]);

    using state = new StateDatabase(path);
    const workers = state.read(GOAL, (database) => database.query("SELECT * FROM workers").all());
    new StoredSettings(state).set("sha256:a", null, { seed: 7 });

    expect(workers).toEqual([{ pid: 4711, start_time: "then" }]);
    expect(new StoredSettings(state).find("sha256:a", null)).toEqual({ seed: 7 });
    if (!isWindows) expect(await modes()).toEqual([0o600, 0o600, 0o600]);
  });

  test("can be used again after it was closed", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(join(directory.path, "tug.db"));
    state.open();

    state[Symbol.dispose]();

    expect(state.read(GOAL, (database) => database.query("SELECT 1 AS one").get())).toEqual({
      one: 1,
    });
  });

  test("writes all or nothing", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(join(directory.path, "tug.db"));
    const insert = "INSERT INTO workers (pid, start_time) VALUES (?, 'x')";

    const fail = () =>
      state.write(GOAL, (database) => {
        database.run(insert, [1]);
        throw new Error("half way");
      });

    expect(fail).toThrow("half way");
    expect(state.read(GOAL, (database) => database.query("SELECT * FROM workers").all())).toEqual(
      [],
    );
  });

  test("is begun anew where it turns out damaged while it is used", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    {
      using before = new StateDatabase(path);
      new StoredSettings(before).set("sha256:a", null, { system: "x".repeat(20_000) });
      before.open().run("PRAGMA wal_checkpoint(TRUNCATE)");
    }
    await damageInside(path);

    using state = new StateDatabase(path);
    const settings = new StoredSettings(state);

    expect(settings.find("sha256:a", null)).toEqual({});
    settings.set("sha256:a", null, { seed: 7 });
    expect(settings.find("sha256:a", null)).toEqual({ seed: 7 });
    expect(await readdir(directory.path)).toContain("tug.db.damaged");
  });

  test("that another process began anew is not moved aside for the damage of the old one", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    {
      using before = new StateDatabase(path);
      new StoredSettings(before).set("sha256:a", null, { system: "x".repeat(20_000) });
      before.open().run("PRAGMA wal_checkpoint(TRUNCATE)");
    }
    await damageInside(path);
    using late = new StateDatabase(path);
    late.open();

    using early = new StateDatabase(path);
    new StoredSettings(early).find("sha256:a", null);
    new StoredSettings(early).set("sha256:b", null, { seed: 7 });
    const seen = new StoredSettings(late);

    // The one that is late still has the old file open, and finds the new one in its place.
    expect(seen.find("sha256:a", null)).toEqual({});
    expect(seen.find("sha256:b", null)).toEqual({ seed: 7 });
  });

  test("says that another process keeps it locked", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    using state = new StateDatabase(path, { busyTimeoutMs: 10 });
    state.open();
    using holder = new Database(path);
    holder.run("BEGIN IMMEDIATE");

    const error = failureOf(() =>
      state.write(GOAL, (database) => database.run("DELETE FROM workers")),
    );

    expect(error.code).toBe("conflict");
    expect(error.message).toContain(`cannot ${GOAL}: another process keeps`);
    expect(await readdir(directory.path)).not.toContain("tug.db.damaged");
    holder.run("ROLLBACK");
  });

  test("says that its place cannot be used", async () => {
    await using directory = await tempDir();
    await writeFile(join(directory.path, "file"), "");
    using below = new StateDatabase(join(directory.path, "file", "tug.db"));

    const error = failureOf(() => below.open());

    expect(error.code).toBe("forbidden");
    expect(error.hint).toEndWith(".");
  });

  test("says that it is a directory", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(directory.path);

    expect(failureOf(() => state.open()).code).toBe("forbidden");
  });

  testIf(!isRoot && !isWindows, "root may write everywhere, Windows has other permissions")(
    "says that it may not be written",
    async () => {
      await using directory = await tempDir();
      const path = join(directory.path, "tug.db");
      using before = new StateDatabase(path);
      before.open();
      before[Symbol.dispose]();
      await chmod(path, 0o444);

      using state = new StateDatabase(path);
      const write = () => state.write(GOAL, (database) => database.run("DELETE FROM workers"));

      expect(failureOf(write).code).toBe("forbidden");
    },
  );

  test("says that there is no room for more", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(join(directory.path, "tug.db"));
    state.open().run("PRAGMA max_page_count = 1");

    const fill = () => new StoredSettings(state).set("a", null, { system: "x".repeat(900_000) });

    expect(failureOf(fill).code).toBe("insufficient_storage");
  });

  test("leaves an author's own error as it is", async () => {
    await using directory = await tempDir();
    using state = new StateDatabase(join(directory.path, "tug.db"));

    expect(
      failureOf(() => state.read(GOAL, (database) => database.query("SELEC").all())).code,
    ).toBe("internal");
    expect(() => state.read(GOAL, () => JSON.parse("{"))).toThrow(SyntaxError);
  });

  test("tells when another connection has written, not of its own writes", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    using state = new StateDatabase(path);
    using other = new StateDatabase(path);
    const insert = "INSERT INTO workers (pid, start_time) VALUES (?, 'x')";
    const before = state.foreignVersion();

    state.write(GOAL, (database) => database.run(insert, [1]));
    expect(state.foreignVersion()).toBe(before);
    other.write(GOAL, (database) => database.run(insert, [2]));
    expect(state.foreignVersion()).not.toBe(before);
  });

  test("gives an older Tug's database the tables it lacks", async () => {
    await using directory = await tempDir();
    const path = join(directory.path, "tug.db");
    {
      using old = new Database(path, { create: true });
      old.run("CREATE TABLE workers (pid INTEGER PRIMARY KEY, start_time TEXT NOT NULL) STRICT");
      old.run("INSERT INTO workers VALUES (5, 'x')");
    }

    using state = new StateDatabase(path);

    expect(new StoredSettings(state).list()).toEqual([]);
    expect(state.read(GOAL, (database) => database.query("SELECT pid FROM workers").all())).toEqual(
      [{ pid: 5 }],
    );
    await rm(path, { force: true });
  });
});
