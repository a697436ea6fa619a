import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import type { Demand } from "../../src/runtime/demand.ts";
import { AGE_CAP_MS } from "../../src/runtime/scheduler.ts";
import { KINDS, World } from "../fakes/scheduler-world.ts";

/** More for a long search: `TUG_PROPERTY_RUNS=100000 bun test …`. */
const RUNS = Number(process.env["TUG_PROPERTY_RUNS"] ?? 3000);
const KEEP_ALIVES = [undefined, undefined, undefined, 0, 5000, -1] as const;
const KEYS = ["a", "b", "c", "d", "e"] as const;
const DEMANDS: Readonly<Record<string, Demand>> = {
  a: { ram: 10 },
  b: { ram: 20, "cuda:0": 0 },
  c: { ram: 10, "cuda:0": 40 },
  d: { ram: 60 },
  e: { "cuda:0": 30 },
};
/** What sleeps takes main memory instead. */
const ASLEEP: Readonly<Record<string, Demand>> = { c: { ram: 15 }, e: { ram: 25 } };
const BUDGETS: readonly (Demand | undefined)[] = [
  undefined,
  { ram: 70, "cuda:0": 70 },
  { ram: 50, "cuda:0": 50 },
  { ram: 100 },
];

type Step = readonly [kind: string, which: number, what: number];

/** Steps that do not apply to the state they meet do nothing. */
function perform(world: World, [kind, which, what]: Step, keys: readonly string[] = KEYS): void {
  const pick = <T>(items: readonly T[]): T | undefined => items[which % Math.max(1, items.length)];
  const key = keys[which % keys.length] ?? "a";
  const demand = DEMANDS[key] ?? {};
  const worker = pick(world.workers(...KINDS));
  const starting = pick(world.workers("starting"));
  const stopping = pick(world.workers("stopping"));
  const dozing = pick(world.dozing);
  const ticket = pick(world.scheduler.waiting);
  const steps: Readonly<Record<string, () => unknown>> = {
    request: () => world.request(key, { demand, asleep: ASLEEP[key], ...wishes(what) }),
    sleep: () => dozing && world.fallAsleep(dozing.id),
    cancel: () => ticket && world.cancel(ticket.id),
    ready: () => starting && world.ready(starting.id),
    exit: () => stopping && world.exit(stopping.id),
    crash: () => worker && world.exit(worker.id),
    outOfMemory: () => worker && world.exit(worker.id, "out of memory"),
    release: () => world.release(which % Math.max(1, world.leases.length)),
    unload: () => world.unload(key),
    pin: () => worker && world.pin(worker.id, what % 3 === 0),
    measure: () => worker && world.measure(worker.id, { ram: what * 3 }),
    budget: () => world.setBudget(BUDGETS[what % BUDGETS.length]),
    advance: () => world.advance(which * 500),
  };
  steps[kind]?.();
}

function wishes(what: number): { keepAliveMs?: number | undefined; pinned?: boolean } {
  const keepAliveMs = KEEP_ALIVES[what % KEEP_ALIVES.length];
  return what === 17 ? { keepAliveMs, pinned: true } : { keepAliveMs };
}

const step = fc.tuple(
  fc.oneof(
    { weight: 12, arbitrary: fc.constant("request") },
    { weight: 8, arbitrary: fc.constant("ready") },
    { weight: 8, arbitrary: fc.constant("release") },
    { weight: 6, arbitrary: fc.constant("exit") },
    { weight: 4, arbitrary: fc.constant("sleep") },
    { weight: 4, arbitrary: fc.constant("advance") },
    { weight: 3, arbitrary: fc.constantFrom("outOfMemory", "measure", "budget") },
    { weight: 3, arbitrary: fc.constantFrom("cancel", "crash", "unload", "pin") },
  ),
  fc.nat(60),
  fc.nat(17),
);

const limits = fc.record({
  maxWorkers: fc.integer({ min: 1, max: 4 }),
  budget: fc.constantFrom(...BUDGETS),
  queueLimit: fc.constantFrom(3, 512),
});

const WARM_KEYS = ["c", "e", "c", "e", "a"] as const;
/** One of `c` and `e` has a GPU, and main memory has room for the other. */
const warmLimits = fc.record({
  maxWorkers: fc.constant(4),
  budget: fc.constant({ ram: 120, "cuda:0": 50 }),
  queueLimit: fc.constant(512),
});

/** Thousands of runs, on a machine that may have other things to do. */
const PATIENCE_MS = 60_000;

describe("Scheduler, by property", () => {
  test.each([
    ["any sequence of events", limits, KEYS],
    ["any with workers that sleep", warmLimits, WARM_KEYS],
  ] as const)(
    "scheduler: %s keeps the invariants, and every ticket ends exactly once",
    (_, worlds, keys) => {
      fc.assert(
        fc.property(
          worlds,
          fc.array(step, { maxLength: 120, size: "max" }),
          (worldLimits, steps) => {
            const world = new World(worldLimits);

            for (const one of steps) perform(world, one, keys);
            // Each round lets one more of the models that wait have its turn.
            const rounds = 4 * KEYS.length + 4;
            for (let round = 0; round < rounds; round++) world.finishAll();

            expect(world.open).toEqual([]);
            expect([...world.endings.values()].filter((endings) => endings.length !== 1)).toEqual(
              [],
            );
          },
        ),
        { numRuns: RUNS / 2 },
      );
    },
    PATIENCE_MS,
  );

  test("scheduler: the same events have the same effects", () => {
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 80, size: "max" }), (worldLimits, steps) => {
        const worlds = [new World(worldLimits), new World(worldLimits)] as const;

        for (const world of worlds) for (const one of steps) perform(world, one);

        expect(worlds[1].effects).toEqual(worlds[0].effects);
      }),
      { numRuns: Math.ceil(RUNS / 10) },
    );
  });

  test("scheduler: when all are idle and time passes, all but pinned workers leave and no deadline remains", () => {
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 60, size: "max" }), (worldLimits, steps) => {
        const world = new World(worldLimits);
        for (const one of steps) perform(world, one);
        for (let round = 0; round < 24; round++) world.finishAll();

        world.advance(60_000);
        world.finishAll();

        const left = world.scheduler.workers;
        expect(left.filter(({ keepAliveMs, pinned }) => keepAliveMs >= 0 && !pinned)).toEqual([]);
        expect(world.deadlineMs).toBeUndefined();
      }),
      { numRuns: Math.ceil(RUNS / 10) },
    );
  });

  test("scheduler: models that are never idle cannot keep others waiting beyond the age cap and a few turns", () => {
    const traffic = fc.record({
      hotKeys: fc.integer({ min: 1, max: 3 }),
      leaseTicks: fc.integer({ min: 2, max: 6 }),
      victims: fc.integer({ min: 1, max: 3 }),
      isByBytes: fc.boolean(),
      coldBytes: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(traffic, ({ hotKeys, leaseTicks, victims, isByBytes, coldBytes }) => {
        const room = isByBytes
          ? { maxWorkers: 16, budget: { ram: hotKeys } }
          : { maxWorkers: hotKeys, budget: undefined };
        const world = new World({ ...room, queueLimit: 10_000 });
        const hot = Array.from({ length: hotKeys }, (_, index) => `hot${index}`);
        const tick = (): void => runTick(world, hot, leaseTicks);
        for (let count = 0; count < 10; count++) tick();
        const cold = Array.from({ length: victims }, (_, index) =>
          world.request(`cold${index}`, { demand: { ram: Math.min(coldBytes, hotKeys) } }),
        );

        const turnTicks = leaseTicks + 3;
        const bound = AGE_CAP_MS / 1000 + (victims + hotKeys) * turnTicks;
        for (let count = 0; count < bound; count++) tick();

        expect(cold.map((id) => world.endings.get(id))).toEqual(cold.map(() => ["granted"]));
      }),
    );
  });
});

/** One second: each hot model gets a request before its oldest one ends, so that it is never idle of itself. */
function runTick(world: World, hot: readonly string[], leaseTicks: number): void {
  for (const { id } of world.workers("stopping")) world.exit(id);
  for (const { id } of world.workers("starting")) world.ready(id);
  for (const key of hot) world.request(key, { demand: { ram: 1 } });
  const isOver = ({ sinceMs }: { readonly sinceMs: number }): boolean =>
    world.nowMs - sinceMs >= leaseTicks * 1000;
  for (;;) {
    const index = world.leases.findIndex(isOver);
    if (index < 0) break;
    world.release(index);
  }
  world.advance(1000);
}
