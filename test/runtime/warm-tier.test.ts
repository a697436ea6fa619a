/** What the warm tier makes of an engine's answers; the engine is a server that answers when it is told to. */
import { describe, expect, test } from "bun:test";

import { vllm } from "../../backends/vllm/index.ts";
import { RuntimeEvents } from "../../src/runtime/events.ts";
import type { Entry } from "../../src/runtime/roster.ts";
import { WarmTier } from "../../src/runtime/warm-tier.ts";
import { FakeClock } from "../fakes/clock.ts";
import { fakePlan } from "../fakes/plan.ts";
import { eventually } from "../helpers/eventually.ts";

interface Tried extends AsyncDisposable {
  readonly tier: WarmTier;
  /** What was done to the worker, and what others were told, in order. */
  readonly done: string[];
  readonly worker: { wasTold: boolean; timesAsked: number };
  /** Requests that the engine got. */
  readonly asked: string[];
  answer(status: number): void;
}

function setUp(boundMs?: number): Tried {
  const { promise, resolve } = Promise.withResolvers<Response>();
  const [done, asked]: [string[], string[]] = [[], []];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: ({ method, url }) => {
      const { pathname, search } = new URL(url);
      asked.push(`${method} ${pathname}${search}`);
      return promise;
    },
  });
  const worker = {
    wasTold: false,
    timesAsked: 0,
    get isLeaving() {
      this.timesAsked += 1;
      return this.wasTold;
    },
    isLost: false,
    stop: () => void done.push("stop"),
    kill: () => void done.push("kill"),
  };
  const { port: address } = server;
  const entry = {
    id: 1,
    address,
    backend: vllm,
    worker,
    plan: fakePlan({ model: "a" }),
    facts: {},
  };
  const events = new RuntimeEvents();
  events.subscribe(({ kind }) => void done.push(kind));
  const scheduler = {
    onAsleep: () => void done.push("onAsleep"),
    onReady: () => void done.push("onReady"),
  };
  const named = { ...entry, names: { modelName: "a", backend: vllm, logFile: "/l" } };
  const roster = { get: () => named as unknown as Entry };
  const tier = new WarmTier({ scheduler, roster, clock: new FakeClock(), events, boundMs });
  const answer = (status: number): void => resolve(new Response(null, { status }));
  return { tier, done, worker, asked, answer, [Symbol.asyncDispose]: () => server.stop(true) };
}

describe("WarmTier", () => {
  test("warm: it sleeps, and wakes", async () => {
    await using at = setUp();
    at.answer(200);

    at.tier.sleep(1);
    await eventually(() => at.done.length === 2);
    at.tier.wake(1);
    await eventually(() => at.done.length === 5);

    expect(at.asked).toEqual(["POST /sleep?level=1", "POST /wake_up"]);
    expect(at.done).toEqual(["asleep", "onAsleep", "loading", "ready", "onReady"]);
  });

  test("warm: who refuses to sleep is ended, and so is who refuses to wake", async () => {
    await using at = setUp();
    at.answer(500);

    at.tier.sleep(1);
    await eventually(() => at.done.length === 1);
    at.tier.wake(1);
    await eventually(() => at.done.length === 3);

    expect(at.done).toEqual(["stop", "loading", "kill"]);
  });

  test("warm: who says nothing is ended when its time is over", async () => {
    await using at = setUp(20);

    at.tier.sleep(1);
    await eventually(() => at.done.length > 0);

    expect(at.done).toEqual(["stop"]);
    at.answer(200);
  });

  test.each([200, 500])(
    "warm: an answer of %d of who was told to end meanwhile changes nothing",
    async (status) => {
      await using at = setUp();
      at.tier.sleep(1);
      at.tier.wake(1);
      await eventually(() => at.asked.length === 2);

      at.worker.wasTold = true;
      at.answer(status);
      await eventually(() => at.worker.timesAsked === 2);

      expect(at.done).toEqual(["loading"]);
    },
  );
});
