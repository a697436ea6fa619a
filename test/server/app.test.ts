import { describe, expect, test } from "bun:test";
import type { ProgressEvent } from "../../src/api/progress.ts";
import { AppError } from "../../src/errors.ts";
import { createApp, routePath } from "../../src/server/app.ts";
import type { AppDeps, Bindings, RunnerControl } from "../../src/server/deps.ts";
import { speaks, startFakeEngine } from "../fakes/engine.ts";
import {
  fakeDeps,
  fakeInstaller,
  fakePlan,
  fakeRuntime,
  IDLE_WORKER,
  INSTALLED,
  PEBBLE_ID,
} from "./fake-deps.ts";
import type { PlanRequest } from "../../src/runtime/planner.ts";

const TRUSTED: Bindings = { trusted: true };

const WORKER = IDLE_WORKER;

/** A planner that notes what it is asked. */
function planning(asked: PlanRequest[]): Pick<AppDeps, "planner"> {
  return {
    planner: () => ({
      plan(request) {
        asked.push(request);
        return Promise.resolve(fakePlan(request));
      },
    }),
  };
}

function post(body: unknown, headers: Record<string, string> = {}): RequestInit {
  return { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body), headers };
}

async function lines<T>(response: Response): Promise<ProgressEvent<T>[]> {
  return (await response.text())
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as ProgressEvent<T>);
}

describe("routing", () => {
  const app = createApp(fakeDeps());

  test("app: an unknown route is 404 in JSON", async () => {
    const response = await app.request("/v1/nothing");

    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: "not_found", param: null } });
  });

  test.each([
    ["GET", "/v1/chat/completions", "POST, OPTIONS"],
    ["DELETE", "/engines/ps", "GET, HEAD, OPTIONS"],
    ["POST", "/version", "GET, HEAD, OPTIONS"],
    ["PUT", "/engines/llama.cpp/v1/completions", "POST, OPTIONS"],
  ])("app: %s %s is 405 and says what is allowed", async (method, path, allow) => {
    const response = await app.request(path, { method });

    expect(response.status).toBe(405);
    expect(response.headers.get("allow")).toBe(allow);
    expect(await response.json()).toMatchObject({ error: { code: "method_not_allowed" } });
  });

  test.each([
    ["http://h", "/"],
    ["http://h/", "/"],
    ["http://h?x=//", "/"],
    ["http://h//v1//models/", "/v1/models"],
    ["http://h/models/a%2Fb?x#y", "/models/a%2Fb"],
  ])("routePath: %s is %s", (url, path) => {
    expect(routePath({ url } as Request)).toBe(path);
  });

  test("app: doubled and trailing slashes do not matter", async () => {
    expect((await app.request("//engines///ps/")).status).toBe(200);
  });

  test("app: an unexpected failure is a 500 in JSON", async () => {
    const broken = createApp(
      fakeDeps({ listModels: () => Promise.reject(new AppError("internal", "the disk is gone")) }),
    );

    const response = await broken.request("/v1/models");

    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({
      error: { code: "internal", message: "the disk is gone", type: "server_error" },
    });
  });

  test("app: a full queue says when to come back", async () => {
    const runtime = fakeRuntime({
      acquire: () => Promise.reject(new AppError("queue_full", "cannot queue: 512 wait already")),
    });

    const response = await createApp(fakeDeps({ runtime })).request(
      "/v1/chat/completions",
      post({ model: "pebble" }),
    );

    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("5");
    expect(await response.json()).toMatchObject({ error: { type: "rate_limit_error" } });
  });
});

describe("inference", () => {
  test.each([
    "/v1/chat/completions",
    "/engines/v1/chat/completions",
    "/engines/llama.cpp/v1/chat/completions",
  ])("openai: %s answers with the worker's stream", async (path) => {
    await using engine = await startFakeEngine(speaks(["Paris"]));
    const runtime = fakeRuntime({ socket: engine.socket });

    const response = await createApp(fakeDeps({ runtime })).request(
      path,
      post({ model: "pebble" }),
    );

    expect(await response.text()).toContain('"content":"Paris"');
    expect(runtime.leases[0]?.releases).toBe(1);
    expect(engine.requests[0]?.target).toBe("/v1/chat/completions");
  });

  test("openai: what is asked of the worker comes from path and body", async () => {
    await using engine = await startFakeEngine(speaks([]));
    const runtime = fakeRuntime({ socket: engine.socket });

    const asked: PlanRequest[] = [];
    await createApp(fakeDeps({ runtime, ...planning(asked) })).request(
      "/engines/llama.cpp/v1/completions",
      post({ model: "pebble", keep_alive: "10m", context_size: 4096 }),
      TRUSTED,
    );

    expect(asked).toMatchObject([
      {
        backend: "llama.cpp",
        mode: "completion",
        request: { keep_alive: "10m", context_size: 4096 },
        trusted: true,
      },
    ]);
    expect(runtime.acquired[0]).toMatchObject({
      plan: { backend: "llama.cpp", settings: { contextTokens: 4096 } },
      reason: "request",
    });
  });

  test.each([
    [0, { keep_alive: "0" }],
    [-1, { keep_alive: "-1" }],
    [1.5, { keep_alive: "1.5" }],
    ["1h", { keep_alive: "1h" }],
    [null, {}],
  ])("openai: keep_alive %p is asked of the planner as %p", async (keepAlive, expected) => {
    const asked: PlanRequest[] = [];

    await createApp(fakeDeps({ runtime: fakeRuntime({}), ...planning(asked) })).request(
      "/v1/completions",
      post({ model: "pebble", keep_alive: keepAlive }, { "x-preload-only": "true" }),
    );

    expect(asked[0]?.request).toEqual(expected);
  });

  test("openai: X-Preload-Only loads and answers with nothing", async () => {
    const runtime = fakeRuntime({});

    const response = await createApp(fakeDeps({ runtime })).request(
      "/v1/chat/completions",
      post({ model: "pebble" }, { "x-preload-only": "true" }),
    );

    expect(response.status).toBe(200);
    expect(await response.text()).toBe("");
    expect(runtime.leases[0]?.releases).toBe(1);
  });

  test.each([
    ["an empty body", "", "the body is empty, it must be JSON"],
    ["a list", "[]", "the body must be a JSON object"],
    ["a string", '"pebble"', "the body must be a JSON object"],
    ["no model", "{}", "`model` is required"],
    ["an empty model", '{"model":""}', "`model` must not be empty"],
    ["a number for a model", '{"model":1}', "`model` must be string, not 1"],
    ["half a token", '{"model":"p","context_size":0.5}', "`0.5` is not a value of `context_size`"],
    [
      "a keep_alive that is no duration",
      '{"model":"p","keep_alive":"soon"}',
      "`soon` is not a value of `keep_alive`",
    ],
  ])("openai: %s is a 400", async (_, body, reason) => {
    const app = createApp(fakeDeps({ runtime: fakeRuntime({}) }));

    const response = await app.request("/v1/chat/completions", post(body));

    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { code: "invalid_request", message: `cannot read the request: ${reason}` },
    });
  });

  test("openai: a broken body says what is wrong with it", async () => {
    const app = createApp(fakeDeps({ runtime: fakeRuntime({}) }));

    const response = await app.request("/v1/chat/completions", post("{"));

    expect(response.status).toBe(400);
    expect(await response.text()).toContain("the body is not JSON (");
  });

  test("openai: an unknown engine is a 404 and nothing is loaded", async () => {
    const runtime = fakeRuntime({});

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/abacus/v1/chat/completions",
      post({ model: "pebble" }),
    );

    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: "backend_not_found" } });
    expect(runtime.acquired).toEqual([]);
  });

  test("openai: an unknown model is a 404 with a hint", async () => {
    const app = createApp(fakeDeps({ runtime: fakeRuntime({}) }));

    const response = await app.request("/v1/chat/completions", post({ model: "nobody/nothing" }));

    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({
      error: { code: "model_not_found", hint: "See `tug list`.", type: "not_found_error" },
    });
  });

  test("openai: only a trusted caller may name a file", async () => {
    const seen: boolean[] = [];
    const app = createApp(
      fakeDeps({
        runtime: fakeRuntime({}),
        resolve: (_, { trusted }) => {
          seen.push(trusted);
          return Promise.reject(new AppError("forbidden", "no"));
        },
      }),
    );

    await app.request("/v1/completions", post({ model: "/m.gguf" }));
    await app.request("/v1/completions", post({ model: "/m.gguf" }), TRUSTED);

    expect(seen).toEqual([false, true]);
  });

  test("openai: without a runner inference is a 503 that says how to get one", async () => {
    const response = await createApp(fakeDeps()).request(
      "/v1/chat/completions",
      post({ model: "pebble" }),
    );

    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ error: { code: "runner_unreachable" } });
  });

  test.each(["/v1/models", "/engines/v1/models", "/engines/llama.cpp/v1/models"])(
    "openai: %s lists models",
    async (path) => {
      const response = await createApp(fakeDeps()).request(path);

      expect(await response.json()).toEqual({
        object: "list",
        data: [
          {
            id: "docker.io/ai/pebble:latest",
            object: "model",
            created: 1_700_000_000,
            owned_by: "docker",
            dmr: {
              architecture: "llama",
              parameters: "2.9M",
              quantization: "Q8_0",
              size: "2.86MiB",
            },
          },
        ],
      });
    },
  );

  test("openai: one model is found by a name with slashes, or is a 404", async () => {
    const app = createApp(fakeDeps());

    expect(await (await app.request("/v1/models/ai/pebble")).json()).toMatchObject({
      object: "model",
    });
    expect((await app.request("/v1/models/ai/nothing")).status).toBe(404);
    expect((await app.request("/engines/abacus/v1/models")).status).toBe(404);
  });
});

describe("engines", () => {
  test("engines: ps is empty without a runner", async () => {
    expect(await (await createApp(fakeDeps()).request("/engines/ps")).json()).toEqual([]);
  });

  test("engines: ps describes workers", async () => {
    const idle = {
      ...WORKER,
      state: "starting",
      lastUsed: null,
      expiresAt: null,
      pid: null,
      progress: { phase: "loading", doneBytes: 5, totalBytes: 10 },
    } as const;
    const runtime = fakeRuntime({ workers: [WORKER, idle] });

    const response = await createApp(fakeDeps({ runtime })).request("/engines/ps");

    expect(await response.json()).toMatchObject([
      {
        backend_name: "llama.cpp",
        model_name: "me/gone",
        state: "ready",
        loading: false,
        in_use: false,
        requests: 0,
        keep_alive: "5m0s",
        slots: 4,
        context_size: 4096,
        devices: ["ram"],
        memory_estimate: { ram: 20_000_000 },
        memory_actual: { ram: 18_000_000 },
        sandbox: "bubblewrap",
        pinned: false,
        mismatches: [],
        progress: null,
        last_used: "2026-01-02T03:04:05.000Z",
        keep_alive_ms: 300_000,
        expires_at: "2026-01-02T03:09:05.000Z",
        pid: 42,
      },
      {
        loading: true,
        last_used: null,
        expires_at: null,
        pid: null,
        progress: { phase: "loading", done_bytes: 5, total_bytes: 10 },
      },
    ]);
  });

  test("engines: the list and the status name what is installed", async () => {
    const app = createApp(fakeDeps({ engineNames: () => Promise.resolve(["llama.cpp"]) }));
    const { command: _, installedAt: __, sizeBytes: ___, ...shown } = INSTALLED;

    expect(await (await app.request("/engines")).json()).toEqual([shown]);
    expect(await (await app.request("/engines/status")).json()).toEqual({
      "llama.cpp": "Running: llama.cpp 0.7.0 (cpu, from apt)",
    });
  });

  test("engines: an engine that is not installed is listed as such", async () => {
    const deps = fakeDeps({ installer: () => fakeInstaller({ list: () => Promise.resolve([]) }) });

    const response = await createApp(deps).request("/engines/status");

    expect(await response.json()).toMatchObject({ "llama.cpp": "Not Installed" });
  });

  test("engines: df adds up models and engines", async () => {
    expect(await (await createApp(fakeDeps()).request("/engines/df")).json()).toEqual({
      models_disk_usage: 3_000_000,
      default_backend_disk_usage: 46_000_000,
      models: [
        {
          id: PEBBLE_ID,
          tags: ["docker.io/ai/pebble:latest"],
          size_bytes: 3_000_000,
          shared_bytes: 1000,
        },
      ],
      reclaimable: 500,
      engines: [{ backend: "llama.cpp", version: "0.7.0", variant: "cpu", size_bytes: 46_000_000 }],
    });
  });

  test("engines: unload turns names into ids, also of a model that is gone from the store", async () => {
    const runtime = fakeRuntime({ workers: [WORKER] });

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/unload",
      post({ models: ["pebble", "me/gone"] }),
    );

    expect(await response.json()).toEqual({ unloaded_runners: 1, skipped: [] });
    expect(runtime.unloads[0]?.models).toEqual([PEBBLE_ID, WORKER.modelId]);
  });

  test("engines: unload needs something to unload, and does nothing without a runner", async () => {
    const app = createApp(fakeDeps());

    expect((await app.request("/engines/unload", post({}))).status).toBe(400);
    expect(await (await app.request("/engines/unload", post({ all: true }))).json()).toEqual({
      unloaded_runners: 0,
      skipped: [],
    });
  });

  test("engines: load reports progress and ends with the worker", async () => {
    const runtime = fakeRuntime({
      acquire: (request) => {
        const progress = { phase: "loading", done_bytes: null, total_bytes: null };
        request.onProgress?.({ type: "progress", id: "pebble", ...progress });
        return fakeRuntime({}).acquire(request);
      },
    });

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/load",
      post({ model: "pebble", context_size: -1, keep_alive: -1 }),
    );

    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    expect(await lines(response)).toMatchObject([
      { type: "progress", phase: "loading" },
      { type: "success", result: { model_id: PEBBLE_ID, backend: "llama.cpp" } },
    ]);
    expect(runtime.acquired[0]).toMatchObject({
      plan: { mode: "completion", settings: { contextTokens: -1 } },
    });
  });

  test("engines: a load that fails ends with the error", async () => {
    const runtime = fakeRuntime({
      acquire: () =>
        Promise.reject(new AppError("worker_failed", "cannot run `pebble`: no memory")),
    });

    const response = await createApp(fakeDeps({ runtime })).request(
      "/engines/load",
      post({ model: "pebble" }),
    );

    expect(await lines(response)).toEqual([
      {
        type: "error",
        error: { code: "worker_failed", message: "cannot run `pebble`: no memory", hint: null },
      },
    ]);
  });

  test("engines: install needs no body and ends with the installation", async () => {
    const asked: unknown[] = [];
    const installer = (): ReturnType<typeof fakeInstaller> =>
      fakeInstaller({
        install: (request) => {
          asked.push(request);
          return Promise.resolve(INSTALLED);
        },
      });

    const response = await createApp(fakeDeps({ installer })).request("/engines/install-backend", {
      method: "POST",
      headers: { accept: "application/x-ndjson" },
    });

    expect(asked).toEqual([{ backend: "llama.cpp", gpu: "auto" }]);
    expect(await lines(response)).toMatchObject([
      { type: "success", result: { backend: "llama.cpp", active: true } },
    ]);
  });

  test("engines: a GPU that does not exist is a 400, an engine that does not a 404", async () => {
    const app = createApp(fakeDeps());

    expect((await app.request("/engines/install-backend", post({ gpu: "abacus" }))).status).toBe(
      400,
    );
    expect((await app.request("/engines/install-backend", post({ backend: "x" }))).status).toBe(
      404,
    );
    expect((await app.request("/engines/uninstall-backend", post({ backend: "x" }))).status).toBe(
      404,
    );
  });

  test("engines: uninstall says what went, and refuses while the engine runs", async () => {
    const idle = createApp(fakeDeps());
    const serving = fakeRuntime({ workers: [{ ...WORKER, inUse: 1 }] });
    const busy = createApp(fakeDeps({ runtime: serving }));
    const request = post({ backend: "llama.cpp" });

    expect(await (await idle.request("/engines/uninstall-backend", request)).json()).toMatchObject([
      { backend: "llama.cpp", active: false },
    ]);
    expect((await busy.request("/engines/uninstall-backend", request)).status).toBe(409);
  });
});

describe("health and the runner", () => {
  const stops: { force: boolean }[] = [];
  const runner: RunnerControl = {
    info: () =>
      Promise.resolve({
        version: "1.2.3",
        pid: 1,
        endpoint: null,
        endpoint_problem: null,
        socket: null,
        started_at: "2026-01-01T00:00:00Z",
        idle_exit_ms: null,
        engines: [],
      }),
    isStopping: false,
    stop: (options) => void stops.push(options),
  };

  test("health: live always, ready with a runtime only", async () => {
    const ready = createApp(fakeDeps({ runtime: fakeRuntime({}) }));

    expect((await createApp(fakeDeps()).request("/health/live")).status).toBe(200);
    expect((await createApp(fakeDeps()).request("/health/ready")).status).toBe(503);
    expect((await ready.request("/health/ready")).status).toBe(200);
  });

  test("health: version and greeting", async () => {
    const app = createApp(fakeDeps());

    expect(await (await app.request("/version")).json()).toEqual({ version: "1.2.3" });
    expect(await (await app.request("/")).text()).toBe("Tug is running");
  });

  test("runner: info comes from the runner, and is a 503 where none is", async () => {
    const app = createApp(fakeDeps({ runner }));

    expect(await (await app.request("/runner")).json()).toMatchObject({ pid: 1 });
    expect((await createApp(fakeDeps()).request("/runner")).status).toBe(503);
  });

  test("runner: only a trusted caller stops it", async () => {
    const app = createApp(fakeDeps({ runner }));
    const request = { method: "POST" };

    const stranger = await app.request("/runner/stop", request);
    const owner = await app.request("/runner/stop?force=true", request, TRUSTED);

    expect(stranger.status).toBe(403);
    expect(owner.status).toBe(202);
    expect(stops).toEqual([{ force: true }]);
  });
});
