import { describe, expect, test } from "bun:test";
import { Hono } from "hono";
import type { RequestRecord, RequestsOfModel } from "../../src/api/requests.ts";
import { AppError, toAppError } from "../../src/errors.ts";
import type { Caller } from "../../src/server/auth.ts";
import type { AppEnv } from "../../src/server/deps.ts";
import { toErrorResponse } from "../../src/server/error-response.ts";
import { metricsRoutes } from "../../src/server/routes/metrics.ts";
import {
  type RequestLog,
  requestRoutes,
  type RequestRoutesDeps,
} from "../../src/server/routes/requests.ts";
import { eventually } from "../helpers/eventually.ts";

const A = `sha256:${"a".repeat(64)}`;
const B = `sha256:${"b".repeat(64)}`;

const record = (id: string, model = "pebble", model_id = A) =>
  ({ id, model, model_id, request: "{}" }) as RequestRecord;

/** A log in memory. */
function fakeLog(records: RequestRecord[], isRecording = true) {
  const listeners = new Set<(one: RequestRecord) => void>();
  const log: RequestLog = {
    isRecording,
    list: ({ limit, keep = () => true }) => records.filter(keep).slice(-limit),
    find: (id) => records.find((one) => one.id === id),
    clear: () => records.splice(0).length,
    follow(listener) {
      if (!isRecording || listeners.size >= 2) return undefined;
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
  const add = (one: RequestRecord): void => {
    for (const listener of listeners) listener(one);
  };
  return { log, add, listeners };
}

function setUp(
  records: RequestRecord[],
  overrides: Partial<RequestRoutesDeps> = {},
  caller?: Caller,
) {
  const fake = fakeLog(records);
  const deps = {
    requestLog: () => fake.log,
    resolve: (name: string) =>
      name === "ai/pebble"
        ? Promise.resolve({ id: A } as never)
        : Promise.reject(new AppError("model_not_found", "cannot find it")),
    ...overrides,
  };
  const app = new Hono<AppEnv>();
  app.use((c, next) => {
    if (caller !== undefined) c.set("caller", caller);
    return next();
  });
  app.route("/engines", requestRoutes(deps));
  app.onError((error) => toErrorResponse(toAppError(error)));
  const ask = (path: string, init?: RequestInit, trusted = true) =>
    app.request(`/engines/requests${path}`, init ?? {}, { trusted });
  return { ...fake, ask };
}

const EVENTS = { headers: { accept: "text/event-stream" } };

async function codeOf(response: Response | Promise<Response>): Promise<string> {
  return ((await (await response).json()) as { error: { code: string } }).error.code;
}

describe("GET /engines/requests", () => {
  test("groups records by model, as Docker Model Runner does", async () => {
    const { ask } = setUp([record("1"), record("2", "other", B), record("3", "ai/pebble")]);

    const groups = (await (await ask("")).json()) as RequestsOfModel[];

    expect(groups.map(({ count, model, config }) => [count, model, config])).toEqual([
      [2, "ai/pebble", {}],
      [1, "other", {}],
    ]);
    expect(groups[0]?.records.map(({ id }) => id)).toEqual(["1", "3"]);
  });

  test.each([
    ["the model by any of its names", "?model=ai/pebble", ["1", "3"]],
    ["a model that is gone, by its name", "?model=gone", ["2"]],
    ["a model by its id", `?model=${B}`, ["2"]],
    ["none", "?model=unknown", []],
    ["the last ones", "?limit=1", ["3"]],
  ])("shows %s", async (_, query, ids) => {
    const { ask } = setUp([record("1"), record("2", "gone", B), record("3")]);

    const groups = (await (await ask(query)).json()) as RequestsOfModel[];

    expect(groups.flatMap(({ records }) => records).map(({ id }) => id)).toEqual(ids);
  });

  test.each(["0", "-1", "1001", "ten", "1e3", "99999999999"])("refuses limit %s", async (limit) => {
    const { ask } = setUp([]);

    expect(await codeOf(ask(`?limit=${limit}`))).toBe("invalid_request");
  });

  test("shows one whole, also with an odd id", async () => {
    const { ask } = setUp([record("a/b?c")]);

    const response = await ask(`/${encodeURIComponent("a/b?c")}`);

    expect(((await response.json()) as RequestRecord).id).toBe("a/b?c");
    expect(await codeOf(ask("/none"))).toBe("not_found");
  });

  test("forgets all of them", async () => {
    const { ask } = setUp([record("1"), record("2")]);

    const response = await ask("", { method: "DELETE" });

    expect(await response.json()).toEqual({ removed: 2 });
    expect(await (await ask("")).json()).toEqual([]);
  });

  test.each(["", "/1", "?limit=1"])(
    "shows nobody over TCP anything without a key: %j",
    async (path) => {
      const { ask } = setUp([record("1")]);

      expect(await codeOf(ask(path, {}, false))).toBe("forbidden");
      expect(await codeOf(ask(path, EVENTS, false))).toBe("forbidden");
      expect(await codeOf(ask("", { method: "DELETE" }, false))).toBe("forbidden");
    },
  );

  test("shows who has shown the key what it asks for", async () => {
    const { ask } = setUp([record("1")], {}, { name: "me", scopes: ["admin"] });

    expect((await ask("", {}, false)).status).toBe(200);
  });

  test("hides them from a key without the scope", async () => {
    const { ask } = setUp([record("1")], {}, { name: "me", scopes: ["inference", "models"] });

    expect((await ask("", {}, false)).status).toBe(403);
  });

  test("says where there is nothing to ask", async () => {
    const { ask } = setUp([], { requestLog: undefined as never });

    expect(await codeOf(ask(""))).toBe("runner_unreachable");
  });
});

describe("following requests", () => {
  test("shows existing ones if asked to, then new ones of the model", async () => {
    const { ask, add } = setUp([record("1"), record("2", "other", B)]);

    const response = await ask("?include_existing=true&model=ai/pebble", EVENTS);
    add(record("3"));
    add(record("4", "other", B));
    add(record("5", "renamed"));
    const text = await readUntil(response, '"5"');

    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const events = Array.from(text.matchAll(/event: (\w+)\ndata: (.*)\n\n/g), ([, name, data]) => [
      name,
      (JSON.parse(data ?? "") as { id?: string }).id,
    ]);
    expect(events).toEqual([
      ["connected", undefined],
      ["existing_request", "1"],
      ["new_request", "3"],
      ["new_request", "5"],
    ]);
  });

  test("says at once that it is connected", async () => {
    const { ask } = setUp([record("1")]);

    const reader = (await ask("", EVENTS)).body?.getReader();

    expect(new TextDecoder().decode((await reader?.read())?.value)).toBe(
      "event: connected\ndata: {}\n\n",
    );
  });

  test("ends, and lets go, when its reader leaves or the runner does", async () => {
    const leaving = new AbortController();
    const { ask, listeners } = setUp([], { runner: { watching: leaving.signal } as never });

    const first = await ask("", EVENTS);
    const second = await ask("", EVENTS);
    await first.body?.cancel();
    await eventually(() => listeners.size === 1);
    leaving.abort();

    expect(await second.text()).toContain("connected");
    expect(listeners.size).toBe(0);
  });

  test("refuses where there are too many, and where nothing is recorded", async () => {
    const many = setUp([]);
    await many.ask("", EVENTS);
    await many.ask("", EVENTS);
    const none = fakeLog([], false);
    const off = setUp([], { requestLog: () => none.log });

    expect(await codeOf(many.ask("", EVENTS))).toBe("too_many_requests");
    expect(await codeOf(off.ask("", EVENTS))).toBe("not_supported");
  });

  test("leaves out the oldest for a reader that does not read", async () => {
    const { ask, add } = setUp([]);
    const long = "x".repeat(1024 * 1024);

    const response = await ask("", EVENTS);
    for (let index = 0; index < 40; index += 1) {
      add({ ...record(`n${index}`), request: long });
    }
    const text = await readUntil(response, '"n39"');

    expect(text.length).toBeLessThan(20 * 1024 * 1024);
    expect(text).not.toContain('"n10"');
  });
});

describe("GET /metrics", () => {
  test("is Prometheus's text", async () => {
    const response = await askMetrics(() => Promise.resolve("a 1\n"));

    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(await response.text()).toBe("a 1\n");
  });

  test("is not there where it is turned off", async () => {
    expect(await codeOf(askMetrics())).toBe("not_found");
  });
});

function askMetrics(render?: () => Promise<string>): Response | Promise<Response> {
  return new Hono()
    .route("/", metricsRoutes(render === undefined ? undefined : { render }))
    .onError((error) => toErrorResponse(toAppError(error)))
    .request("/metrics");
}

/** What comes until `end` is in it. */
async function readUntil(response: Response, end: string): Promise<string> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = "";
  while (!text.includes(end)) {
    const next = await reader?.read();
    if (next?.value === undefined) break;
    text += decoder.decode(next.value, { stream: true });
  }
  await reader?.cancel();
  return text;
}
