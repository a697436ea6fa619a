import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { ApiKeyInfo, CreatedKey, RevokedKeys } from "../../src/api/keys.ts";
import { createApp } from "../../src/server/app.ts";
import { ApiKeys } from "../../src/state/api-keys.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDeps } from "./fake-deps.ts";

interface Rig extends AsyncDisposable {
  ask(method: string, path: string, body?: unknown, options?: AskOptions): Promise<Response>;
  make(body: object): Promise<CreatedKey>;
}

interface AskOptions {
  /** By TCP with this key; trusted unless given. */
  readonly key?: string;
}

async function rig(keyRequired = true): Promise<Rig> {
  const directory = await tempDir();
  const state = new StateDatabase(join(directory.path, "tug.db"));
  const keys = new ApiKeys(state);
  const app = createApp(fakeDeps({ keys: () => keys, keyRequired }));
  async function ask(
    method: string,
    path: string,
    ...[body, { key } = {}]: [unknown?, AskOptions?]
  ): Promise<Response> {
    const init: RequestInit = {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(key === undefined ? {} : { headers: { authorization: `Bearer ${key}` } }),
    };
    return app.request(`http://localhost${path}`, init, { trusted: key === undefined });
  }
  return {
    ask,
    async make(body) {
      const response = await ask("POST", "/keys", body);
      if (response.status !== 201) throw new Error(await response.text());
      return (await response.json()) as CreatedKey;
    },
    async [Symbol.asyncDispose]() {
      state[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe("/keys", () => {
  test("makes a key, lists it without the key, and revokes it at once", async () => {
    await using at = await rig();

    const made = await at.make({ name: "laptop" });
    expect(made).toMatchObject({
      name: "laptop",
      scopes: ["inference"],
      expires: null,
      last_used: null,
      max_concurrent: null,
      rate_per_minute: null,
    });
    expect((await at.ask("GET", "/v1/models", undefined, made)).status).toBe(200);

    const listed = (await (await at.ask("GET", "/keys")).json()) as ApiKeyInfo[];
    expect(listed).toMatchObject([{ name: "laptop", prefix: made.key.slice(0, 10) }]);
    expect(listed[0]?.last_used).not.toBeNull();
    expect(JSON.stringify(listed)).not.toContain(made.key);

    const body = { names: ["laptop", "absent", "laptop"] };
    const revoked = (await (await at.ask("POST", "/keys/revoke", body)).json()) as RevokedKeys;
    expect(revoked).toEqual({ revoked: ["laptop"], unknown: ["absent"] });
    expect((await at.ask("GET", "/v1/models", undefined, made)).status).toBe(401);
  });

  test("takes all that a key can have", async () => {
    await using at = await rig();

    const made = await at.make({
      name: "a.b_c-1",
      scopes: ["models", "inference", "models"],
      expires: "2999-01-31T12:00:00+01:00",
      max_concurrent: 4,
      rate_per_minute: 60,
    });

    expect(made).toMatchObject({
      scopes: ["inference", "models"],
      expires: "2999-01-31T11:00:00.000Z",
      max_concurrent: 4,
      rate_per_minute: 60,
    });
  });

  test("is for the runner's user and for keys with `admin`", async () => {
    await using at = await rig();
    const admin = await at.make({ name: "admin", scopes: ["admin"] });
    const other = await at.make({ name: "other", scopes: ["inference", "models"] });

    expect((await at.ask("GET", "/keys", undefined, other)).status).toBe(403);
    expect((await at.ask("POST", "/keys", { name: "x", scopes: ["admin"] }, other)).status).toBe(
      403,
    );
    expect((await at.ask("POST", "/keys", { name: "x" }, admin)).status).toBe(201);
    expect((await at.ask("POST", "/keys/revoke", { names: ["admin"] }, admin)).status).toBe(200);
    expect((await at.ask("GET", "/keys", undefined, admin)).status).toBe(401);
  });

  test("is not for whoever reaches a port of loopback", async () => {
    await using at = await rig(false);
    const admin = await at.make({ name: "admin", scopes: ["admin"] });

    for (const [method, path, body] of [
      ["GET", "/keys", undefined],
      ["POST", "/keys", { name: "x", scopes: ["admin"] }],
      ["POST", "/keys/revoke", { names: ["admin"] }],
    ] as const) {
      expect((await at.ask(method, path, body, { key: "not-needed" })).status).toBe(403);
    }
    expect((await at.ask("GET", "/keys", undefined, admin)).status).toBe(200);
  });

  test.each([
    ["no name", {}, "`name`"],
    ["an empty name", { name: "" }, "is no name"],
    ["a name with spaces", { name: "a b" }, "is no name"],
    ["a name like a flag", { name: "-rf" }, "is no name"],
    ["an endless name", { name: "a".repeat(65) }, "is no name"],
    ["a name that is no text", { name: 1 }, "`name`"],
    ["an unknown scope", { name: "a", scopes: ["root"] }, "`scopes.0`"],
    ["no scope", { name: "a", scopes: [] }, "`scopes`"],
    ["a scope that is no list", { name: "a", scopes: "admin" }, "`scopes`"],
    ["a time that is past", { name: "a", expires: "2020-01-01T00:00:00Z" }, "is past"],
    ["a time that is none", { name: "a", expires: "soon" }, "is no time"],
    ["a time that cannot be", { name: "a", expires: "2999-13-41T00:00:00Z" }, "is no time"],
    ["a number as a time", { name: "a", expires: 5 }, "`expires`"],
    ["no requests at once", { name: "a", max_concurrent: 0 }, "`max_concurrent`"],
    ["half a request a minute", { name: "a", rate_per_minute: 0.5 }, "`rate_per_minute`"],
    ["an absurd rate", { name: "a", rate_per_minute: 1e12 }, "`rate_per_minute`"],
    ["a field that means nothing", { name: "a", key: "tug_mine" }, "`key`"],
    ["a list", [], "must be a JSON object"],
  ])("refuses %s", async (_, body, said) => {
    await using at = await rig();

    const response = await at.ask("POST", "/keys", body);

    expect(response.status).toBe(400);
    expect(await response.text()).toContain(said);
    expect(await (await at.ask("GET", "/keys")).json()).toEqual([]);
  });

  test.each([
    [{}],
    [{ names: [] }],
    [{ names: "a" }],
    [{ names: [1] }],
    [{ names: Array(1001).fill("a") }],
  ])("refuses to revoke %j", async (body) => {
    await using at = await rig();

    expect((await at.ask("POST", "/keys/revoke", body)).status).toBe(400);
  });

  test("a name is taken once", async () => {
    await using at = await rig();
    await at.make({ name: "a" });

    const response = await at.ask("POST", "/keys", { name: "a" });

    expect(response.status).toBe(409);
    expect(await response.text()).toContain("tug key revoke a");
  });
});
