import { describe, expect, test } from "bun:test";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { OutputMessage, ResponseItem, ResponseObject } from "../../src/api/responses.ts";
import { toEcho } from "../../src/server/translate/responses/request.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { type ResponseLimits, Responses } from "../../src/state/responses.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

function response(id: string, previous: string | null = null): ResponseObject {
  return {
    id,
    object: "response",
    created_at: 1,
    status: "completed",
    completed_at: 2,
    error: null,
    incomplete_details: null,
    output: [message(`msg_${id}`)],
    usage: null,
    ...toEcho({ model: "pebble", previous_response_id: previous }),
  };
}

function message(id: string, text = "yes"): OutputMessage {
  const content = [{ type: "output_text" as const, text, annotations: [], logprobs: [] }];
  return { id, type: "message", status: "completed", role: "assistant", content };
}

function input(id: string, text = "hello"): ResponseItem {
  const content = [{ type: "input_text" as const, text }];
  return { id, type: "message", status: "completed", role: "user", content };
}

async function setUp(limits: Partial<ResponseLimits> = {}) {
  const directory = await tempDir();
  const path = join(directory.path, "tug.db");
  const state = new StateDatabase(path);
  let now = 1_800_000_000_000;
  const responses = new Responses(state, { limits, now: () => now });
  const save = (id: string, previous: string | null = null, text?: string) =>
    responses.save({
      response: response(id, previous),
      owner: null,
      input: [input(`in_${id}`, text)],
    });
  return {
    path,
    state,
    responses,
    save,
    pass: (ms: number) => void (now += ms),
    rows: (table: string) =>
      (state.open().query(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n,
    async [Symbol.asyncDispose]() {
      state[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

function refuseRoom(): never {
  throw new Error("no room");
}

function codeOf(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("responses", () => {
  test("are found again by another connection, and only their owner may read the file", async () => {
    await using it = await setUp();
    it.save("a");
    using other = new StateDatabase(it.path);

    expect(new Responses(other, { now: () => 1_800_000_000_000 }).find("a")).toEqual({
      response: response("a"),
      owner: null,
      input: [input("in_a")],
      events: undefined,
    });
    expect((await stat(it.path)).mode & 0o777).toBe(0o600);
  });

  test("are replaced, with their events", async () => {
    await using it = await setUp();
    it.save("a");

    it.responses.save({
      response: { ...response("a"), status: "failed" },
      owner: "ci",
      input: [],
      events: ["x"],
    });

    expect(it.responses.find("a")).toMatchObject({
      response: { status: "failed" },
      owner: "ci",
      events: ["x"],
    });
    expect(it.rows("responses")).toBe(1);
  });

  test("are removed with all that belongs to them", async () => {
    await using it = await setUp();
    it.save("a");

    expect(it.responses.remove("a")).toBe(true);
    expect(it.responses.remove("a")).toBe(false);
    expect(["responses", "response_bodies", "response_items"].map(it.rows)).toEqual([0, 0, 0]);
  });

  test("are found by ids that are none", async () => {
    await using it = await setUp();

    for (const id of ["", "'; DROP TABLE responses; --", "\0", "x".repeat(100_000)]) {
      expect(it.responses.find(id)).toBeUndefined();
      expect(it.responses.findItem(id)).toBeUndefined();
    }
  });
});

describe("a conversation", () => {
  test("of 100 turns is replayed whole, oldest first", async () => {
    await using it = await setUp();
    for (let turn = 0; turn < 100; turn += 1)
      it.save(`t${turn}`, turn === 0 ? null : `t${turn - 1}`);

    const chain = it.responses.chain("t99");

    expect(chain.map((one) => one.response.id)).toEqual(
      Array.from({ length: 100 }, (_, n) => `t${n}`),
    );
  });

  test("whose middle is missing is a 404 that names it", async () => {
    await using it = await setUp();
    it.save("a");
    it.save("b", "a");
    it.save("c", "b");
    it.responses.remove("b");

    expect(codeOf(() => it.responses.chain("c"))).toMatchObject({
      code: "not_found",
      message: "cannot find the response `b`",
    });
  });

  test("is measured before it is read", async () => {
    await using it = await setUp();
    it.save("a", null, "x".repeat(1000));
    it.save("b", "a", "x".repeat(1000));
    const taken: number[] = [];

    it.responses.chain("b", (bytes) => void taken.push(bytes));

    expect(taken).toHaveLength(1);
    expect(taken[0]).toBeGreaterThan(2000);
    expect(codeOf(() => it.responses.chain("b", refuseRoom))).toMatchObject({ message: "no room" });
  });

  test("that goes in a circle ends", async () => {
    await using it = await setUp();
    it.save("a", "b");
    it.save("b", "a");

    expect(codeOf(() => it.responses.chain("a"))).toMatchObject({ code: "not_found" });
  });

  test("that is longer than anybody's is refused", async () => {
    await using it = await setUp();
    it.state.write("make a long one", (tables) => {
      for (let turn = 0; turn < 2001; turn += 1) {
        const values = [`t${turn}`, turn === 0 ? null : `t${turn - 1}`, 1_800_000_000_000, 1];
        tables.run("INSERT INTO responses VALUES (?, ?, ?, ?, NULL)", values);
      }
    });

    expect(codeOf(() => it.responses.chain("t2000"))).toMatchObject({ code: "request_too_large" });
  });

  test("keeps all its turns for as long as it goes on", async () => {
    await using it = await setUp();
    it.save("a");
    it.pass(20 * DAY_MS);
    it.save("b", "a");
    it.pass(20 * DAY_MS);
    it.save("c", "b");

    expect(it.responses.chain("c")).toHaveLength(3);
  });
});

describe("items", () => {
  test("are found by their ids if they were made, with their owner", async () => {
    await using it = await setUp();
    it.responses.save({ response: response("a"), owner: "ci", input: [] });

    expect(it.responses.findItem("msg_a")).toEqual({ item: message("msg_a"), owner: "ci" });
  });

  test("of clients are not found: others may choose the same ids", async () => {
    await using it = await setUp();
    it.save("a");

    expect(it.responses.findItem("in_a")).toBeUndefined();
  });

  test("cannot be replaced by another one of the same id", async () => {
    await using it = await setUp();
    it.save("a");

    it.responses.save({ response: response("b"), owner: null, input: [input("msg_a", "not so")] });

    expect(it.responses.findItem("msg_a")?.item).toEqual(message("msg_a"));
  });
});

describe("what is kept is bounded", () => {
  test("in age: it is not found any more, and goes at the next write", async () => {
    await using it = await setUp();
    it.save("a");
    it.pass(30 * DAY_MS + 1);

    expect(it.responses.find("a")).toBeUndefined();
    expect(it.responses.findItem("msg_a")).toBeUndefined();
    expect(codeOf(() => it.responses.chain("a"))).toMatchObject({ code: "not_found" });
    expect(it.rows("responses")).toBe(1);
    it.save("b");
    expect(["responses", "response_bodies", "response_items"].map(it.rows)).toEqual([1, 1, 1]);
  });

  test("in rows: the oldest go, those in use stay", async () => {
    await using it = await setUp({ maxRows: 3 });
    for (const id of ["a", "b", "c"]) {
      it.save(id);
      it.pass(1);
    }
    it.save("d", "a");

    expect(["a", "b", "c", "d"].map((id) => it.responses.find(id) !== undefined)).toEqual([
      true,
      false,
      true,
      true,
    ]);
  });

  test("in bytes", async () => {
    await using it = await setUp({ maxBytes: 10_000 });
    for (let turn = 0; turn < 20; turn += 1) {
      it.save(`t${turn}`, null, "x".repeat(2000));
      it.pass(1);
    }

    expect(it.rows("responses")).toBeLessThan(5);
    expect(it.responses.find("t19")).toBeDefined();
    expect(it.responses.find("t0")).toBeUndefined();
  });

  test("in the size of one: its events are left out first", async () => {
    await using it = await setUp({ maxResponseBytes: 5000 });
    const kept = it.responses.save({
      response: response("a"),
      owner: null,
      input: [],
      events: ["x".repeat(5000)],
    });

    expect(kept).toBe(true);
    expect(it.responses.find("a")).toMatchObject({ response: { id: "a" }, events: undefined });
  });

  test("in the size of one: the others stay", async () => {
    await using it = await setUp({ maxResponseBytes: 5000 });
    it.save("a");

    expect(it.save("b", null, "x".repeat(6000))).toBe(false);
    expect(it.responses.find("a")).toBeDefined();
    expect(it.responses.find("b")).toBeUndefined();
  });
});
