/** Docker Model Runner's API where it differs from what is natural for us: shapes, statuses and spellings its clients need. */
import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import type { Progress } from "../../src/api/progress.ts";
import { AppError, toAppError } from "../../src/errors.ts";
import { createApp } from "../../src/server/app.ts";
import type { AppDeps, AppEnv, Distribution } from "../../src/server/deps.ts";
import { dockerProgress } from "../../src/server/docker-progress.ts";
import { readDockerNames } from "../../src/server/docker-settings.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";
import { toGoDuration } from "../../src/server/go-duration.ts";
import { modelRoutes } from "../../src/server/routes/models.ts";
import { DF, PS, readProgress, STATUS, unreadable, UNLOADED } from "../helpers/docker-cli-types.ts";
import { bench } from "../models/package-bench.ts";
import { PEBBLE } from "../helpers/pebble.ts";
import { fakeDeps, fakeInstaller, fakeRuntime, IDLE_WORKER, INSTALLED } from "./fake-deps.ts";
import { fakeDistribution, PULLED } from "./fake-distribution.ts";

const CLI = { "user-agent": "docker-model-cli/v1.0.0", "content-type": "application/json" };
const OURS = { ...CLI, accept: "application/x-ndjson" };
const DIGEST = `sha256:${"b".repeat(64)}`;

function post(body: unknown, headers: Record<string, string> = CLI): RequestInit {
  return { method: "POST", headers, body: JSON.stringify(body) };
}

function serve(overrides: Partial<AppDeps> = {}) {
  const app = createApp(fakeDeps(overrides));
  return (path: string, init: RequestInit = { headers: CLI }) => app.request(path, init);
}

async function errorOf(response: Response): Promise<[number, string]> {
  const { error } = (await response.json()) as { error: { code: string } };
  return [response.status, error.code];
}

/** The model routes over something that pulls and pushes. */
function models(overrides: Partial<Distribution> = {}) {
  const distribution = fakeDistribution(overrides);
  const routes = modelRoutes({
    store: undefined as never,
    distribution,
    remotes: () => Promise.reject(new Error("nothing here is packaged")),
  });
  const app = new Hono<AppEnv>().route("/models", routes);
  app.onError((error) => toErrorResponse(toAppError(error)));
  return (path: string, init: RequestInit) => app.request(path, init);
}

/** Progress of one thing. */
function moved(id: string, phase: string, [done, total]: readonly [number, number]): Progress {
  return { type: "progress", id, phase, done_bytes: done, total_bytes: total };
}

/** A store with `me/m`, over its routes. */
async function stored() {
  const it = await bench();
  const routes = modelRoutes({
    store: it.store,
    distribution: fakeDistribution(),
    remotes: () => Promise.reject(new Error("nothing is pushed")),
  });
  const app = new Hono<AppEnv>().route("/models", routes);
  app.onError((error) => toErrorResponse(toAppError(error)));
  const { packageModel } = await import("../../src/models/package.ts");
  const { signal } = new AbortController();
  const { id } = await packageModel(it.store, { model: "me/m", gguf: PEBBLE }, { signal });
  return {
    id,
    // As from another machine: no file may be named.
    ask: (path: string, init: RequestInit = {}) => app.request(path, init, { trusted: false }),
    [Symbol.asyncDispose]: () => it[Symbol.asyncDispose](),
  };
}

describe("Docker Desktop's prefix", () => {
  test.each(["/", "/version", "/engines/ps", "/v1/models", "/engines/v1/models"])(
    "docker api: /exp/vDD4.40 in front of %s changes nothing",
    async (path) => {
      const ask = serve({ runtime: fakeRuntime({ workers: [IDLE_WORKER] }) });

      const [plain, prefixed] = [await ask(path), await ask(`/exp/vDD4.40${path}`)];

      expect(plain.status).toBe(200);
      expect([prefixed.status, await prefixed.text()]).toEqual([200, await plain.text()]);
    },
  );

  test("docker api: the bare prefix is the root, and another version is nothing", async () => {
    const ask = serve();

    expect((await ask("/exp/vDD4.40")).status).toBe(200);
    for (const path of ["/exp/vDD4.41/version", "/exp/vDD4.400/version", "/exp/vDD4x40/version"]) {
      expect((await ask(path)).status).toBe(404);
    }
    // Twice is no prefix of a prefix.
    expect((await ask("/exp/vDD4.40/exp/vDD4.40/version")).status).toBe(404);
  });
});

describe("what is running", () => {
  test("docker api: ps is what the CLI decodes, whatever a worker does", async () => {
    const busy = { ...IDLE_WORKER, id: 2, inUse: 3, expiresAt: null, lastUsed: null };
    const pinned = { ...IDLE_WORKER, id: 3, keepAliveMs: -1 };
    const loading = { ...busy, id: 4, state: "starting" as const, inUse: 0 };
    const ask = serve({ runtime: fakeRuntime({ workers: [IDLE_WORKER, busy, pinned, loading] }) });

    const rows = (await (await ask("/engines/ps")).json()) as object[];

    expect(unreadable(PS, rows)).toEqual([]);
    expect(rows).toMatchObject([
      { in_use: false, requests: 0, keep_alive: "5m0s", last_used: "2026-01-02T03:04:05.000Z" },
      { in_use: true, requests: 3, last_used: null },
      { keep_alive: "-1" },
      { loading: true, in_use: false },
    ]);
  });

  test("docker api: nothing running is an empty list", async () => {
    expect(await (await serve()("/engines/ps")).json()).toEqual([]);
  });

  test.each([
    [0, "0s"],
    [1500, "1.5s"],
    [59_999, "59.999s"],
    [300_000, "5m0s"],
    [3_600_000, "1h0m0s"],
    [86_400_000, "24h0m0s"],
    [-1, "-1"],
  ])("docker api: %p ms is Go's %p", (ms, text) => {
    expect(toGoDuration(ms)).toBe(text);
  });

  test("docker api: status and df are what the CLI decodes", async () => {
    const ask = serve();

    const status = (await (await ask("/engines/status")).json()) as Record<string, string>;
    const df: unknown = await (await ask("/engines/df")).json();

    expect([...unreadable(STATUS, status), ...unreadable(DF, df)]).toEqual([]);
    for (const text of Object.values(status)) {
      expect(text).toMatch(/^(?:Running|Not Installed|Installing|Error)(?:: .+)?$/);
    }
  });
});

describe("unload", () => {
  test.each([
    ["all", { all: true, backend: "", models: null }, { all: true }],
    [
      "one model",
      { all: false, backend: "", models: ["pebble"] },
      { models: [expect.any(String)] },
    ],
    ["an engine's", { all: false, backend: "llama.cpp", models: [] }, { backend: "llama.cpp" }],
  ])("docker api: of %s, as the CLI asks", async (_name, body, asked) => {
    const runtime = fakeRuntime({});

    const response = await serve({ runtime })("/engines/unload", post(body));
    const result: unknown = await response.json();

    expect(response.status).toBe(200);
    expect(unreadable(UNLOADED, result)).toEqual([]);
    expect(runtime.unloads).toMatchObject([asked]);
  });

  test("docker api: of nothing, of no engine, and of what is no name, is refused", async () => {
    const ask = serve({ runtime: fakeRuntime({}) });
    const refused = async (body: unknown) => errorOf(await ask("/engines/unload", post(body)));

    expect(await refused({ all: false, backend: "", models: null })).toEqual([
      400,
      "invalid_request",
    ]);
    expect(await refused({ backend: "nosuch" })).toEqual([404, "backend_not_found"]);
    expect(await refused({ models: [""] })).toEqual([400, "invalid_request"]);
    expect(await refused({ models: "pebble" })).toEqual([400, "invalid_request"]);
    expect(await refused({ all: "yes" })).toEqual([400, "invalid_request"]);
  });
});

describe("install-backend", () => {
  test("docker api: is answered when it is done, with nothing", async () => {
    let isDone = false;
    const install = async () => {
      await Promise.resolve();
      isDone = true;
      return INSTALLED;
    };
    const ask = serve({ installer: () => fakeInstaller({ install }) });

    const response = await ask("/engines/install-backend", post({ backend: "llama.cpp" }));

    expect([response.status, await response.text(), isDone]).toEqual([200, "", true]);
  });

  test.each([[null], [""]])(
    "docker api: %j is no version, and no engine's name",
    async (nothing) => {
      const asked: object[] = [];
      const install = (request: object) => {
        asked.push(request);
        return Promise.resolve(INSTALLED);
      };
      const ask = serve({ installer: () => fakeInstaller({ install }) });

      const response = await ask(
        "/engines/install-backend",
        post({ backend: nothing, version: nothing }),
      );

      expect(response.status).toBe(200);
      expect(asked).toMatchObject([{ backend: "llama.cpp", version: undefined }]);
    },
  );

  test("docker api: a failure is a status for Docker's CLI, and the last line for ours", async () => {
    const failure = new AppError("install_failed", "cannot install: no");
    const installer = fakeInstaller({ install: () => Promise.reject(failure) });
    const ask = serve({ installer: () => installer });
    const body = { backend: "llama.cpp" };

    const theirs = await ask("/engines/install-backend", post(body));
    const ours = await ask("/engines/install-backend", post(body, OURS));

    // Of a 503 the CLI would show nothing.
    expect(await errorOf(theirs)).toEqual([500, "install_failed"]);
    expect(ours.status).toBe(200);
    expect(await ours.json()).toMatchObject({ type: "error", error: { code: "install_failed" } });
  });

  test.each(["/engines/install-backend", "/engines/uninstall-backend"])(
    "docker api: %s of an engine nobody knows is a 404, of no name a 400",
    async (path) => {
      const ask = serve();

      expect(await errorOf(await ask(path, post({ backend: "nosuch" })))).toEqual([
        404,
        "backend_not_found",
      ]);
      expect(await errorOf(await ask(path, post({ backend: 1 })))).toEqual([
        400,
        "invalid_request",
      ]);
      expect((await ask(path, { method: "POST", body: "{", headers: CLI })).status).toBe(400);
    },
  );
});

describe("pull and push", () => {
  test("docker api: progress has Docker's members and ours in one object", async () => {
    const response = await models()("/models/create", post({ from: "smollm2" }));
    const text = await response.text();

    expect(response.status).toBe(200);
    expect(text).not.toContain("&#34;");
    expect(readProgress(text)).toEqual({
      problems: [],
      layers: { [DIGEST]: { size: 10, current: 5 } },
      last: { type: "success", message: "Model pulled successfully" },
      modes: ["pull"],
    });
    expect(
      text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as object),
    ).toMatchObject([
      { phase: "downloading", done_bytes: 5, total_bytes: 10, total: 10 },
      { result: PULLED, total: 10 },
    ]);
  });

  test("docker api: who asks for our events gets them alone", async () => {
    const response = await models()("/models/create", post({ from: "smollm2" }, OURS));

    const [first] = (await response.text()).split("\n");
    expect(Object.keys(JSON.parse(first ?? "") as object)).toEqual([
      "type",
      "id",
      "phase",
      "done_bytes",
      "total_bytes",
    ]);
  });

  test("docker api: layers add up, and what only looks at bytes is none", async () => {
    const ask = models({
      push: async (_, { onProgress }) => {
        onProgress(moved("sha256:1", "uploading", [0, 5]));
        onProgress(moved("sha256:2", "already there", [7, 7]));
        onProgress(moved("f.gguf", "hashing", [3, 100]));
        onProgress({
          type: "progress",
          id: "m",
          phase: "resolving",
          done_bytes: null,
          total_bytes: null,
        });
        onProgress({ type: "warning", message: '<old> & "odd"' });
        return {
          reference: "r",
          digest: DIGEST,
          size_bytes: 1,
          uploaded_bytes: 1,
          reused_bytes: 0,
        };
      },
    });

    const text = await (await ask("/models/me/m/push", { method: "POST", headers: CLI })).text();

    const { layers, last, problems, modes } = readProgress(text);
    expect(layers).toEqual({
      "sha256:1": { size: 5, current: 0 },
      "sha256:2": { size: 7, current: 7 },
    });
    expect(last).toEqual({ type: "success", message: "Model pushed successfully" });
    expect([problems, modes]).toEqual([[], ["push"]]);
    expect(text).toContain('"message":"<old> \\u0026 \\"odd\\""');
    expect(JSON.parse(text.trimEnd().split("\n").at(-1) ?? "")).toMatchObject({ total: 12 });
  });

  test("docker api: the CLI reads what a registry said in HTML: it unescapes lines before it parses them", async () => {
    const said = "cannot pull: <p>&quot;no&#34; &amp; &bsol;</p>";
    const ask = models({
      pull: (_, { onProgress }) => {
        onProgress({ type: "warning", message: "&quot;" });
        return Promise.reject(new AppError("registry_unavailable", said));
      },
    });

    const text = await (await ask("/models/create", post({ from: "m" }))).text();

    expect(readProgress(text)).toMatchObject({
      problems: [],
      last: { type: "error", message: said },
    });
  });

  test("docker api: a layer that grows is counted once", async () => {
    const ask = models({
      pull: (_, { onProgress }) => {
        onProgress(moved("a", "downloading", [0, 5]));
        onProgress(moved("b", "downloading", [0, 7]));
        onProgress(moved("a", "downloading", [6, 9]));
        return Promise.resolve(PULLED);
      },
    });

    const text = await (await ask("/models/create", post({ from: "m" }))).text();

    expect(JSON.parse(text.trimEnd().split("\n").at(-1) ?? "")).toMatchObject({ total: 16 });
  });

  test.each([[null], [""]])("docker api: %j is no token", async (token) => {
    const asked: object[] = [];
    const ask = models({
      pull: (request) => {
        asked.push(request);
        return Promise.resolve(PULLED);
      },
      push: (request) => {
        asked.push(request);
        return Promise.reject(new AppError("unauthorized", "cannot push: no"));
      },
    });

    const pulled = await ask("/models/create", post({ from: "m", "bearer-token": token }));
    const pushed = await ask("/models/m/push", post({ "bearer-token": token }));

    expect([pulled.status, pushed.status]).toEqual([200, 401]);
    expect(asked).toEqual([{ from: "m" }, { name: "m" }]);
  });

  test("docker api: what is here already says so", async () => {
    const upToDate = { ...PULLED, up_to_date: true, size_bytes: 2_500_000 };
    const ask = models({ pull: () => Promise.resolve(upToDate) });

    const text = await (await ask("/models/create", post({ from: "m" }))).text();

    expect(readProgress(text).last.message).toBe("Using cached model: 2.50 MB");
  });

  test.each([
    ["unauthorized", 401],
    ["not_found", 404],
    ["unsupported_model", 422],
    ["registry_unavailable", 502],
    ["offline", 503],
  ] as const)("docker api: %s before any progress is %p", async (code, status) => {
    const fail = () => Promise.reject(new AppError(code, "cannot pull: no"));
    const ask = models({ pull: fail, push: fail });

    expect(await errorOf(await ask("/models/create", post({ from: "m" })))).toEqual([status, code]);
    expect(await errorOf(await ask("/models/m/push", { method: "POST" }))).toEqual([status, code]);
  });

  test("docker api: a failure after some progress is the last line, in words", async () => {
    const ask = models({
      pull: (_, { onProgress }) => {
        onProgress({
          type: "progress",
          id: "a",
          phase: "downloading",
          done_bytes: 1,
          total_bytes: 2,
        });
        return Promise.reject(new AppError("digest_mismatch", "cannot pull: no", { hint: "Try." }));
      },
    });

    const response = await ask("/models/create", post({ from: "m" }));

    expect(response.status).toBe(200);
    expect(readProgress(await response.text())).toMatchObject({
      problems: [],
      last: { type: "error", message: "cannot pull: no. Try." },
    });
  });

  test("docker api: a client that leaves before anything was told ends the work", async () => {
    const client = new AbortController();
    const seen = Promise.withResolvers<AbortSignal>();
    const request = new Request("http://x/", { signal: client.signal });
    const answer = dockerProgress(request, { mode: "pull", done: () => "" }, ({ signal }) => {
      seen.resolve(signal);
      return new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(new AppError("cancelled", "cancelled")));
      });
    });

    const signal = await seen.promise;
    client.abort();

    const error: unknown = await answer.catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "cancelled" });
    expect(signal.aborted).toBe(true);
  });
});

describe("repackage and load", () => {
  test("docker api: a variant with another context", async () => {
    await using it = await stored();

    const response = await it.ask(
      "/models/me/m:latest/repackage",
      post({ target: "me/small", context_size: 512 }),
    );
    const small = (await (await it.ask("/models/me/small")).json()) as {
      id: string;
      config: object;
    };

    expect([response.status, await response.json()]).toEqual([
      201,
      {
        message: "Repackaged me/m:latest as docker.io/me/small:latest",
        source: "me/m:latest",
        target: "docker.io/me/small:latest",
      },
    ]);
    expect(small).toMatchObject({ config: { context_size: 512 } });
    expect(small.id).not.toBe(it.id);
  });

  test.each([
    ["me/m", {}, [400, "invalid_request"]],
    ["me/m", { target: "" }, [400, "invalid_request"]],
    ["me/m", { target: "a//b" }, [400, "invalid_reference"]],
    ["me/m", { target: "me/x", context_size: "big" }, [400, "invalid_request"]],
    ["me/m", { target: "me/x", context_size: -7 }, [400, "usage"]],
    ["me/m", { target: "me/x", context_size: 1e30 }, [400, "usage"]],
    ["me/none", { target: "me/x" }, [404, "model_not_found"]],
  ])("docker api: repackaging %s as %j is refused", async (source, body, expected) => {
    await using it = await stored();

    const response = await it.ask(`/models/${source}/repackage`, post(body));

    expect(await errorOf(response)).toEqual(expected as [number, string]);
    expect((await it.ask("/models/me/x")).status).toBe(404);
  });

  test("docker api: an archive goes out and comes in; one that is none is a status", async () => {
    await using it = await stored();
    await using other = await stored();
    const archive = await (await it.ask("/models/me/m/export")).bytes();
    const tar = { "content-type": "application/x-tar", "user-agent": "docker-model-cli/1" };

    const loaded = await other.ask("/models/load", { method: "POST", headers: tar, body: archive });
    const garbage = "no archive".repeat(200);
    const refused = await other.ask("/models/load", {
      method: "POST",
      headers: tar,
      body: garbage,
    });

    expect(loaded.status).toBe(200);
    expect(readProgress(await loaded.text())).toMatchObject({
      problems: [],
      last: { type: "success", message: "Model loaded successfully" },
    });
    expect(await errorOf(refused)).toEqual([422, "invalid_model_file"]);
  });
});

describe("yes and no in queries", () => {
  test.each(["", "=true", "=1", "=T", "=TRUE"])(
    "docker api: `?force%s` is yes: a model with several tags goes by its id",
    async (value) => {
      await using it = await stored();
      await it.ask("/models/me/m/tag?repo=me/other&tag=latest", { method: "POST" });

      const response = await it.ask(`/models/${it.id}?force${value}`, { method: "DELETE" });

      expect(response.status).toBe(200);
    },
  );

  test.each([
    ["=false", [409, "conflict"]],
    ["=F", [409, "conflict"]],
    ["=0", [409, "conflict"]],
    ["=no", [400, "invalid_request"]],
    ["=maybe", [400, "invalid_request"]],
  ])("docker api: `?force%s` removes nothing", async (value, expected) => {
    await using it = await stored();
    await it.ask("/models/me/m/tag?repo=me/other&tag=latest", { method: "POST" });

    const response = await it.ask(`/models/${it.id}?force${value}`, { method: "DELETE" });

    expect(await errorOf(response)).toEqual(expected as [number, string]);
    expect((await it.ask("/models/me/m")).status).toBe(200);
  });

  test("docker api: `?remote=false` asks no registry, and what is neither is refused", async () => {
    await using it = await stored();

    expect((await it.ask("/models/me/m?remote=false")).status).toBe(200);
    expect(await errorOf(await it.ask("/models/me/m?remote=x"))).toEqual([400, "invalid_request"]);
  });
});

describe("names of _configure", () => {
  test.each([
    { model: "m", "context-size": 1, llamacpp: { "reasoning-budget": 2 } },
    { Model: "m", "Context-Size": 1, LlamaCpp: { "Reasoning-Budget": 2 } },
    { model: "m", context_size: 1, llamacpp: { reasoning_budget: 2 } },
    { MODEL: "m", contextSize: 1, llamaCpp: { reasoningBudget: 2 } },
    // A row of GET, sent back.
    {
      Backend: "llama.cpp",
      Model: "m",
      ModelID: "sha256:1",
      Config: { "context-size": 1, llamacpp: { "reasoning-budget": 2 } },
    },
  ])("docker api: %j says the same", (body) => {
    expect(readDockerNames(body)).toMatchObject({
      model: "m",
      "context-size": 1,
      llamacpp: { "reasoning-budget": 2 },
    });
  });

  test("docker api: what is no object stays what it is, for the schema to refuse", () => {
    const body = { config: "x", speculative: [1], llamacpp: "y", vllm: null };

    expect(readDockerNames(body)).toEqual({ speculative: [1], llamacpp: "y", vllm: null });
  });

  test("docker api: names of objects' own are members like others", () => {
    const body = JSON.parse('{"__proto__":{"a":1},"constructor":2,"model":"m"}') as Record<
      string,
      unknown
    >;

    expect(Object.keys(readDockerNames(body))).toContain("model");
    expect(({} as { a?: number }).a).toBeUndefined();
  });
});

describe("statuses", () => {
  const preload = { model: "pebble", messages: [] };
  const path = "/engines/v1/chat/completions";

  test.each([
    ["insufficient_memory", 500, 503],
    ["install_failed", 500, 503],
    ["shutting_down", 503, 503],
    ["queue_full", 429, 429],
  ] as const)(
    "docker api: %s is %p for Docker's CLI, %p for others",
    async (code, theirs, others) => {
      const acquire = () => Promise.reject(new AppError(code, "cannot load: no"));
      const ask = serve({ runtime: fakeRuntime({ acquire }) });
      const curl = { "user-agent": "curl/8", "x-preload-only": "true" };

      const shown = await ask(path, post(preload, { ...CLI, "x-preload-only": "true" }));

      expect(await errorOf(shown)).toEqual([theirs, code]);
      expect(await errorOf(await ask(path, post(preload, curl)))).toEqual([others, code]);
    },
  );

  test("docker api: a preload needs no messages, and answers nothing", async () => {
    const runtime = fakeRuntime({});

    const response = await serve({ runtime })(path, post(preload, { "X-Preload-Only": "TRUE" }));

    expect([response.status, await response.text()]).toEqual([200, ""]);
    expect(runtime.acquired).toHaveLength(1);
    expect(runtime.leases.map(({ releases }) => releases)).toEqual([1]);
  });
});

describe("what is private", () => {
  test("docker api: the CLI shows why it gets no requests: it shows bodies of 404s alone", async () => {
    const response = await serve()("/engines/requests");
    const text = await response.text();

    expect(response.status).toBe(404);
    expect(text).toContain("prompts are private");
    expect(text).toContain("tug requests");
  });

  test("docker api: others are told that it is forbidden", async () => {
    const response = await serve()("/engines/requests", { headers: { "user-agent": "curl/8" } });

    expect(await errorOf(response)).toEqual([403, "forbidden"]);
  });

  test("docker api: logs without engines are for all, with them the CLI shows what to do", async () => {
    const logs = { hasRunnerLog: true, read: () => Promise.resolve(new Blob(["line\n"]).stream()) };
    const ask = serve({ logs });

    const engines = await ask("/logs?follow=false&no-engines=false");
    const runner = await ask("/logs?follow=false&no-engines=true");

    expect(engines.status).toBe(403);
    expect(await engines.text()).toContain("no-engines=true");
    expect([runner.status, await runner.text()]).toEqual([200, "line\n"]);
  });
});
