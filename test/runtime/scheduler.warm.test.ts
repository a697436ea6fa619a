/** The warm tier: workers that sleep instead of ending, and are woken when they are asked for again. */
import { describe, expect, test } from "bun:test";

import { AppError } from "../../src/errors.ts";
import type { SchedulerLimits } from "../../src/runtime/scheduler.ts";
import { Bench, type RequestOptions } from "../fakes/effects.ts";

const DIED = new AppError("worker_failed", "cannot serve the model: it died");
/** 60 of a GPU and 2 of main memory; asleep 30 of main memory. */
const SLEEPER: RequestOptions = { demand: { "cuda:0": 60, ram: 2 }, asleep: { ram: 30 } };

function bench(limits: Partial<SchedulerLimits> = {}): Bench {
  return new Bench({ maxWorkers: 8, budget: { "cuda:0": 100, ram: 100 }, ...limits });
}

function kinds({ scheduler }: Bench): readonly string[] {
  return scheduler.workers.map(({ key, kind }) => `${key} ${kind}`);
}

/** `a` sleeps, `b` is awake and idle in its place. */
function swapped(limits: Partial<SchedulerLimits> = {}): Bench {
  const at = bench(limits);
  const first = at.loadIdle("a", SLEEPER);
  at.request("b", SLEEPER);
  at.scheduler.onAsleep(first, at.nowMs);
  const second = at.lastStarted();
  at.scheduler.onReady(second, at.nowMs);
  at.scheduler.onReleased(second, at.nowMs);
  return at;
}

describe("Scheduler's warm tier", () => {
  test("warm: who has to make room sleeps, and holds main memory instead of the GPU", () => {
    const at = bench();
    const first = at.loadIdle("a", SLEEPER);

    at.request("b", SLEEPER);
    expect(at.effects.slept).toEqual([first]);
    expect([at.effects.stopped, at.startedKeys]).toEqual([[], ["a"]]);
    at.scheduler.onAsleep(first, at.nowMs);

    expect(at.startedKeys).toEqual(["a", "b"]);
    expect(at.scheduler.workers[0]).toMatchObject({ kind: "asleep", demand: { ram: 30 } });
  });

  test("warm: it is woken when it is asked for again, and the other one sleeps", () => {
    const at = swapped();
    const ticket = at.request("a", SLEEPER);

    expect([at.effects.slept, at.effects.woken]).toEqual([[1, 2], []]);
    at.scheduler.onAsleep(2, at.nowMs);
    expect([at.effects.woken, at.startedKeys]).toEqual([[1], ["a", "b"]]);
    // Pinned main memory is kept for the next time.
    expect(at.scheduler.workers[0]?.demand).toEqual({ "cuda:0": 60, ram: 30 });
    expect(at.wasGranted(ticket)).toBe(false);
    at.scheduler.onReady(1, at.nowMs, 500);

    expect(at.wasGranted(ticket)).toBe(true);
    expect(kinds(at)).toEqual(["a ready", "b asleep"]);
  });

  test("warm: who asks while it wakes waits for the same waking", () => {
    const at = swapped();
    at.request("a", SLEEPER);
    at.scheduler.onAsleep(2, at.nowMs);
    const second = at.request("a", SLEEPER);

    expect(at.effects.woken).toEqual([1]);
    at.scheduler.onReady(1, at.nowMs);

    expect(at.wasGranted(second)).toBe(true);
  });

  test("warm: asked for while it falls asleep, it sleeps first and is then woken", () => {
    const at = bench();
    at.loadIdle("a", SLEEPER);
    const other = at.request("b", SLEEPER);
    at.request("a", SLEEPER);
    at.scheduler.onCancelled(other, at.nowMs);
    expect(at.effects.woken).toEqual([]);

    at.scheduler.onAsleep(1, at.nowMs);

    expect([at.effects.woken, at.startedKeys]).toEqual([[1], ["a"]]);
  });

  test.each([
    ["main memory is too small for its weights", { budget: { "cuda:0": 100, ram: 25 } }],
    ["there is no place for one more process", { maxWorkers: 1 }],
    ["the newcomer needs that main memory", { budget: { "cuda:0": 100, ram: 31 } }],
  ])("warm: it ends as ever where %s", (_, limits) => {
    const at = bench(limits);
    const first = at.loadIdle("a", SLEEPER);

    at.request("b", SLEEPER);

    expect(at.effects.slept).toEqual([]);
    expect(at.effects.stopped).toEqual([{ workerId: first, reason: "evicted" }]);
  });

  test("warm: a worker that cannot sleep ends as ever", () => {
    const at = bench();
    at.loadIdle("a", { demand: { "cuda:0": 60 } });

    at.request("b", SLEEPER);

    expect([at.effects.slept, at.effects.stopped.length]).toEqual([[], 1]);
  });

  test("warm: where main memory is short sleepers end, the oldest first, before anybody who is awake", () => {
    const at = bench({ budget: { "cuda:0": 60, ram: 100 } });
    for (const key of ["a", "b", "c", "d"]) {
      at.nowMs += 10_000;
      at.request(key, SLEEPER);
      for (const id of at.effects.slept) at.scheduler.onAsleep(id, at.nowMs);
      at.scheduler.onReady(at.lastStarted(), at.nowMs);
      at.scheduler.onReleased(at.lastStarted(), at.nowMs);
    }
    expect(kinds(at)).toEqual(["a asleep", "b asleep", "c asleep", "d ready"]);

    at.nowMs += 10_000;
    at.request("e", { demand: { ram: 20 } });

    expect(at.effects.stopped).toEqual([{ workerId: 1, reason: "evicted" }]);
  });

  test("warm: a sleeper ends for who needs the rest of the GPU that it kept", () => {
    const keeps = { ...SLEEPER, asleep: { "cuda:0": 5, ram: 30 } };
    const at = bench();
    at.loadIdle("a", keeps);
    at.request("b", keeps);
    at.scheduler.onAsleep(1, at.nowMs);
    at.scheduler.onReady(2, at.nowMs);
    at.scheduler.onReleased(2, at.nowMs);

    const ticket = at.request("c", { demand: { "cuda:0": 98 } });

    expect(at.rejection(ticket)).toBeUndefined();
    expect(new Set(at.effects.stopped.map(({ workerId }) => workerId))).toEqual(new Set([1, 2]));
  });

  test("warm: a smaller budget ends sleepers", () => {
    const at = swapped();

    at.scheduler.onBudget({ "cuda:0": 100, ram: 20 }, at.nowMs);

    expect(at.effects.stopped).toEqual([{ workerId: 1, reason: "evicted" }]);
  });

  test("warm: keep-alive ends who sleeps, too, counted from its last request", () => {
    const at = swapped({ keepAliveMs: 5000 });

    expect(at.effects.deadlineMs).toBe(5000);
    at.wake(5000);

    expect(at.effects.stopped.map(({ reason }) => reason)).toEqual(["idle", "idle"]);
  });

  test("warm: who dies asleep is loaded anew, and nobody is refused for it", () => {
    const at = swapped();
    at.scheduler.onExited(1, DIED, at.nowMs);
    at.nowMs += 2000;

    const ticket = at.request("a", SLEEPER);
    at.scheduler.onAsleep(2, at.nowMs);

    expect([at.startedKeys, at.effects.woken]).toEqual([["a", "b", "a"], []]);
    expect(at.rejection(ticket)).toBeUndefined();
  });

  test("warm: who does not wake is loaded anew for those who wait", () => {
    const at = swapped();
    const ticket = at.request("a", SLEEPER);
    at.scheduler.onAsleep(2, at.nowMs);

    at.scheduler.onExited(1, DIED, at.nowMs);
    at.scheduler.onReady(at.lastStarted(), at.nowMs);

    expect(at.startedKeys).toEqual(["a", "b", "a"]);
    expect([at.wasGranted(ticket), at.rejection(ticket)]).toEqual([true, undefined]);
  });

  test.each([
    ["falls asleep", () => bench(), (at: Bench) => at.request("b", SLEEPER)],
    ["sleeps", () => swapped(), () => undefined],
  ])("warm: unloading ends who %s", (_, make, prepare) => {
    const at = make();
    if (at.scheduler.workers.length === 0) at.loadIdle("a", SLEEPER);
    prepare(at);

    expect(at.scheduler.onUnload((id) => id === 1, at.nowMs)).toEqual([1]);
    expect(at.effects.stopped).toEqual([{ workerId: 1, reason: "unloaded" }]);
    // Its answer comes too late.
    at.scheduler.onAsleep(1, at.nowMs);

    expect(at.scheduler.workers[0]?.kind).toBe("stopping");
  });

  test("warm: shutting down ends who sleeps", () => {
    const at = swapped();

    at.scheduler.onShutdown(at.nowMs);

    expect(at.effects.stopped.map(({ workerId }) => workerId)).toEqual([1, 2]);
  });

  test("warm: who sleeps and is pinned stays, and does not stand in its own way", () => {
    const at = swapped({ keepAliveMs: 5000 });
    at.scheduler.onPinned(1, true, at.nowMs);
    at.wake(5000);
    expect(kinds(at)).toEqual(["a asleep", "b stopping"]);

    at.request("a", { ...SLEEPER, demand: { "cuda:0": 60, ram: 90 } });
    at.scheduler.onExited(2, DIED, at.nowMs);

    expect(at.effects.woken).toEqual([1]);
  });

  test("warm: what is measured late does not give it a GPU again", () => {
    const at = swapped();

    at.scheduler.onMeasured(1, { "cuda:0": 60, ram: 5 }, at.nowMs);

    expect(at.scheduler.workers[0]?.demand).toEqual({ ram: 30 });
  });
});
