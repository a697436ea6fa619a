import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { RuntimeEvents } from "../../../src/runtime/events.ts";
import { beginAll } from "../../../src/server/observer.ts";
import {
  createWatching,
  openRequestLog,
  type WatchingOptions,
} from "../../../src/server/watch/watching.ts";
import { StateDatabase } from "../../../src/state/database.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { answerStream, facts, lease } from "./facts.ts";

const setting = <T>(value: T, source = "default") => ({ value, source });

async function setUp(options: Partial<WatchingOptions> = {}) {
  const directory = await tempDir();
  const state = new StateDatabase(join(directory.path, "tug.db"));
  const sent: string[] = [];
  const watching = await createWatching({
    config: { metrics: setting(true), recordRequests: setting(true) },
    state,
    events: new RuntimeEvents(),
    version: "1.2.3",
    listWorkers: () => [],
    metricsPath: () => undefined,
    env: {},
    http: () =>
      Promise.resolve({
        send: (url, { body }) => {
          sent.push(url, body());
          return Promise.resolve(Response.json({}));
        },
      }),
    ...options,
  });
  return {
    state,
    sent,
    watching,
    answerOne() {
      const trace = beginAll(watching.observers, facts());
      trace?.acquired(lease(), 1);
      if (trace !== undefined) answerStream(trace);
      trace?.ended();
    },
    async [Symbol.asyncDispose]() {
      state[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe("createWatching", () => {
  test("records, counts and traces one and the same request", async () => {
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c.example:4318" };
    await using it = await setUp({ env });

    it.answerOne();
    await it.watching.close();

    expect(it.watching.requests.list({ limit: 10 })).toMatchObject([
      { id: "r1", output_tokens: 2 },
    ]);
    expect(openRequestLog(it.state).find("r1")?.model).toBe("pebble");
    expect(await it.watching.metrics?.render()).toContain(
      'tug_requests_total{model="pebble",mode="completion",dialect="openai",status="200"} 1\n',
    );
    expect(it.sent[0]).toBe("http://c.example:4318/v1/traces");
    expect(it.sent[1]).toContain('"generate"');
  });

  test("records nothing that ends behind its own end: the database is closed then", async () => {
    await using it = await setUp();

    await it.watching.close();
    it.answerOne();
    await new Promise((resolve) => setImmediate(resolve));

    expect(it.watching.requests.list({ limit: 10 })).toEqual([]);
  });

  test("sends no traces unless a collector is named", async () => {
    await using it = await setUp();

    it.answerOne();
    await it.watching.close();

    expect(it.sent).toEqual([]);
  });

  test("records nothing where that is turned off", async () => {
    await using it = await setUp({
      config: { metrics: setting(true), recordRequests: setting(false) },
    });

    it.answerOne();
    await it.watching.close();

    expect(it.watching.requests.list({ limit: 10 })).toEqual([]);
    expect(it.watching.requests.isRecording).toBe(false);
    expect(it.watching.requests.follow(() => undefined)).toBeUndefined();
    expect(await it.watching.metrics?.render()).toContain("tug_requests_total{");
  });

  test.each([
    ["by Tug's setting", setting(false, "config.toml"), {}, false],
    ["by Docker Model Runner's variable", setting(true), { DISABLE_METRICS: "1" }, false],
    [
      "unless Tug's own setting says otherwise",
      setting(true, "TUG_METRICS"),
      { DISABLE_METRICS: "1" },
      true,
    ],
    ["not by a variable that is 0", setting(true), { DISABLE_METRICS: "0" }, true],
  ])("turns metrics off %s", async (...[, metrics, env, isOn]) => {
    await using it = await setUp({ config: { metrics, recordRequests: setting(true) }, env });

    expect(it.watching.metrics !== undefined).toBe(isOn);
  });

  test("looks at no request where nobody wants to know", async () => {
    const off = { metrics: setting(false), recordRequests: setting(false) };
    await using it = await setUp({ config: off });

    expect(it.watching.observers).toEqual([]);
  });
});
