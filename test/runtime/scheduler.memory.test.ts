import { describe, expect, test } from "bun:test";

import { AppError } from "../../src/errors.ts";
import { Bench } from "../fakes/effects.ts";

const GB = 1_000_000_000;
const CRASH = new AppError("worker_failed", "cannot load `a`: it broke");
const STOPPED = new AppError("shutting_down", "cannot serve `a`: its worker was stopped");
const OUT_OF_MEMORY = new AppError("insufficient_memory", "cannot load `a`: out of memory");

function demandOf(bench: Bench, workerId: number) {
  return bench.scheduler.workers.find(({ id }) => id === workerId)?.demand;
}

describe("Scheduler: memory by device", () => {
  test("scheduler: each device has its own room", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100, "cuda:0": 50 } });
    bench.loadIdle("a", { demand: { ram: 60 } });
    bench.loadIdle("b", { demand: { ram: 10, "cuda:0": 40 } });

    bench.request("c", { demand: { ram: 10, "cuda:0": 20 } });

    expect(bench.effects.stopped).toEqual([{ workerId: 2, reason: "evicted" }]);
  });

  test("scheduler: a device that the budget does not name gives nothing", () => {
    const bench = new Bench({ budget: { ram: 100 } });

    const ticket = bench.request("a", { demand: { ram: 10, "cuda:0": 1 } });

    expect(bench.rejection(ticket)?.code).toBe("insufficient_memory");
  });

  test("scheduler: without a budget bytes are not limited", () => {
    const bench = new Bench({ maxWorkers: 2 });

    bench.load("a", { demand: Number.MAX_SAFE_INTEGER });
    bench.load("b", { demand: { "cuda:0": Infinity } });

    expect(bench.startedKeys).toEqual(["a", "b"]);
  });

  test("scheduler: a refusal names need and budget of what lacks, for people, and all bytes in its details", () => {
    const bench = new Bench({ budget: { ram: 4 * GB, "cuda:0": 8 * GB } });

    const ticket = bench.request("big", {
      demand: { ram: 5.2 * GB, "cuda:0": GB },
      advice: "a context of 8192 tokens would fit",
    });

    expect(bench.rejection(ticket)).toMatchObject({
      code: "insufficient_memory",
      message:
        "cannot load `big`: it needs 5.20GB of memory and the budget is 4.00GB of memory; a context of 8192 tokens would fit",
      details: {
        needed_bytes: { ram: 5.2 * GB, "cuda:0": GB },
        budget_bytes: { ram: 4 * GB, "cuda:0": 8 * GB },
        advice: "a context of 8192 tokens would fit",
      },
    });
  });

  test.each([Number.NaN, -1])(
    "scheduler: a demand of %d bytes is no demand and is refused",
    (bytes) => {
      const bench = new Bench({ budget: { ram: 100 } });

      const ticket = bench.request("a", { demand: { ram: bytes } });

      expect(bench.rejection(ticket)?.code).toBe("internal");
      expect(bench.effects.started).toEqual([]);
    },
  );

  test("scheduler: a demand of endless bytes fits nowhere", () => {
    const bench = new Bench({ budget: { ram: 100 } });

    const ticket = bench.request("a", { demand: Infinity });

    expect(bench.rejection(ticket)?.message).toContain("it needs an unknown amount of memory");
  });

  test("scheduler: a budget that is no amount is a broken invariant", () => {
    expect(() => new Bench({ budget: { ram: Number.NaN } })).toThrow("a budget is an amount");
    expect(() => new Bench().scheduler.onBudget({ ram: -1 }, 0)).toThrow("a budget is an amount");
  });
});

describe("Scheduler: what workers really hold", () => {
  test("scheduler: a worker that holds more than assumed makes idle ones leave", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.loadIdle("a", { demand: 40 });
    const grown = bench.load("b", { demand: 40 });

    bench.scheduler.onMeasured(grown, { ram: 70 }, 0);

    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "evicted" }]);
    expect(demandOf(bench, grown)).toEqual({ ram: 70 });
  });

  test("scheduler: neither busy nor pinned workers leave for it, the busy one when it is idle", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    const busy = bench.load("busy", { demand: 30 });
    bench.loadIdle("pinned", { demand: 30, pinned: true });
    const grown = bench.load("grown", { demand: 40 });

    bench.scheduler.onMeasured(grown, { ram: 60 }, 0);
    expect(bench.effects.stopped).toEqual([]);
    bench.scheduler.onReleased(busy, 0);

    expect(bench.effects.stopped).toEqual([{ workerId: busy, reason: "evicted" }]);
  });

  test("scheduler: a worker that holds less than assumed gives room to those who wait", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    const worker = bench.load("a", { demand: 80 });
    bench.request("b", { demand: 40 });

    bench.scheduler.onMeasured(worker, { ram: 50 }, 0);

    expect(bench.startedKeys).toEqual(["a", "b"]);
  });

  test("scheduler: less than assumed is not believed while it loads, more is", () => {
    const bench = new Bench({ budget: { ram: 100 } });
    bench.request("a", { demand: 50 });

    bench.scheduler.onMeasured(1, { ram: 10 }, 0);
    expect(demandOf(bench, 1)).toEqual({ ram: 50 });
    bench.scheduler.onMeasured(1, { ram: 60 }, 0);

    expect(demandOf(bench, 1)).toEqual({ ram: 60 });
  });

  test("scheduler: devices that were not measured keep what was assumed", () => {
    const bench = new Bench();
    const worker = bench.load("a", { demand: { ram: 5, "cuda:0": 50 } });

    bench.scheduler.onMeasured(worker, { ram: 8 }, 0);

    expect(demandOf(bench, worker)).toEqual({ ram: 8, "cuda:0": 50 });
  });

  test("scheduler: a measurement that is no amount, or of nobody, changes nothing", () => {
    const bench = new Bench();
    const worker = bench.load("a", { demand: 5 });

    bench.scheduler.onMeasured(worker, { ram: Number.NaN }, 0);
    bench.scheduler.onMeasured(99, { ram: 7 }, 0);

    expect(demandOf(bench, worker)).toEqual({ ram: 5 });
  });
});

describe("Scheduler: a budget that changes", () => {
  test("scheduler: a smaller one evicts idle workers until it fits, and refuses none that serves", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.load("busy", { demand: 40 });
    bench.loadIdle("a", { demand: 20 });
    bench.loadIdle("b", { demand: 20 });

    bench.scheduler.onBudget({ ram: 60 }, 0);
    expect(bench.effects.stopped).toEqual([{ workerId: 2, reason: "evicted" }]);
    bench.scheduler.onBudget({ ram: 10 }, 0);

    expect(bench.effects.stopped).toEqual([
      { workerId: 2, reason: "evicted" },
      { workerId: 3, reason: "evicted" },
    ]);
    expect(bench.wasGranted(bench.request("busy"))).toBe(true);
  });

  test("scheduler: a larger one lets those in who wait", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.load("a", { demand: 80 });
    bench.request("b", { demand: 40 });

    bench.scheduler.onBudget({ ram: 120 }, 0);

    expect(bench.startedKeys).toEqual(["a", "b"]);
  });

  test("scheduler: what waits is refused as soon as it can never fit", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.load("a", { demand: 80 });
    const ticket = bench.request("b", { demand: 40 });

    bench.scheduler.onBudget({ ram: 30 }, 0);

    expect(bench.rejection(ticket)?.code).toBe("insufficient_memory");
  });

  test("scheduler: an overdrawn device does not keep out a model that needs nothing of it", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100, "cuda:0": 100 } });
    bench.load("a", { demand: { "cuda:0": 80 } });
    bench.scheduler.onBudget({ ram: 100, "cuda:0": 10 }, 0);

    bench.request("b", { demand: { ram: 10, "cuda:0": 0 } });

    expect(bench.startedKeys).toEqual(["a", "b"]);
  });
});

describe("Scheduler: an engine that runs out of memory", () => {
  test("scheduler: idle workers leave and the load is tried once more, when they have gone", () => {
    const bench = new Bench({ maxWorkers: 8 });
    bench.loadIdle("idle");
    bench.load("busy");
    bench.loadIdle("elsewhere", { demand: { "cuda:0": 1 } });
    const ticket = bench.request("a");

    bench.scheduler.onExited(4, OUT_OF_MEMORY, 0);
    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "evicted" }]);
    expect(bench.startedKeys).toHaveLength(4);
    bench.scheduler.onExited(1, STOPPED, 0);

    expect(bench.effects.started.at(-1)).toMatchObject({ key: "a", isRetry: true });
    bench.scheduler.onReady(5, 0);
    expect(bench.wasGranted(ticket)).toBe(true);
  });

  test("scheduler: a second failure reaches all who wait, and the next request pauses like after a crash", () => {
    const bench = new Bench({ maxWorkers: 8 });
    bench.loadIdle("idle");
    const tickets = [bench.request("a"), bench.request("a")];
    bench.scheduler.onExited(2, OUT_OF_MEMORY, 0);
    bench.scheduler.onExited(1, STOPPED, 0);

    bench.scheduler.onExited(3, OUT_OF_MEMORY, 0);
    bench.request("a");
    bench.scheduler.onExited(4, OUT_OF_MEMORY, 0);
    const refused = bench.request("a");

    expect(tickets.map((id) => bench.rejection(id))).toEqual([OUT_OF_MEMORY, OUT_OF_MEMORY]);
    expect(bench.rejection(refused)?.details).toMatchObject({ retry_after_ms: 1000 });
    expect(bench.startedKeys).toEqual(["idle", "a", "a", "a"]);
  });

  test("scheduler: where nothing can be freed it is not tried again", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.load("busy", { demand: 10 });
    bench.loadIdle("pinned", { demand: 10, pinned: true });
    const ticket = bench.request("a", { demand: 20 });

    bench.scheduler.onExited(3, OUT_OF_MEMORY, 0);

    expect(bench.rejection(ticket)).toBe(OUT_OF_MEMORY);
    expect(bench.effects.stopped).toEqual([]);
  });

  test("scheduler: more is assumed the second time, and waited for where somebody serves", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    const busy = bench.load("busy", { demand: 30 });
    const ticket = bench.request("a", { demand: 60 });

    bench.scheduler.onExited(2, OUT_OF_MEMORY, 0);
    expect(bench.rejection(ticket)).toBeUndefined();
    bench.scheduler.onReleased(busy, 0);
    bench.scheduler.onExited(busy, STOPPED, 0);

    expect(bench.effects.started.at(-1)).toMatchObject({ key: "a", isRetry: true });
    expect(demandOf(bench, 3)).toEqual({ ram: 75 });
  });

  test("scheduler: what is assumed never exceeds the room that can be made", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.loadIdle("pinned", { demand: 20, pinned: true });
    bench.loadIdle("idle", { demand: 5 });
    bench.request("a", { demand: 75 });

    bench.scheduler.onExited(3, OUT_OF_MEMORY, 0);
    bench.scheduler.onExited(2, STOPPED, 0);

    expect(demandOf(bench, 4)).toEqual({ ram: 80 });
  });

  test("scheduler: nothing else loads beside the second attempt", () => {
    const bench = new Bench({ maxWorkers: 8 });
    bench.loadIdle("idle");
    bench.request("a");
    bench.scheduler.onExited(2, OUT_OF_MEMORY, 0);
    bench.scheduler.onExited(1, STOPPED, 0);

    bench.request("b");
    expect(bench.startedKeys).toEqual(["idle", "a", "a"]);
    bench.scheduler.onReady(3, 0);

    expect(bench.startedKeys.at(-1)).toBe("b");
  });

  test("scheduler: if all who waited have gone, it is not tried again, and the next request is a first attempt", () => {
    const bench = new Bench({ maxWorkers: 8 });
    bench.loadIdle("idle");
    const ticket = bench.request("a");
    bench.scheduler.onExited(2, OUT_OF_MEMORY, 0);

    bench.scheduler.onCancelled(ticket, 0);
    bench.scheduler.onExited(1, STOPPED, 0);
    expect(bench.startedKeys).toEqual(["idle", "a"]);
    bench.request("a");

    expect(bench.effects.started.at(-1)).toMatchObject({ key: "a", isRetry: false });
  });

  test("scheduler: while it served, the next load assumes more, also against a lower measurement", () => {
    const bench = new Bench({ budget: { ram: 100 } });
    bench.load("a", { demand: 40 });
    bench.scheduler.onExited(1, OUT_OF_MEMORY, 0);

    const worker = bench.load("a", { demand: 40 });
    expect(demandOf(bench, worker)).toEqual({ ram: 50 });
    bench.scheduler.onMeasured(worker, { ram: 30 }, 0);

    expect(demandOf(bench, worker)).toEqual({ ram: 50 });
  });

  test("scheduler: a minute of service forgets what was assumed", () => {
    const bench = new Bench({ budget: { ram: 100 } });
    bench.load("a", { demand: 40 });
    bench.scheduler.onExited(1, OUT_OF_MEMORY, 0);
    bench.loadIdle("a", { demand: 40 });
    bench.scheduler.onExited(2, CRASH, 60_000);
    bench.nowMs = 60_000;

    expect(demandOf(bench, bench.load("a", { demand: 40 }))).toEqual({ ram: 40 });
  });
});

describe("Scheduler: pins", () => {
  test("scheduler: a pinned worker is neither evicted nor overdue, and leaves when it is told to", () => {
    const bench = new Bench({ keepAliveMs: 1000 });
    const worker = bench.loadIdle("a");

    bench.scheduler.onPinned(worker, true, 0);
    expect(bench.effects.deadlineMs).toBeUndefined();
    const refused = bench.request("b");
    bench.scheduler.onUnload(() => true, 0);

    expect(bench.rejection(refused)?.message).toBe(
      "cannot load `b`: pinned models take the only place (`a`)",
    );
    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "unloaded" }]);
  });

  test("scheduler: unpinning makes room for those who wait", () => {
    const bench = new Bench({ maxWorkers: 2, keepAliveMs: 1000 });
    bench.load("busy");
    const worker = bench.loadIdle("a", { pinned: true });
    bench.request("b");

    bench.scheduler.onPinned(worker, false, 0);
    bench.scheduler.onPinned(99, false, 0);

    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "evicted" }]);
  });

  test("scheduler: a refusal names the pinned models and what they leave", () => {
    const bench = new Bench({ maxWorkers: 16, budget: { ram: 10 * GB } });
    for (const name of ["a", "b", "c", "d", "e", "f"]) {
      bench.loadIdle(name, { demand: GB, pinned: true });
    }

    const ticket = bench.request("big", { demand: 5 * GB });

    expect(bench.rejection(ticket)).toMatchObject({
      message:
        "cannot load `big`: it needs 5.00GB of memory and pinned models (`a`, `b`, `c`, `d`, `e` and 1 more) leave 4.00GB of memory",
      details: { pinned_models: ["a", "b", "c", "d", "e", "f"], pinned_bytes: { ram: 6 * GB } },
    });
  });

  test("scheduler: a request may pin and unpin the worker it gets, one that says nothing does not", () => {
    const bench = new Bench();
    bench.loadIdle("a", { pinned: true });
    bench.request("a");
    expect(bench.scheduler.workers).toMatchObject([{ pinned: true }]);

    bench.request("a", { pinned: false });

    expect(bench.scheduler.workers).toMatchObject([{ pinned: false }]);
  });
});
