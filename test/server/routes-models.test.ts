import { describe, expect, test } from "bun:test";
import { copyFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Hono } from "hono";
import type { Model, PackageRequest } from "../../src/api/models.ts";
import type { ProgressEvent } from "../../src/api/progress.ts";
import { toAppError } from "../../src/errors.ts";
import { packageModel } from "../../src/models/package.ts";
import { digestOf } from "../../src/oci/digest.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";
import { modelRoutes } from "../../src/server/routes/models.ts";
import { Store } from "../../src/store/store.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { fakeDistribution } from "./fake-distribution.ts";

const NDJSON = { accept: "application/x-ndjson" };

const signal = new AbortController().signal;
const ID_OF_NOTHING = `sha256:${"0".repeat(64)}`;

interface Bench extends AsyncDisposable {
  readonly path: string;
  readonly store: Store;
  readonly used: Set<string>;
  /** What was drained, and when it was allowed again. */
  readonly drains: readonly string[];
  readonly app: Hono<AppEnv>;
  call(method: string, path: string, body?: unknown): Promise<Response>;
  callUntrusted(method: string, path: string, body?: unknown): Promise<Response>;
  package(request?: Partial<PackageRequest>): Promise<string>;
}

async function bench(): Promise<Bench> {
  const directory = await tempDir();
  const store = Store.open(join(directory.path, "store"));
  const used = new Set<string>();
  const drains: string[] = [];
  const deps = {
    store,
    inUse: (id: string) => used.has(id),
    async drain(id: string): Promise<Disposable> {
      drains.push(`${(await store.list()).length} there`);
      used.delete(id);
      return { [Symbol.dispose]: () => void drains.push("allowed again") };
    },
    distribution: fakeDistribution(),
    remotes: () => Promise.reject(new Error("nothing here is pushed")),
  };
  const app = new Hono<AppEnv>().route("/models", modelRoutes(deps));
  app.onError((error) => toErrorResponse(toAppError(error)));
  const call = async (path: string, init: RequestInit, trusted: boolean): Promise<Response> =>
    app.request(path, init, { trusted });
  return {
    path: directory.path,
    store,
    used,
    drains,
    app,
    call: (method, path, body) => call(path, toInit(method, body), true),
    callUntrusted: (method, path, body) => call(path, toInit(method, body), false),
    package: async (request) => {
      const whole = { model: "me/model:v1", gguf: PEBBLE, ...request };
      return (await packageModel(store, whole, { signal })).id;
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

function toInit(method: string, body: unknown): RequestInit {
  return body === undefined ? { method } : { method, body: JSON.stringify(body) };
}

async function lines<Result>(response: Response): Promise<ProgressEvent<Result>[]> {
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/x-ndjson");
  const text = await response.text();
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

async function codeOf(response: Response): Promise<[number, string]> {
  const body = (await response.json()) as { error: { code: string } };
  return [response.status, body.error.code];
}

describe("GET /models", () => {
  test("models: a fresh store answers an empty list and stays untouched", async () => {
    await using it = await bench();

    const response = await it.call("GET", "/models");

    expect(response.status).toBe(200);
    expect(await response.json()).toEqual([]);
    expect(await readdir(it.path)).toEqual([]);
  });

  test("models: every model is listed once with all its tags", async () => {
    await using it = await bench();
    const id = await it.package();
    await it.package({ model: "me/other" });

    const models = (await (await it.call("GET", "/models")).json()) as Model[];

    expect(models).toMatchObject([
      { id, tags: ["docker.io/me/model:v1", "docker.io/me/other:latest"], created: 0 },
    ]);
  });
});

describe("GET /models/{name}", () => {
  test.each(["me/model:v1", "docker.io/me/model:v1", "me%2Fmodel%3Av1", "model:v1"])(
    "models: %s is inspected",
    async (name) => {
      await using it = await bench();
      const id = await it.package();

      const response = await it.call("GET", `/models/${name}`);

      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({
        id,
        media_type: "application/vnd.docker.ai.model.config.v0.1+json",
        artifact_type: null,
        layers: [{ path: "pebble.gguf", size: 3_000_768 }],
      });
    },
  );

  test("models: a digest and the beginning of one name a model", async () => {
    await using it = await bench();
    const id = await it.package();

    for (const name of [id, id.slice(7), id.slice(7, 19), `me/model:v1@${id}`]) {
      const response = await it.call("GET", `/models/${name}`);
      expect(await response.json()).toMatchObject({ id });
    }
  });

  test.each([
    ["me/nothing", 404, "model_not_found"],
    [ID_OF_NOTHING, 404, "model_not_found"],
    ["me//x", 400, "invalid_reference"],
    // Not in the registry, though it is here.
    ["me/model:v1?remote=true", 404, "not_found"],
  ])("models: %s is answered with %d", async (name, status, code) => {
    await using it = await bench();
    await it.package();

    expect(await codeOf(await it.call("GET", `/models/${name}`))).toEqual([status, code]);
  });
});

describe("POST /models/package", () => {
  test("models: files are packaged with progress and a result at the end", async () => {
    await using it = await bench();

    const body = { model: "me/shards", gguf: FIRST_SHARD };
    const events = await lines(await it.call("POST", "/models/package", body));

    const { digest, sizeBytes } = await it.store.resolve("me/shards");
    const result = { reference: "docker.io/me/shards:latest", id: digest, size_bytes: sizeBytes };
    expect(events.at(-1)).toEqual({ type: "success", result });
    expect(events.slice(0, -1).map(({ type }) => type)).toContain("progress");
  });

  test("models: a failure is the last line", async () => {
    await using it = await bench();

    const body = { model: "me/x", gguf: join(it.path, "no.gguf") };
    const events = await lines(await it.call("POST", "/models/package", body));

    expect(events).toMatchObject([{ type: "error", error: { code: "not_found" } }]);
  });

  test("models: clients that may not name files may not package them", async () => {
    await using it = await bench();

    const body = { model: "me/x", gguf: PEBBLE };
    const response = await it.callUntrusted("POST", "/models/package", body);

    expect(await codeOf(response)).toEqual([403, "forbidden"]);
    expect(await it.store.list()).toEqual([]);
  });

  test.each([
    [{ gguf: PEBBLE }],
    [{ model: "me/x", gguf: 1 }],
    [{ model: "me/x", gguf: PEBBLE, format: "zip" }],
    [{ model: "me/x", gguf: PEBBLE, contextsize: 1 }],
    [[]],
  ])("models: the request %j is refused", async (body) => {
    await using it = await bench();

    const response = await it.call("POST", "/models/package", body);

    expect(await codeOf(response)).toEqual([400, "invalid_request"]);
  });

  test("models: a client that leaves stops the packaging", async () => {
    await using it = await bench();
    const gguf = join(it.path, "m.gguf");
    await copyFile(PEBBLE, gguf);
    const leaving = new AbortController();

    const response = await it.app.request(
      "/models/package",
      { method: "POST", body: JSON.stringify({ model: "me/x", gguf }), signal: leaving.signal },
      { trusted: true },
    );
    leaving.abort();
    const events = (await response.text()).trimEnd().split("\n");

    expect(JSON.parse(events.at(-1) ?? "")).toMatchObject({
      type: "error",
      error: { code: "cancelled" },
    });
    expect(await it.store.list()).toEqual([]);
  });
});

describe("POST /models/{name}/tag", () => {
  test("models: a model gets one more name", async () => {
    await using it = await bench();
    const id = await it.package();

    const response = await it.call("POST", "/models/me%2Fmodel%3Av1/tag?repo=me%2Fother&tag=v2");

    expect(response.status).toBe(201);
    expect(await response.json()).toEqual({
      message: "Tagged me/model:v1 as docker.io/me/other:v2",
      target: "docker.io/me/other:v2",
    });
    expect((await it.store.resolve("me/other:v2")).digest as string).toBe(id);
  });

  test("models: what is left out of the new name is filled in", async () => {
    await using it = await bench();
    const id = await it.package();

    const response = await it.call("POST", `/models/${id}/tag?repo=short`);

    expect(await response.json()).toMatchObject({ target: "docker.io/ai/short:latest" });
  });

  test.each([
    ["me/model:v1/tag", 400, "invalid_request"],
    ["me/model:v1/tag?repo=a//b&tag=x", 400, "invalid_reference"],
    ["me/model:v1/tag?repo=me/x&tag=a%20b", 400, "invalid_reference"],
    [`me/model:v1/tag?repo=me/x@${ID_OF_NOTHING}`, 400, "invalid_reference"],
    ["me/nothing/tag?repo=me/x&tag=y", 404, "model_not_found"],
  ])("models: POST %s is answered with %d", async (path, status, code) => {
    await using it = await bench();
    await it.package();

    expect(await codeOf(await it.call("POST", `/models/${path}`))).toEqual([status, code]);
  });
});

describe("DELETE /models/{name}", () => {
  test("models: a tag is taken away, and the model with its last one", async () => {
    await using it = await bench();
    const id = await it.package();
    await it.package({ model: "me/other" });

    const first = await it.call("DELETE", "/models/me/other");
    const second = await it.call("DELETE", "/models/me/model:v1");

    expect(await first.json()).toEqual([{ Untagged: "docker.io/me/other:latest" }]);
    expect(await second.json()).toEqual([{ Untagged: "docker.io/me/model:v1" }, { Deleted: id }]);
    expect(await readdir(join(it.store.root, "blobs", "sha256"))).toEqual([]);
  });

  test("models: a model of several tags goes by its digest only with force", async () => {
    await using it = await bench();
    const id = await it.package();
    await it.package({ model: "me/other" });

    expect(await codeOf(await it.call("DELETE", `/models/${id}`))).toEqual([409, "conflict"]);

    expect((await it.call("DELETE", `/models/${id}?force`)).status).toBe(200);
    expect(await it.store.list()).toEqual([]);
  });

  test("models: a model in use goes only with force, its spare tags without", async () => {
    await using it = await bench();
    it.used.add(await it.package());
    await it.package({ model: "me/other" });

    expect((await it.call("DELETE", "/models/me/other?force=false")).status).toBe(200);
    const refused = await it.call("DELETE", "/models/me/model:v1");
    expect(await codeOf(refused)).toEqual([409, "model_in_use"]);
    expect((await it.store.list()).length).toBe(1);

    expect(it.drains).toEqual([]);
    expect((await it.call("DELETE", "/models/me/model:v1?force=true")).status).toBe(200);
    expect(it.drains).toEqual(["1 there", "allowed again"]);
    expect(await it.store.list()).toEqual([]);
    expect(await it.store.list()).toEqual([]);
  });

  test("models: an unknown model is not found", async () => {
    await using it = await bench();

    const response = await it.call("DELETE", "/models/me/nothing?force=true");

    expect(await codeOf(response)).toEqual([404, "model_not_found"]);
  });
});

describe("DELETE /models/purge", () => {
  test("models: purge removes everything", async () => {
    await using it = await bench();
    await it.package();

    expect((await it.call("DELETE", "/models/purge")).status).toBe(200);

    expect(await it.store.list()).toEqual([]);
  });

  test("models: purge waits for no one: a model in use stops it", async () => {
    await using it = await bench();
    it.used.add(await it.package());

    const response = await it.call("DELETE", "/models/purge");

    expect(await codeOf(response)).toEqual([409, "model_in_use"]);
    expect((await it.store.list()).length).toBe(1);
  });
});

describe("POST /models/prune", () => {
  test("models: untagged models go only if all is said, and nothing in a rehearsal", async () => {
    await using it = await bench();
    const untagged = await it.package();
    await it.package({ context_size: 512 });

    const kept = await (await it.call("POST", "/models/prune")).json();
    const rehearsed = await it.call("POST", "/models/prune", { all: true, dry_run: true });
    expect(kept).toMatchObject({ models: [], blobs: 0 });
    expect(await rehearsed.json()).toMatchObject({ models: [untagged] });
    expect(await it.store.list()).toHaveLength(2);

    const pruned = await (await it.call("POST", "/models/prune", { all: true })).json();
    expect(pruned).toMatchObject({ models: [untagged], ingests: 0 });
    expect(await it.store.list()).toHaveLength(1);
  });

  test("models: an unknown wish is refused", async () => {
    await using it = await bench();

    const response = await it.call("POST", "/models/prune", { everything: true });

    expect(await codeOf(response)).toEqual([400, "invalid_request"]);
  });
});

describe("POST /models/verify", () => {
  test("models: a damaged blob is named with the models that use it", async () => {
    await using it = await bench();
    await it.package();
    const { manifest } = await it.store.resolve("me/model:v1");
    const digest = manifest.config.digest;
    await rm(it.store.blobPath(digest));
    await writeFile(it.store.blobPath(digest), "x");

    const events = await lines(await it.call("POST", "/models/verify", {}));

    expect(events.at(-1)).toMatchObject({
      type: "success",
      result: {
        blobs: 3,
        problems: [{ digest, models: ["docker.io/me/model:v1"], problem: "wrong size" }],
      },
    });
    const progress = events.find(({ type }) => type === "progress");
    expect(progress).toMatchObject({ id: "models", phase: "verifying" });
  });
});

describe("export and load", () => {
  test("models: an exported model is loaded into another store", async () => {
    await using it = await bench();
    await using other = await bench();
    const id = await it.package();

    const archive = await it.call("GET", "/models/me/model:v1/export");
    expect(archive.headers.get("content-type")).toBe("application/x-tar");
    expect(archive.headers.get("content-disposition")).toContain("me-model-v1.tar");
    const bytes = await archive.bytes();
    expect(archive.headers.get("x-archive-size")).toBe(String(bytes.length));
    const loaded = await other.app.request(
      "/models/load",
      { method: "POST", body: bytes, headers: NDJSON },
      {},
    );

    const events = await lines<Model[]>(loaded);
    expect(events.at(-1)).toMatchObject({ type: "success", result: [{ id }] });
    expect((await other.store.resolve("me/model:v1")).digest as string).toBe(id);
  });

  test("models: several go into one archive, without what the other side has", async () => {
    await using it = await bench();
    await using other = await bench();
    const one = await it.package();
    const two = await it.package({ model: "me/two", context_size: 512 });
    const list = join(it.path, "have.json");
    await writeFile(list, JSON.stringify([{ id: one }]));

    const whole = await it.call("POST", "/models/export", { models: [one, "me/two"] });
    const rest = await it.call("POST", "/models/export", {
      models: ["me/two"],
      missing_from: list,
    });
    const same = await it.call("POST", "/models/export", { models: ["me/two"], have: [one] });
    const bytes = await whole.bytes();
    const loaded = await other.app.request(
      "/models/load",
      { method: "POST", body: bytes, headers: NDJSON },
      {},
    );

    const result = [{ id: one }, { id: two }];
    expect((await lines<Model[]>(loaded)).at(-1)).toMatchObject({ type: "success", result });
    const left = await rest.bytes();
    expect(left.length).toBeLessThan(bytes.length / 10);
    expect(await same.bytes()).toEqual(left);
  });

  test("models: only trusted clients name files to export against", async () => {
    await using it = await bench();
    await it.package();

    const request = { models: ["me/model:v1"], missing_from: PEBBLE };
    const refused = await it.callUntrusted("POST", "/models/export", request);
    const allowed = await it.callUntrusted("POST", "/models/export", { models: ["me/model:v1"] });

    expect(await codeOf(refused)).toEqual([403, "forbidden"]);
    expect(allowed.status).toBe(200);
    await allowed.body?.cancel();
    expect(await codeOf(await it.call("POST", "/models/export", { models: [] }))).toEqual([
      400,
      "invalid_request",
    ]);
  });

  test("models: an archive that is none is the last line's error", async () => {
    await using it = await bench();

    const body = "this is no archive".repeat(100);
    const loaded = await it.app.request(
      "/models/load",
      { method: "POST", body, headers: NDJSON },
      {},
    );

    expect((await lines(loaded)).at(-1)).toMatchObject({
      type: "error",
      error: { code: "invalid_model_file" },
    });
  });

  test("models: nothing to load is refused, nothing to export not found", async () => {
    await using it = await bench();

    expect(await codeOf(await it.call("POST", "/models/load"))).toEqual([400, "invalid_request"]);
    const unknown = await it.call("GET", "/models/me/nothing/export");
    expect(await codeOf(unknown)).toEqual([404, "model_not_found"]);
  });

  test("models: over a socket the archive arrives whole and is taken back", async () => {
    await using it = await bench();
    const id = await it.package();
    using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (r) => it.app.fetch(r) });

    const response = await fetch(`${server.url.href}models/me/model:v1/export`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of response.body ?? []) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const again = await fetch(`${server.url.href}models/load`, {
      method: "POST",
      body: bytes,
      headers: NDJSON,
    });

    expect((await lines<Model[]>(again)).at(-1)).toMatchObject({ result: [{ id }] });
  });
});

test("models: unknown actions are not found", async () => {
  await using it = await bench();

  expect((await it.call("POST", "/models/me/model/other")).status).toBe(404);
  expect((await it.call("PUT", "/models/me/model")).status).toBe(404);
});

test("models: the digest of an exported manifest is the model's id", async () => {
  await using it = await bench();
  const id = await it.package();
  const archive = join(it.path, "m.tar");
  await writeFile(archive, await (await it.call("GET", `/models/${id}/export`)).bytes());

  const { stdout } = Bun.spawnSync(["tar", "-xOf", archive, "manifest.json"]);

  expect(digestOf(stdout) as string).toBe(id);
});
