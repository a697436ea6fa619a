import { describe, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { ApiKeys, type NewKey } from "../../src/state/api-keys.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const DAY_MS = 86_400_000;

interface Rig extends AsyncDisposable {
  readonly directory: string;
  readonly keys: ApiKeys;
  /** Another process. */
  readonly elsewhere: ApiKeys;
  readonly state: StateDatabase;
  pass(ms: number): void;
}

async function rig(maxKeys?: number): Promise<Rig> {
  const directory = await tempDir();
  const path = join(directory.path, "tug.db");
  let nowMs = Date.parse("2030-01-01T00:00:00Z");
  const options = { now: () => nowMs, ...(maxKeys === undefined ? {} : { maxKeys }) };
  const state = new StateDatabase(path);
  const other = new StateDatabase(path);
  return {
    directory: directory.path,
    state,
    keys: new ApiKeys(state, options),
    elsewhere: new ApiKeys(other, options),
    pass: (ms) => void (nowMs += ms),
    async [Symbol.asyncDispose]() {
      state[Symbol.dispose]();
      other[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

function wanted(name: string, rest: Partial<NewKey> = {}): NewKey {
  return {
    name,
    scopes: ["inference"],
    expiresAtMs: null,
    maxConcurrent: null,
    ratePerMinute: null,
    ...rest,
  };
}

describe("ApiKeys", () => {
  test("a key has 256 random bits, and is told once", async () => {
    await using at = await rig();

    const one = at.keys.create(wanted("one"));
    const two = at.keys.create(wanted("two"));

    expect(one.key).toMatch(/^tug_[A-Za-z0-9_-]{43}$/);
    expect(one.key).not.toBe(two.key);
    expect(JSON.stringify(at.keys.list())).not.toContain(one.key.slice(11));
  });

  test("nothing on the disk has it", async () => {
    await using at = await rig();
    const { key } = at.keys.create(wanted("one"));
    at.keys.find(key);

    const files = await readdir(at.directory);
    const contents = await Promise.all(files.map((name) => readFile(join(at.directory, name))));

    expect(Buffer.concat(contents).includes("one")).toBe(true);
    expect(Buffer.concat(contents).includes(key.slice(11))).toBe(false);
  });

  test("is found by who has it, in any process, and by nobody else", async () => {
    await using at = await rig();
    const limits = { maxConcurrent: 2, ratePerMinute: 60 };
    const { key } = at.keys.create(wanted("one", { scopes: ["models", "admin"], ...limits }));

    expect(at.elsewhere.find(key)).toMatchObject({
      name: "one",
      scopes: ["models", "admin"],
      isExpired: false,
      ...limits,
    });
    expect(at.keys.find(`${key}x`)).toBeUndefined();
    expect(at.keys.find(key.slice(0, -1))).toBeUndefined();
    expect(at.keys.find(key.toUpperCase())).toBeUndefined();
    expect(at.keys.find(key.slice(4))).toBeUndefined();
    expect(at.keys.find("")).toBeUndefined();
  });

  test("is gone at once when another process revokes it", async () => {
    await using at = await rig();
    const { key } = at.keys.create(wanted("one"));
    expect(at.keys.find(key)).toBeDefined();

    expect(at.elsewhere.revoke(["one", "absent"])).toEqual(["one"]);

    expect(at.keys.find(key)).toBeUndefined();
    expect(at.keys.hasLive()).toBe(false);
  });

  test("ends with its time", async () => {
    await using at = await rig();
    const { key, expires } = at.keys.create(
      wanted("one", { expiresAtMs: Date.parse("2030-01-01T00:00:00Z") + DAY_MS }),
    );

    expect(expires).toBe("2030-01-02T00:00:00.000Z");
    at.pass(DAY_MS - 1);
    expect(at.keys.find(key)?.isExpired).toBe(false);
    expect(at.keys.hasLive()).toBe(true);
    at.pass(1);
    expect(at.keys.find(key)?.isExpired).toBe(true);
    expect(at.keys.hasLive()).toBe(false);
    expect(at.keys.list()).toMatchObject([{ name: "one", expired: true }]);
  });

  test("names are unique; a revoked one is free again, for another key", async () => {
    await using at = await rig();
    const { key } = at.keys.create(wanted("one"));

    expect(() => at.elsewhere.create(wanted("one"))).toThrow(
      expect.objectContaining({ code: "conflict", hint: expect.stringContaining("revoke one") }),
    );
    at.keys.revoke(["one"]);
    const again = at.keys.create(wanted("one"));

    expect(again.key).not.toBe(key);
    expect(at.keys.find(key)).toBeUndefined();
  });

  test("are not without number", async () => {
    await using at = await rig(2);
    at.keys.create(wanted("one"));
    at.keys.create(wanted("two"));

    expect(() => at.keys.create(wanted("three"))).toThrow("there are 2 already");
  });

  test("their use is written down once a minute", async () => {
    await using at = await rig();
    const { key } = at.keys.create(wanted("one"));
    const found = at.keys.find(key);
    if (found === undefined) throw new Error("it was just made");
    const lastUsed = () => at.elsewhere.list()[0]?.last_used;

    expect(lastUsed()).toBeNull();
    at.keys.touch(found);
    expect(lastUsed()).toBe("2030-01-01T00:00:00.000Z");
    at.pass(59_999);
    at.keys.touch(found);
    expect(lastUsed()).toBe("2030-01-01T00:00:00.000Z");
    at.pass(1);
    at.keys.touch(found);
    expect(lastUsed()).toBe("2030-01-01T00:01:00.000Z");
  });

  test("a request goes on while another process keeps the database locked, and writes stay safe afterwards", async () => {
    await using at = await rig();
    const { key } = at.keys.create(wanted("one"));
    const found = at.keys.find(key);
    if (found === undefined) throw new Error("it was just made");
    using blocker = new StateDatabase(join(at.directory, "tug.db"));
    blocker.open().run("BEGIN IMMEDIATE");

    at.keys.touch(found);
    const seen = at.keys.find(key);
    blocker.open().run("ROLLBACK");

    expect(seen?.name).toBe("one");
    expect(at.keys.list()).toMatchObject([{ last_used: null }]);
    expect(at.state.open().query("PRAGMA synchronous").get()).toEqual({ synchronous: 2 });
    expect(at.state.open().query("PRAGMA busy_timeout").get()).toEqual({ timeout: 5000 });
  });

  test("a scope of a newer Tug means nothing", async () => {
    await using at = await rig();
    const { key } = at.keys.create(wanted("one"));
    at.state.open().run("UPDATE api_keys SET scopes = 'inference everything'");

    expect(at.keys.find(key)?.scopes).toEqual(["inference"]);
  });
});
