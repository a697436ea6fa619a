import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import { AGE_CAP_MS } from "../../src/runtime/scheduler.ts";
import {
  type Arrival,
  EngineSimulation,
  type EngineTimes,
  type Served,
} from "../fakes/engine-simulation.ts";

const MODELS = ["a", "b", "c"] as const;
const MOST_SWAPS = 6;

function abcabc(count: number, everyMs: number): readonly Arrival[] {
  return Array.from({ length: count }, (_, index) => ({
    model: MODELS[index % MODELS.length] ?? "a",
    atMs: index * everyMs,
  }));
}

function simulate(arrivals: readonly Arrival[], times: Partial<EngineTimes> = {}) {
  const simulation = new EngineSimulation({
    loadMs: 3000,
    stopMs: 200,
    serveMs: 1500,
    slots: 4,
    ...times,
  });
  simulation.run(arrivals);
  return simulation;
}

/** Requests that were passed by one that came more than the age cap later, but for those who found it loading. */
function overtaken(served: readonly Served[], ageCapMs: number): readonly Served[] {
  return served.filter((early) =>
    served.some(
      (late) =>
        late.atMs >= early.atMs + ageCapMs &&
        late.grantedMs < early.grantedMs &&
        late.atMs > late.readyMs,
    ),
  );
}

/** Thousands of runs, on a machine that may have other things to do. */
const PATIENCE_MS = 60_000;

describe("Scheduler: bursts over models that exclude each other", () => {
  test.each([
    ["at once, small models", 0, 300],
    ["at once, loads longer than the age cap", 0, 40_000],
    ["within six seconds", 100, 3000],
    ["within a quarter of a minute, loads as long", 250, 15_000],
    ["faster than they load", 200, 60_000],
  ])("scheduler: ABCABC… of 60 costs at most six swaps (%s)", (_name, everyMs, loadMs) => {
    const { served, rejected, loads } = simulate(abcabc(60, everyMs), { loadMs });

    expect(rejected).toEqual([]);
    expect(served).toHaveLength(60);
    expect(loads - 1).toBeLessThanOrEqual(MOST_SWAPS);
    expect(overtaken(served, AGE_CAP_MS)).toEqual([]);
  });

  test("scheduler: a burst at once costs one load a model, in the order of arrival", () => {
    const { served, loads } = simulate(abcabc(60, 0));

    expect(loads).toBe(3);
    const order = served.map(({ model }) => model).filter((model, i, all) => model !== all[i - 1]);
    expect(order).toEqual(["a", "b", "c"]);
  });

  test("scheduler: requests that come while their model is loaded ride along within the age cap", () => {
    const late = Array.from({ length: 20 }, (_, index) => ({ model: "a", atMs: 500 * index }));

    const { loads } = simulate(
      [...late, { model: "b", atMs: 1 }].toSorted((x, y) => x.atMs - y.atMs),
    );

    expect(loads).toBe(2);
  });

  test("scheduler: all who waited for a load are served by it, also if others wait longer than the age cap", () => {
    const arrivals = [
      { model: "a", atMs: 0 },
      { model: "b", atMs: 1 },
      { model: "a", atMs: 29_000 },
    ];

    const { served, loads } = simulate(arrivals, { loadMs: 30_000 });

    expect(served.map(({ model }) => model)).toEqual(["a", "a", "b"]);
    expect(loads).toBe(2);
  });

  test(
    "scheduler: whatever comes, nobody is passed by those who come an age cap later",
    () => {
      const arrival = fc.record({ model: fc.constantFrom(...MODELS), atMs: fc.nat(120_000) });
      const times = fc.record({
        loadMs: fc.integer({ min: 100, max: 40_000 }),
        serveMs: fc.integer({ min: 50, max: 20_000 }),
        slots: fc.integer({ min: 1, max: 4 }),
      });
      fc.assert(
        fc.property(
          fc.array(arrival, { maxLength: 80, size: "max" }),
          times,
          (unordered, engineTimes) => {
            const arrivals = unordered.toSorted((x, y) => x.atMs - y.atMs);

            const { served } = simulate(arrivals, engineTimes);

            expect(served).toHaveLength(arrivals.length);
            expect(overtaken(served, AGE_CAP_MS)).toEqual([]);
          },
        ),
        { numRuns: 200 },
      );
    },
    PATIENCE_MS,
  );
});
