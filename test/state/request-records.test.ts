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

  test("are readable for their owner only", async () => {
    await using it = await setUp();

    it.records.add(record("a"));

    const { mode } = await stat(it.path);
    expect(mode & 0o077).toBe(0);
  });

  test("leave the database as careful as it was", async () => {
    await using it = await setUp();

    it.records.add(record("a"));
    it.records.clear();

    expect(it.state.open().query("PRAGMA synchronous").get()).toEqual({ synchronous: 2 });
    expect(it.state.open().query("PRAGMA secure_delete").get()).toEqual({ secure_delete: 0 });
  });
});
