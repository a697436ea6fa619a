import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { RequestRecord } from "../../src/api/requests.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { type RecordLimits, RequestRecords } from "../../src/state/request-records.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const MODEL = `sha256:${"a".repeat(64)}`;

function record(id: string, overrides: Partial<RequestRecord> = {}): RequestRecord {
  return {
    id,
    model: "pebble",
    model_id: MODEL,
    mode: "completion",
    dialect: "openai",
    backend: "llama.cpp",
    method: "POST",
    url: "/v1/chat/completions",
    stream: true,
    request: '{"model":"pebble"}',
    request_cut: false,
    media_cut: 0,
    response: "{}",
    response_cut: false,
    error: null,
    timestamp: 1_800_000_000,
    started_at: "2027-01-15T08:00:00.000Z",
    status_code: 200,
    duration_ms: 12,
    queue_ms: 1,
    first_token_ms: 5,
    input_tokens: 3,
    output_tokens: 2,
    finish_reasons: ["stop"],
    user_agent: null,
    origin: null,
    ...overrides,
  };
}

async function setUp(limits?: RecordLimits) {
  const directory = await tempDir();
  const path = join(directory.path, "tug.db");
  const state = new StateDatabase(path);
  return {
    path,
    state,
    records: new RequestRecords(state, limits),
    async [Symbol.asyncDispose]() {
      state[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

const ids = (records: readonly RequestRecord[]) => records.map(({ id }) => id);

describe("RequestRecords", () => {
  test("give back what they were given, also to another process", async () => {
    await using it = await setUp();

    it.records.add(record("one", { request: "quotes ' and \u0000 é 🦆" }));
    using other = new StateDatabase(it.path);

    expect(new RequestRecords(other).find("one")).toEqual(
      record("one", { request: "quotes ' and \u0000 é 🦆" }),
    );
    expect(it.records.find("two")).toBeUndefined();
    expect(it.records.find("' OR 1=1 --")).toBeUndefined();
  });

  test("list the newest, oldest of them first, also of one millisecond", async () => {
    await using it = await setUp();
    for (const id of ["a", "b", "c", "d"]) it.records.add(record(id));
    it.records.add(record("older", { started_at: "2027-01-15T07:00:00.000Z" }));

    expect(ids(it.records.list({ limit: 10 }))).toEqual(["older", "a", "b", "c", "d"]);
    expect(ids(it.records.list({ limit: 2 }))).toEqual(["c", "d"]);
    expect(ids(it.records.list({ limit: 2, keep: ({ id }) => id < "c" }))).toEqual(["a", "b"]);
  });

  test("keep a number of rows, the newest", async () => {
    await using it = await setUp({ maxRows: 3, maxBytes: 1e9 });

    for (let index = 0; index < 10; index += 1) {
      it.records.add(record(`r${index}`, { started_at: new Date(1e12 + index).toISOString() }));
    }

    expect(ids(it.records.list({ limit: 100 }))).toEqual(["r7", "r8", "r9"]);
  });

  test("keep a number of bytes, and of a record that is too long nothing", async () => {
    await using it = await setUp({ maxRows: 100, maxBytes: 5000 });

    for (const id of ["a", "b", "c"]) it.records.add(record(id, { request: "x".repeat(1500) }));
    const before = ids(it.records.list({ limit: 100 }));
    it.records.add(
      record("long", { request: "x".repeat(6000), started_at: "2027-02-01T00:00:00.000Z" }),
    );

    expect(before).toHaveLength(2);
    expect(it.records.list({ limit: 100 })).toEqual([]);
  });

  test("forget everything, and leave nothing of it in the files", async () => {
    await using it = await setUp();
    const secret = "a very private prompt";
    for (const id of ["a", "b"]) it.records.add(record(id, { request: secret }));

    const removed = it.records.clear();
    it.state[Symbol.dispose]();

    expect(removed).toBe(2);
    expect(await readFile(it.path, "latin1")).not.toContain(secret);
  });

  test("stay in the write-ahead log until there is time to move them", async () => {
    await using it = await setUp();
    it.records.add(record("first"));
    it.records.settle();
    const { size: before } = await stat(it.path);

    // Twice as much as SQLite would take before it moves all of it while the last one is written.
    for (let index = 0; index < 80; index += 1) {
      it.records.add(record(`r${index}`, { request: "x".repeat(100_000) }));
    }
    const { size: unsettled } = await stat(it.path);
    it.records.settle();

    expect(unsettled).toBe(before);
    expect((await stat(it.path)).size).toBeGreaterThan(before + 8_000_000);
    expect(it.records.list({ limit: 1000 })).toHaveLength(81);
  });

  test("do not wait for another process that keeps the database to itself", async () => {
    await using it = await setUp();
    it.records.add(record("a"));
    using holder = new Database(it.path);
    holder.run("BEGIN IMMEDIATE");
    const startMs = performance.now();

    expect(() => it.records.add(record("b"))).toThrow(
      expect.objectContaining({ code: "conflict" }),
    );

    // Others wait for five seconds.
    expect(performance.now() - startMs).toBeLessThan(2500);
    holder.run("ROLLBACK");
    it.records.add(record("c"));
    expect(ids(it.records.list({ limit: 10 }))).toEqual(["a", "c"]);
  });

  test("make room for more than one at once, where many are kept", async () => {
    await using it = await setUp({ maxRows: 256, maxBytes: 1e9 });
    const counts = new Set<number>();

    for (let index = 0; index < 300; index += 1) {
      it.records.add(record(`r${index}`, { started_at: new Date(1e12 + index).toISOString() }));
      if (index >= 256) counts.add(it.records.list({ limit: 1000 }).length);
    }

    expect(Math.max(...counts)).toBe(256);
    expect(Math.min(...counts)).toBe(254);
    expect(it.records.list({ limit: 1 })[0]?.id).toBe("r299");
  });

  test("count again where another process has forgotten them", async () => {
    await using it = await setUp({ maxRows: 3, maxBytes: 1e9 });
    for (const id of ["a", "b", "c"]) it.records.add(record(id));
    using other = new StateDatabase(it.path);
    new RequestRecords(other).clear();

    for (const id of ["d", "e", "f"]) it.records.add(record(id));

    expect(ids(it.records.list({ limit: 10 }))).toEqual(["d", "e", "f"]);
  });

  test("are readable for their owner only", async () => {
    await using it = await setUp();

    it.records.add(record("a"));

    for (const suffix of ["", "-wal", "-shm"]) {
      const { mode } = await stat(`${it.path}${suffix}`);
      if (process.platform !== "win32") expect([suffix, mode & 0o777]).toEqual([suffix, 0o600]);
    }
  });

  test("leave the database as careful as it was", async () => {
    await using it = await setUp();

    it.records.add(record("a"));
    it.records.clear();

    expect(it.state.open().query("PRAGMA synchronous").get()).toEqual({ synchronous: 2 });
    expect(it.state.open().query("PRAGMA secure_delete").get()).toEqual({ secure_delete: 0 });
    expect(it.state.open().query("PRAGMA busy_timeout").get()).toEqual({ timeout: 5000 });
  });
});
