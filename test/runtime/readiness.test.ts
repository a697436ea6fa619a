import { describe, expect, test } from "bun:test";

import { probePause, waitUntilReady } from "../../src/runtime/readiness.ts";

describe("probePause", () => {
  test("readiness: it is seen at most a sixteenth of the load too late, and 250 ms", () => {
    const pauses = [0, 40, 160, 320, 4000, 60_000].map(probePause);

    expect(pauses).toEqual([5, 5, 10, 20, 250, 250]);
  });

  test("readiness: a load of a second costs some fifty questions, one of a minute some three hundred", () => {
    expect(questionsIn(1000)).toBeWithin(40, 60);
    expect(questionsIn(60_000)).toBeWithin(250, 350);
  });
});

describe("waitUntilReady", () => {
  test("readiness: one that has no such path is given up, however much it prints", async () => {
    expect(await waitFor([404], 100)).toEqual({ outcome: "stalled", answer: 404 });
  });

  test("readiness: one that is loading and prints may take as long as it likes", async () => {
    const loading = Array.from({ length: 30 }, () => 503);

    expect(await waitFor([...loading, 200], 20)).toMatchObject({ outcome: "ready" });
  });

  test("readiness: one that has its time is given up after it, however much it prints", async () => {
    expect(await waitFor([503], 5000, 100)).toMatchObject({ outcome: "late" });
    expect(await waitFor([503, 200], 5000, 5000)).toMatchObject({ outcome: "ready" });
  });

  test("readiness: a path that comes later is waited for", async () => {
    expect(await waitFor([404, 404, 404, 200], 5000)).toMatchObject({ outcome: "ready" });
  });
});

/** Asks an engine that prints a line for each question, as servers with an access log do. */
async function waitFor(statuses: readonly number[], stallMs: number, boundMs?: number) {
  let count = 0;
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => {
      const status = statuses[Math.min(count, statuses.length - 1)];
      count += 1;
      return new Response("", status === undefined ? {} : { status });
    },
  });
  return await waitUntilReady({
    address: server.port ?? 0,
    path: "/health",
    exited: Promise.withResolvers<void>().promise,
    lastOutputMs: () => performance.now(),
    stallMs,
    boundMs,
    signal: AbortSignal.timeout(10_000),
  });
}

function questionsIn(loadMs: number): number {
  let questions = 0;
  for (let elapsedMs = 0; elapsedMs < loadMs; elapsedMs += probePause(elapsedMs)) questions += 1;
  return questions;
}
