import { describe, expect, test } from "bun:test";

import type { AppError } from "../../src/errors.ts";
import { askEngine, probeEngine } from "../../src/runtime/engine-ask.ts";
import { type Script, startFakeEngine, thinksForEver } from "../fakes/engine.ts";

const json =
  (status: number, value: unknown): Script =>
  (exchange) =>
    exchange.json(status, value);

function failureOf(promise: Promise<unknown>): Promise<AppError> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (thrown: unknown) => thrown as AppError,
  );
}

describe("askEngine", () => {
  test("ask: the JSON of an answer", async () => {
    await using engine = await startFakeEngine(json(200, { a: "ü" }));

    expect(await askEngine(engine.socket, "/props")).toEqual({ a: "ü" });
    expect(engine.requests).toMatchObject([{ method: "GET", target: "/props" }]);
  });

  test.each<[string, Script, RegExp]>([
    ["another status", json(503, {}), /: status 503$/],
    [
      "no JSON",
      (exchange) => {
        exchange.head(200, {});
        exchange.end();
      },
      /JSON/,
    ],
    ["an answer that is too long", json(200, "x".repeat(2000)), /: more than 1000 bytes$/],
    ["silence", thinksForEver, /: no answer within 100 ms$/],
  ])("ask: %s is an error that says so", async (_what, script, message) => {
    await using engine = await startFakeEngine(script);

    const failure = await failureOf(
      askEngine(engine.socket, "/props", { maxBytes: 1000, timeoutMs: 100 }),
    );

    expect(failure.code).toBe("worker_failed");
    expect(failure.message).toMatch(message);
  });

  test("ask: nobody listens, or nobody wants to know any more", async () => {
    await using engine = await startFakeEngine(thinksForEver);

    const failures = await Promise.all([
      failureOf(askEngine("/nowhere/at/all.sock", "/props")),
      failureOf(askEngine(engine.socket, "/props", { signal: AbortSignal.abort() })),
    ]);

    expect(failures.map(({ code }) => code)).toEqual(["worker_failed", "worker_failed"]);
  });
});

describe("probeEngine", () => {
  test("probe: whatever is answered is an answer", async () => {
    await using engine = await startFakeEngine(json(503, { error: "loading" }));

    expect(await probeEngine(engine.socket, "/health")).toBe(503);
  });

  test("probe: silence and absence are none", async () => {
    await using engine = await startFakeEngine(thinksForEver);

    expect(await probeEngine(engine.socket, "/health", { timeoutMs: 50 })).toBeUndefined();
    expect(await probeEngine("/nowhere/at/all.sock", "/health")).toBeUndefined();
  });
});
