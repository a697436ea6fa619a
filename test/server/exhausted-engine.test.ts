/** Engines that say that they ran out of memory: they may live on, and answer nothing any more. */
import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import type { Lease } from "../../src/runtime/lease.ts";
import { createApp } from "../../src/server/app.ts";
import { type Script, speaks, startFakeEngine } from "../fakes/engine.ts";
import { setUp } from "../fakes/supervised.ts";
import { type CountedLease, countedLease, fakeDeps, fakeRuntime } from "./fake-deps.ts";

interface Asked {
  readonly response: Response;
  readonly text: string;
  readonly leases: readonly CountedLease[];
}

/** Each worker answers by the next script; the last one stays. */
async function ask(scripts: readonly Script[]): Promise<Asked> {
  let turn = 0;
  await using engine = await startFakeEngine((exchange) =>
    scripts[Math.min(turn++, scripts.length - 1)]?.(exchange),
  );
  const leases: CountedLease[] = [];
  const runtime = fakeRuntime({
    async acquire(): Promise<Lease> {
      const lease = countedLease(engine.socket);
      leases.push(lease);
      return lease;
    },
  });
  const app = createApp(fakeDeps({ runtime }));
  const response = await app.request("/v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ model: "pebble", stream: true }),
  });
  return { response, text: await response.text(), leases };
}

const refuses =
  (status: number, message: string): Script =>
  (exchange) =>
    exchange.json(status, { error: { code: status, message, type: "server_error" } });

describe("an engine without memory", () => {
  test.each([
    [500, "decode() failed: std::bad_alloc"],
    [400, "Failed to initialize samplers: std::bad_alloc"],
    [500, "CUDA error: out of memory"],
  ])(
    "exhausted engine: %i %s is asked of another worker, and it is ended",
    async (status, said) => {
      const { response, text, leases } = await ask([refuses(status, said), speaks(["Paris"])]);

      expect(response.status).toBe(200);
      expect(text).toContain("Paris");
      expect(leases.map(({ givenUp }) => givenUp.map(({ code }) => code))).toEqual([
        ["insufficient_memory"],
        [],
      ]);
    },
  );

  test("exhausted engine: one that says so in plain text is asked of another worker, too", async () => {
    const { response, leases } = await ask([
      async (exchange) => {
        exchange.head(500, { "content-type": "text/plain" });
        await exchange.chunk("std::bad_alloc");
        exchange.end();
      },
      speaks(["Paris"]),
    ]);

    expect(response.status).toBe(200);
    expect(leases.map(({ givenUp }) => givenUp.length)).toEqual([1, 0]);
  });

  test("exhausted engine: a second one without memory is the answer", async () => {
    const { response, leases } = await ask([refuses(500, "std::bad_alloc")]);

    expect(response.status).toBe(503);
    expect(leases.map(({ givenUp }) => givenUp.length)).toEqual([1, 1]);
  });

  test("exhausted engine: a refusal for another reason ends nothing", async () => {
    const { response, leases } = await ask([refuses(500, "no grammar for `memory`")]);

    expect(response.status).toBe(500);
    expect(leases.map(({ givenUp }) => givenUp.length)).toEqual([0]);
  });

  test("exhausted engine: in the middle of an answer it is ended, and the client told", async () => {
    const { text, leases } = await ask([
      async (exchange) => {
        exchange.head(200, { "content-type": "text/event-stream" });
        await exchange.chunk('data: {"choices":[{"delta":{"content":"Pa"}}]}\n\n');
        await exchange.chunk('data: {"error":{"message":"decode() failed: std::bad_alloc"}}\n\n');
        exchange.end();
      },
    ]);

    expect(text).toContain("std::bad_alloc");
    expect(leases.map(({ givenUp }) => givenUp.map(({ code }) => code))).toEqual([
      ["insufficient_memory"],
    ]);
  });

  test("exhausted engine: who comes next gets another one", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");

    lease.giveUp(new AppError("insufficient_memory", "cannot answer with `a`: memory"));

    expect(await lease.failure()).toMatchObject({ code: "insufficient_memory" });
    lease[Symbol.dispose]();
    using next = await at.acquire("a");
    expect(next.workerId).not.toBe(lease.workerId);
  });
});
