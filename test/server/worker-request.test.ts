import { describe, expect, test } from "bun:test";

import {
  toKeepAlive,
  toRequestSettings,
  type WorkerFields,
} from "../../src/server/worker-request.ts";

const NONE = new Headers();

describe("toRequestSettings", () => {
  test.each<[WorkerFields, Record<string, string>, object]>([
    [{}, {}, {}],
    [{ keep_alive: "5m" }, {}, { keep_alive: "5m" }],
    [{ keep_alive: 300 }, {}, { keep_alive: "300" }],
    [{ keep_alive: -0.5 }, {}, { keep_alive: "-1" }],
    [{ keep_alive: 0 }, {}, { keep_alive: "0" }],
    [{ ttl: 60 }, {}, { keep_alive: "60" }],
    [{ keep_alive: "1m", ttl: 60 }, { "x-keep-alive": "2m" }, { keep_alive: "1m" }],
    [{ keep_alive: null, ttl: null }, { "x-keep-alive": " 2m " }, { keep_alive: "2m" }],
    [{ context_size: -1 }, {}, { context_size: -1 }],
    [{ context_size: null }, {}, {}],
    [{ num_ctx: 4096 }, {}, { context_size: 4096 }],
    [{ context_size: 1024, num_ctx: 4096 }, { "x-context-size": "8192" }, { context_size: 1024 }],
    [{}, { "x-context-size": " 8192 " }, { context_size: 8192 }],
  ])("request: %j with %j says %j", (body, headers, settings) => {
    expect(toRequestSettings(body, new Headers(headers))).toEqual(settings);
  });

  test.each<[WorkerFields, Record<string, string>]>([
    [{ keep_alive: "soon" }, {}],
    [{ keep_alive: 1e300 }, {}],
    [{ ttl: "" }, {}],
    [{}, { "x-keep-alive": "for ever" }],
    [{ context_size: 0 }, {}],
    [{ context_size: 1.5 }, {}],
    [{ context_size: 1e12 }, {}],
    [{ num_ctx: -5 }, {}],
    [{}, { "x-context-size": "many" }],
    [{}, { "x-context-size": "" }],
  ])("request: %j with %j is refused", (body, headers) => {
    expect(() => toRequestSettings(body, new Headers(headers))).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: expect.stringMatching(/^cannot read the request: /),
      }),
    );
  });

  test("request: what it does not say stays as it is stored", () => {
    expect(Object.keys(toRequestSettings({ keep_alive: "1h" }, NONE))).toEqual(["keep_alive"]);
    expect(toKeepAlive(undefined)).toBeUndefined();
  });
});
