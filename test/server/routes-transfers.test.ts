import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import type { ProgressEvent } from "../../src/api/progress.ts";
import { AppError, toAppError } from "../../src/errors.ts";
import type { AppEnv, Distribution } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";
import { PullJobs } from "../../src/server/pull-jobs.ts";
import { modelRoutes } from "../../src/server/routes/models.ts";
import { registryRoutes } from "../../src/server/routes/registries.ts";
import { Store } from "../../src/store/store.ts";
import { eventually } from "../helpers/eventually.ts";
import { type FakeDistribution, PULLED, PUSHED, fakeDistribution } from "./fake-distribution.ts";

interface Bench {
  readonly app: Hono<AppEnv>;
  readonly calls: FakeDistribution["calls"];
  call(method: string, path: string, body?: unknown): Promise<Response>;
  callUntrusted(method: string, path: string, body?: unknown): Promise<Response>;
}

function bench(overrides: Partial<Distribution> = {}, pulls?: PullJobs): Bench {
  const distribution = fakeDistribution(overrides);
  const routes = modelRoutes({
    store: Store.open("/nonexistent/store"),
    distribution,
    remotes: () => Promise.reject(new Error("nothing here is packaged")),
    ...(pulls === undefined ? {} : { pulls }),
  });
  const app = new Hono<AppEnv>()
    .route("/models", routes)
    .route("/registries", registryRoutes(distribution));
  app.onError((error) => toErrorResponse(toAppError(error)));
  const call = async (path: string, init: RequestInit, trusted: boolean): Promise<Response> =>
    app.request(path, init, { trusted });
  return {
    app,
    calls: distribution.calls,
    call: (method, path, body) => call(path, toInit(method, body), true),
    callUntrusted: (method, path, body) => call(path, toInit(method, body), false),
  };
}

function toInit(method: string, body: unknown): RequestInit {
  const headers = { accept: "application/x-ndjson" };
  return body === undefined ? { method, headers } : { method, headers, body: JSON.stringify(body) };
}

async function lines<Result>(response: Response): Promise<ProgressEvent<Result>[]> {
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

/** Jobs whose one process waits until it is told to end. */
function oneJob(): { jobs: PullJobs; requests: unknown[]; finish: () => void } {
  const requests: unknown[] = [];
  const { promise, resolve } = Promise.withResolvers<"finished" | "killed">();
  const jobs = new PullJobs({
    spawn: (request) => {
      requests.push(request);
      return {
        pid: 1,
        events: (async function* () {
          if ((await promise) === "finished") yield { type: "success", result: PULLED } as const;
        })(),
        ended: promise.then(() => "its process left with 0"),
        kill: () => resolve("killed"),
      };
    },
  });
  return { jobs, requests, finish: () => resolve("finished") };
}

describe("POST /models/create", () => {
  test("transfers: a pull tells how it goes and ends with its result", async () => {
    const it = bench();

    const events = await lines(
      await it.callUntrusted("POST", "/models/create", { from: "smollm2" }),
    );

    expect(events.map(({ type }) => type)).toEqual(["progress", "success"]);
    expect(events.at(-1)).toEqual({ type: "success", result: PULLED });
  });

  test("transfers: what we know is passed on, what Docker's clients send besides is ignored", async () => {
    const it = bench();
    const request = {
      from: "hf.co/org/m:Q4",
      "bearer-token": "t",
      platform: "linux/amd64",
      insecure: true,
      connections: 4,
      limit_rate: 1000,
    };

    await (
      await it.call("POST", "/models/create", { ...request, ignore_memory_check: true })
    ).text();

    expect(it.calls).toEqual([["pull", request]]);
  });

  test("transfers: a failure is the last line", async () => {
    const it = bench({
      pull: () =>
        Promise.reject(new AppError("unauthorized", "cannot pull: no", { hint: "Log in." })),
    });

    const events = await lines(await it.call("POST", "/models/create", { from: "m" }));

    expect(events).toEqual([
      {
        type: "error",
        error: { code: "unauthorized", message: "cannot pull: no", hint: "Log in." },
      },
    ]);
  });

  test.each([
    [{ from: "a//b" }, "invalid_reference"],
    [{ from: "" }, "invalid_reference"],
    [{}, "invalid_request"],
    [{ from: "m", connections: 0 }, "invalid_request"],
    [{ from: "m", connections: 1.5 }, "invalid_request"],
    [{ from: "m", limit_rate: -1 }, "invalid_request"],
    [{ from: 1 }, "invalid_request"],
  ])("transfers: the request %j is refused", async (body, code) => {
    const it = bench();

    expect(await codeOf(await it.call("POST", "/models/create", body))).toEqual([400, code]);
    expect(it.calls).toEqual([]);
  });

  test.each(["https://example.com/m.gguf", "hf.co/org/model@main", "ollama://x"])(
    "transfers: %s is left to the pull to understand",
    async (from) => {
      const it = bench();

      await (await it.call("POST", "/models/create", { from })).text();

      expect(it.calls).toEqual([["pull", { from }]]);
    },
  );

  test("transfers: a client that leaves stops its pull", async () => {
    const seen: AbortSignal[] = [];
    const it = bench({
      pull: (_, { signal }) => {
        seen.push(signal);
        return new Promise((_resolve, reject) =>
          signal.addEventListener("abort", () => reject(new AppError("cancelled", "cancelled"))),
        );
      },
    });

    const response = await it.call("POST", "/models/create", { from: "m" });
    await response.body?.cancel();

    await eventually(() => seen[0]?.aborted);
  });
});

describe("the runner's pulls", () => {
  test("transfers: the runner pulls in another process, but not what is built in", async () => {
    const { jobs, requests, finish } = oneJob();
    const it = bench({}, jobs);

    const pulled = await it.call("POST", "/models/create", { from: "smollm2" });
    finish();
    expect((await lines(pulled)).at(-1)).toEqual({ type: "success", result: PULLED });
    expect(requests).toEqual([{ from: "smollm2" }]);
    expect(it.calls).toEqual([]);

    await (await it.call("POST", "/models/create", { from: "pebble" })).text();
    expect(it.calls).toEqual([["pull", { from: "pebble" }]]);
  });

  test("transfers: one that is detached is answered at once, listed and cancelled", async () => {
    const { jobs } = oneJob();
    const it = bench({}, jobs);

    const started = await it.call("POST", "/models/create", { from: "smollm2", detach: true });
    const { id, state } = (await started.json()) as { id: string; state: string };
    const listed = await (await it.call("GET", "/models/pulls")).json();
    const cancelled = await it.call("DELETE", `/models/pulls/${id}`);

    expect([started.status, state]).toEqual([202, "running"]);
    expect(listed).toMatchObject([{ id, model: "smollm2" }]);
    expect(await cancelled.json()).toMatchObject({ id, state: "cancelled" });
    expect(await codeOf(await it.call("DELETE", "/models/pulls/nothing"))).toEqual([
      404,
      "not_found",
    ]);
  });

  test("transfers: a process that is no runner has no pulls to list and takes none", async () => {
    const it = bench();

    expect(await (await it.call("GET", "/models/pulls")).json()).toEqual([]);
    const detached = await it.call("POST", "/models/create", { from: "m", detach: true });
    expect(await codeOf(detached)).toEqual([501, "not_supported"]);
    expect((await it.call("DELETE", "/models/pulls/x")).status).toBe(404);
  });

  test("transfers: a model of that name, with its tag, is a model", async () => {
    const it = bench();

    expect(await codeOf(await it.call("GET", "/models/pulls:latest"))).toEqual([
      404,
      "model_not_found",
    ]);
    expect(await codeOf(await it.call("DELETE", "/models/pulls/x:latest"))).toEqual([
      404,
      "model_not_found",
    ]);
    expect(await codeOf(await it.call("GET", "/models/search:latest"))).toEqual([
      404,
      "model_not_found",
    ]);
  });
});

describe("push, copy and adopt", () => {
  test("transfers: a model is pushed by its name, to another one if it is given", async () => {
    const it = bench();

    const own = await lines(await it.call("POST", "/models/me/m:v1/push"));
    const other = { to: "localhost:5000/me/m:v1", insecure: true };
    await (await it.call("POST", "/models/localhost:5000%2Fme%2Fm:v1/push", other)).text();

    expect(own).toEqual([{ type: "success", result: PUSHED }]);
    expect(it.calls).toEqual([
      ["push", { name: "me/m:v1" }],
      ["push", { name: "localhost:5000/me/m:v1", ...other }],
    ]);
  });

  test("transfers: a copy goes from name to name", async () => {
    const it = bench();
    const request = { source: "a/b", target: "c/d", platform: "linux/arm64" };

    expect(await lines(await it.call("POST", "/models/copy", request))).toEqual([
      { type: "success", result: PUSHED },
    ]);
    expect(it.calls).toEqual([["copy", request]]);
    expect(await codeOf(await it.call("POST", "/models/copy", { source: "a/b" }))).toEqual([
      400,
      "invalid_request",
    ]);
  });

  test("transfers: only the user may have files looked for", async () => {
    const it = bench();

    const refused = await it.callUntrusted("POST", "/models/adopt", {});
    await (await it.call("POST", "/models/adopt", { dry_run: true })).text();

    expect(await codeOf(refused)).toEqual([403, "forbidden"]);
    expect(it.calls).toEqual([["adopt", { dry_run: true }]]);
  });
});

describe("GET /models/search", () => {
  test("transfers: a search has defaults, and takes what it is given", async () => {
    const it = bench();

    expect(await (await it.call("GET", "/models/search")).json()).toEqual([]);
    await it.call("GET", "/models/search?q=a%20b&source=docker&limit=3");

    expect(it.calls).toEqual([
      ["search", { text: "", source: "all", limit: 25 }],
      ["search", { text: "a b", source: "docker", limit: 3 }],
    ]);
  });

  test.each(["source=npm", "limit=0", "limit=1001", "limit=x", "limit=-1"])(
    "transfers: a search with %s is refused",
    async (query) => {
      const it = bench();

      expect(await codeOf(await it.call("GET", `/models/search?${query}`))).toEqual([
        400,
        "invalid_request",
      ]);
    },
  );
});

describe("/registries", () => {
  const CREDENTIAL = { registry: "ghcr.io", username: "me", password: "p" };

  test("registries: the user logs in and out", async () => {
    const it = bench();

    const login = await it.call("POST", "/registries/login", CREDENTIAL);
    const logout = await it.call("POST", "/registries/logout", { registry: "ghcr.io" });

    expect(await login.json()).toEqual({ registry: "ghcr.io", username: "me", kept_in: "a file" });
    expect(await logout.json()).toEqual({
      registry: "ghcr.io",
      removed_from: null,
      remains_in: null,
    });
    expect(it.calls).toEqual([
      ["login", CREDENTIAL],
      ["logout", "ghcr.io"],
    ]);
  });

  test("registries: nobody else does", async () => {
    const it = bench();

    for (const path of ["login", "logout"]) {
      const refused = await it.callUntrusted("POST", `/registries/${path}`, CREDENTIAL);
      expect(await codeOf(refused)).toEqual([403, "forbidden"]);
    }
    expect(it.calls).toEqual([]);
  });

  test("registries: a password is never in the answer to a mistake", async () => {
    const it = bench();

    const response = await it.call("POST", "/registries/login", {
      registry: "ghcr.io",
      username: 1,
      password: "hunter2",
    });

    expect(response.status).toBe(400);
    expect(await response.text()).not.toContain("hunter2");
  });
});
