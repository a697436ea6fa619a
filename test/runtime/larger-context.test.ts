import { describe, expect, test } from "bun:test";

import { onLargerContext } from "../../src/runtime/larger-context.ts";
import type { WorkerPlan } from "../../src/runtime/planner.ts";
import { type FakePlan, fakePlan } from "../fakes/plan.ts";
import { setUp } from "../fakes/supervised.ts";

function planFor(contextTokens: number, facts: Partial<FakePlan> = {}): WorkerPlan {
  const { settings, ...rest } = facts;
  return fakePlan({
    model: "a",
    isUsual: false,
    takesLargerContext: true,
    ...rest,
    settings: { runtimeFlags: [], ...settings, contextTokens },
  });
}

function contextOn(plan: WorkerPlan, loaded: readonly WorkerPlan[]): number | undefined {
  const entries = loaded.map((one) => ({ plan: one }));
  return onLargerContext(plan, entries).settings.contextTokens;
}

describe("onLargerContext", () => {
  test("larger context: the smallest that is large enough serves", () => {
    const loaded = [planFor(8192), planFor(512), planFor(4096)];

    expect(contextOn(planFor(1024), loaded)).toBe(4096);
    expect(contextOn(planFor(8192), loaded)).toBe(8192);
    expect(contextOn(planFor(16_384), loaded)).toBe(16_384);
  });

  test.each<[string, WorkerPlan]>([
    ["model", planFor(8192, { model: "b" })],
    ["mode", planFor(8192, { mode: "embedding" })],
    ["flags", planFor(8192, { settings: { runtimeFlags: ["--x"] } })],
    ["slots", planFor(8192, { settings: { runtimeFlags: [], parallel: 8 } })],
  ])("larger context: not that of another %s", (_, other) => {
    expect(contextOn(planFor(1024), [other])).toBe(1024);
  });

  test("larger context: what is stored is had exactly", () => {
    expect(contextOn(planFor(1024, { takesLargerContext: false }), [planFor(8192)])).toBe(1024);
  });

  test("larger context: a usual one is not served by an older usual one", () => {
    const older = planFor(8192, { isUsual: true });

    expect(contextOn(planFor(1024, { isUsual: true }), [older])).toBe(1024);
    expect(contextOn(planFor(1024, { isUsual: true }), [planFor(4096)])).toBe(4096);
  });

  test("larger context: what concerns the request stays its own", () => {
    const gpu = { gpuShare: 0.5, asleep: { ram: 9 } };
    const host = planFor(8192, { demand: { ram: 5 }, keepAliveMs: 1, ...gpu });
    const own = planFor(1024, { keepAliveMs: 7, gpuShare: 0.1, asleep: { ram: 9 } });
    const settled = onLargerContext(own, [{ plan: host }]);

    expect(settled).toMatchObject({ demand: { ram: 5 }, keepAliveMs: 7, isUsual: false, ...gpu });
  });
});

describe("Supervisor: contexts", () => {
  test("supervisor: a request that needs less context is served by the worker that is loaded", async () => {
    await using at = await setUp();
    const facts = { takesLargerContext: true, isUsual: false };

    using large = await at.acquire("a", {
      ...facts,
      settings: { runtimeFlags: [], contextTokens: 4096 },
    });
    using small = await at.acquire("a", {
      ...facts,
      settings: { runtimeFlags: [], contextTokens: 512 },
    });
    using larger = await at.acquire("a", {
      ...facts,
      settings: { runtimeFlags: [], contextTokens: 8192 },
    });

    expect(small.workerId).toBe(large.workerId);
    expect(larger.workerId).not.toBe(large.workerId);
  });

  test("supervisor: a pinned model's worker for one request's own settings is not pinned", async () => {
    await using at = await setUp();

    using _usual = await at.acquire("a", { pinned: true, isUsual: true });
    using _own = await at.acquire("a", {
      pinned: true,
      isUsual: false,
      settings: { runtimeFlags: [], contextTokens: 8192 },
    });

    expect(at.supervisor.list().map(({ pinned }) => pinned)).toEqual([true, false]);
  });
});
