import { describe, expect, test } from "bun:test";

import { AppError } from "../../src/errors.ts";
import { AGE_CAP_MS } from "../../src/runtime/scheduler.ts";
import { Bench } from "../fakes/effects.ts";

const CRASH = new AppError("worker_failed", "cannot load `a`: it broke");
const STOPPED = new AppError("shutting_down", "cannot serve `a`: its worker was stopped");

describe("Scheduler: requests", () => {
  test("scheduler: a request for a model that is not loaded starts a worker and is granted when it is ready", () => {
    const bench = new Bench();

    const ticket = bench.request("a");
    expect(bench.wasGranted(ticket)).toBe(false);
    bench.scheduler.onReady(bench.lastStarted(), 40);

    expect(bench.effects.granted).toEqual([{ ticketId: ticket, workerId: 1 }]);
    expect(bench.startedKeys).toEqual(["a"]);
  });

  test("scheduler: a request for a loaded model is granted at once", () => {
    const bench = new Bench();
    bench.load("a");

    const ticket = bench.request("a");

    expect(bench.wasGranted(ticket)).toBe(true);
    expect(bench.scheduler.workers).toMatchObject([{ kind: "ready", leases: 2 }]);
  });

  test("scheduler: a second request for a loading model joins it", () => {
    const bench = new Bench({ maxWorkers: 2 });
    const [first, second] = [bench.request("a"), bench.request("a")];

    bench.scheduler.onReady(1, 0);

    expect(bench.startedKeys).toEqual(["a"]);
    expect([bench.wasGranted(first), bench.wasGranted(second)]).toEqual([true, true]);
  });

  test("scheduler: a client that leaves does not cancel the load for the others, nor at all", () => {
    const bench = new Bench();
    const [first, second] = [bench.request("a"), bench.request("a")];

    bench.scheduler.onCancelled(first, 0);
    bench.scheduler.onCancelled(second, 0);
    bench.scheduler.onReady(1, 0);

    expect(bench.effects.stopped).toEqual([]);
    expect(bench.effects.granted).toEqual([]);
    expect(bench.scheduler.workers).toMatchObject([{ kind: "ready", leases: 0 }]);
  });

  test("scheduler: a request past the queue's bound is refused, one that can be served is not", () => {
    const bench = new Bench({ maxWorkers: 2, queueLimit: 2 });
    bench.load("a");
    bench.request("b");
    bench.request("b");

    const [refused, served] = [bench.request("b"), bench.request("a")];

    expect(bench.rejection(refused)?.code).toBe("queue_full");
    expect(bench.rejection(refused)?.details).toEqual({
      queue_limit: 2,
      queue_length: 2,
      waiting_for_model: 2,
      oldest_waiting_ms: 0,
      retry_after_seconds: 5,
    });
    expect(bench.wasGranted(served)).toBe(true);
    expect(bench.scheduler.waiting).toHaveLength(2);
  });
});

describe("Scheduler: a full queue", () => {
  test("scheduler: what can never be served is refused for that reason, not for the queue", () => {
    const bench = new Bench({ queueLimit: 1, budget: { ram: 10 } });
    bench.load("a");
    bench.request("b", { demand: 10 });

    const ticket = bench.request("c", { demand: 11 });

    expect(bench.rejection(ticket)?.code).toBe("insufficient_memory");
  });
});

describe("Scheduler: room", () => {
  test("scheduler: an idle worker is evicted, and the new one starts only when it has gone", () => {
    const bench = new Bench();
    const worker = bench.load("a");
    bench.scheduler.onReleased(worker, 0);

    bench.request("b");
    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "evicted" }]);
    expect(bench.startedKeys).toEqual(["a"]);
    bench.scheduler.onExited(worker, STOPPED, 0);

    expect(bench.startedKeys).toEqual(["a", "b"]);
  });

  test("scheduler: a busy worker is not evicted until its last lease is released", () => {
    const bench = new Bench();
    const worker = bench.load("a");
    bench.request("a");
    bench.request("b");

    bench.scheduler.onReleased(worker, 0);
    expect(bench.effects.stopped).toEqual([]);
    bench.scheduler.onReleased(worker, 0);

    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "evicted" }]);
  });

  test("scheduler: only as many workers are evicted as are needed", () => {
    const bench = new Bench({ maxWorkers: 3 });
    for (const key of ["a", "b", "c"]) bench.scheduler.onReleased(bench.load(key), 0);

    bench.request("d");
    bench.request("d");

    expect(bench.effects.stopped).toHaveLength(1);
  });

  test("scheduler: a second request for room evicts on its own once the first has its worker", () => {
    const bench = new Bench({ maxWorkers: 2 });
    for (const key of ["a", "b"]) bench.scheduler.onReleased(bench.load(key), 0);
    bench.request("c");
    bench.request("d");
    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "evicted" }]);

    bench.scheduler.onExited(1, STOPPED, 0);

    expect(bench.startedKeys).toEqual(["a", "b", "c"]);
    expect(bench.effects.stopped).toHaveLength(2);
  });

  test("scheduler: a pinned worker is never evicted, and a request it leaves no room for is refused at once", () => {
    const bench = new Bench();
    const worker = bench.load("a", { keepAliveMs: -1 });
    bench.scheduler.onReleased(worker, 0);

    const ticket = bench.request("b");

    expect(bench.effects.stopped).toEqual([]);
    expect(bench.rejection(ticket)).toMatchObject({
      code: "insufficient_memory",
      message: "cannot load `b`: pinned models take the only place (`a`)",
    });
  });

  test("scheduler: a request can unpin a worker", () => {
    const bench = new Bench();
    const worker = bench.load("a", { keepAliveMs: -1 });
    bench.request("a", { keepAliveMs: 1000 });
    bench.scheduler.onReleased(worker, 0);
    bench.scheduler.onReleased(worker, 0);

    bench.request("b");

    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "evicted" }]);
  });

  test("scheduler: what can never fit is refused at once with the numbers", () => {
    const bench = new Bench({ budget: { ram: 100 } });

    const ticket = bench.request("a", { demand: 101 });

    expect(bench.rejection(ticket)).toMatchObject({
      code: "insufficient_memory",
      details: { needed_bytes: { ram: 101 }, budget_bytes: { ram: 100 } },
    });
  });

  test("scheduler: bytes are counted beside workers", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.scheduler.onReleased(bench.load("a", { demand: 60 }), 0);
    bench.load("b", { demand: 30 });

    bench.request("c", { demand: 20 });

    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "evicted" }]);
  });
});

describe("Scheduler: fairness", () => {
  test("scheduler: workers start in the order of arrival", () => {
    const bench = new Bench();
    const worker = bench.load("a");
    for (const key of ["b", "c", "b"]) bench.request(key);

    bench.scheduler.onReleased(worker, 0);
    bench.scheduler.onExited(worker, STOPPED, 0);
    bench.scheduler.onReady(2, 0);
    // Both requests for b are served together.
    bench.scheduler.onReleased(2, 0);
    bench.scheduler.onReleased(2, 0);
    bench.scheduler.onExited(2, STOPPED, 0);

    expect(bench.startedKeys).toEqual(["a", "b", "c"]);
  });

  test("scheduler: a small model does not overtake a big one that waits for room", () => {
    const bench = new Bench({ maxWorkers: 8, budget: { ram: 100 } });
    bench.load("a", { demand: 50 });

    bench.request("big", { demand: 80 });
    bench.request("small", { demand: 10 });

    expect(bench.startedKeys).toEqual(["a"]);
  });

  test("scheduler: requests for a loaded model overtake one that waits for room, up to the age cap", () => {
    const bench = new Bench();
    bench.load("a");
    const waiting = bench.request("b");

    bench.nowMs = AGE_CAP_MS - 1;
    const before = bench.request("a");
    bench.nowMs = AGE_CAP_MS;
    const after = bench.request("a");
    bench.scheduler.onReleased(1, bench.nowMs);
    bench.scheduler.onReleased(1, bench.nowMs);
    bench.scheduler.onExited(1, STOPPED, bench.nowMs);
    bench.scheduler.onReady(2, bench.nowMs);

    expect([before, waiting, after].map((id) => bench.wasGranted(id))).toEqual([true, true, false]);
  });

  test("scheduler: a load serves all who wait for it, also if the one it was for has gone", () => {
    const bench = new Bench();
    const first = bench.request("a");
    bench.request("b");
    const second = bench.request("a");
    bench.scheduler.onCancelled(first, 0);

    bench.scheduler.onReady(1, 0);

    expect(bench.wasGranted(second)).toBe(true);
    expect(bench.effects.stopped).toEqual([]);
  });

  test("scheduler: the age cap can be set", () => {
    const bench = new Bench({ ageCapMs: 100 });
    bench.load("a");
    bench.request("b");
    bench.nowMs = 100;

    expect(bench.wasGranted(bench.request("a"))).toBe(false);
  });

  test("scheduler: another worker is closed when the one that was to leave is pinned", () => {
    const bench = new Bench({ maxWorkers: 2 });
    for (const key of ["a", "c"]) bench.load(key);
    bench.request("b");
    bench.nowMs = AGE_CAP_MS;
    expect(bench.wasGranted(bench.request("a"))).toBe(false);

    bench.scheduler.onPinned(1, true, bench.nowMs);

    expect(bench.wasGranted(bench.request("a"))).toBe(true);
    expect(bench.wasGranted(bench.request("c"))).toBe(false);
  });

  test("scheduler: only the worker that can make room stops taking requests", () => {
    const bench = new Bench({ maxWorkers: 2 });
    bench.load("a");
    bench.load("c", { keepAliveMs: -1 });
    bench.request("b");
    bench.nowMs = AGE_CAP_MS;

    const [held, served] = [bench.request("a"), bench.request("c")];

    expect([bench.wasGranted(held), bench.wasGranted(served)]).toEqual([false, true]);
  });

  test("scheduler: a worker opens again when the one it made room for gives up", () => {
    const bench = new Bench();
    bench.load("a");
    const waiting = bench.request("b");
    bench.nowMs = AGE_CAP_MS;
    const held = bench.request("a");

    bench.scheduler.onCancelled(waiting, bench.nowMs);

    expect(bench.wasGranted(held)).toBe(true);
  });
});

describe("Scheduler: keep-alive", () => {
  test("scheduler: an idle worker is stopped when its keep-alive is over, by one deadline", () => {
    const bench = new Bench({ keepAliveMs: 1000 });
    const worker = bench.load("a");
    expect(bench.effects.deadlineMs).toBeUndefined();

    bench.scheduler.onReleased(worker, 500);
    expect(bench.effects.deadlineMs).toBe(1500);
    bench.wake(1500);

    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "idle" }]);
    expect(bench.effects.deadlineMs).toBeUndefined();
  });

  test("scheduler: the deadline is the earliest of all", () => {
    const bench = new Bench({ maxWorkers: 3 });
    bench.scheduler.onReleased(bench.load("a", { keepAliveMs: 5000 }), 0);
    bench.scheduler.onReleased(bench.load("b", { keepAliveMs: 2000 }), 0);
    bench.scheduler.onReleased(bench.load("c", { keepAliveMs: -1 }), 0);

    expect(bench.effects.deadlineMs).toBe(2000);
  });

  test("scheduler: being woken too early only asks for the deadline again", () => {
    const bench = new Bench({ keepAliveMs: 1000 });
    bench.scheduler.onReleased(bench.load("a"), 0);

    bench.wake(10);

    expect(bench.effects.stopped).toEqual([]);
    expect(bench.effects.deadlineMs).toBe(1000);
  });

  test("scheduler: keep-alive 0 stops the worker with its last request", () => {
    const bench = new Bench();
    const worker = bench.load("a", { keepAliveMs: 0 });

    bench.scheduler.onReleased(worker, 0);

    expect(bench.effects.stopped).toEqual([{ workerId: worker, reason: "idle" }]);
  });

  test("scheduler: a request without a keep-alive leaves the worker's own", () => {
    const bench = new Bench();
    const worker = bench.load("a", { keepAliveMs: -1 });
    bench.request("a");

    bench.scheduler.onReleased(worker, 0);
    bench.scheduler.onReleased(worker, 0);

    expect(bench.effects.deadlineMs).toBeUndefined();
  });
});

describe("Scheduler: failures", () => {
  test("scheduler: a load that fails rejects all who waited for it with the reason", () => {
    const bench = new Bench();
    const tickets = [bench.request("a"), bench.request("a")];
    const other = bench.request("b");

    bench.scheduler.onExited(1, CRASH, 0);

    expect(tickets.map((id) => bench.rejection(id))).toEqual([CRASH, CRASH]);
    expect(bench.rejection(other)).toBeUndefined();
    expect(bench.startedKeys).toEqual(["a", "b"]);
  });

  test("scheduler: the first crash may be retried at once, a loop is held back with the last reason", () => {
    const bench = new Bench();
    bench.request("a");
    bench.scheduler.onExited(1, CRASH, 0);
    bench.request("a");
    bench.scheduler.onExited(2, CRASH, 0);

    const refused = bench.request("a");
    bench.nowMs = 1000;
    bench.request("a");

    expect(bench.rejection(refused)).toMatchObject({
      code: "worker_failed",
      message: CRASH.message,
      details: { retry_after_ms: 1000, retry_after_seconds: 1 },
    });
    expect(bench.startedKeys).toEqual(["a", "a", "a"]);
  });

  test("scheduler: a failure to install is not a crash and may be retried at once", () => {
    const bench = new Bench();
    const error = new AppError("install_failed", "cannot install llamacpp: no network");
    for (const worker of [1, 2, 3]) {
      bench.request("a");
      bench.scheduler.onExited(worker, error, 0);
    }

    bench.request("a");

    expect(bench.startedKeys).toHaveLength(4);
  });

  test("scheduler: a crash after a minute of service starts the count again", () => {
    const bench = new Bench();
    bench.request("a");
    bench.scheduler.onExited(1, CRASH, 0);
    bench.load("a");

    bench.scheduler.onExited(2, CRASH, 60_000);
    bench.nowMs = 60_000;
    bench.request("a");

    expect(bench.startedKeys).toEqual(["a", "a", "a"]);
  });

  test("scheduler: leases of a worker that died are void", () => {
    const bench = new Bench();
    const worker = bench.load("a");

    bench.scheduler.onExited(worker, CRASH, 0);
    bench.scheduler.onReleased(worker, 0);
    bench.load("a");

    expect(bench.scheduler.workers).toMatchObject([{ kind: "ready", leases: 1 }]);
  });
});

describe("Scheduler: unload and shutdown", () => {
  test("scheduler: unloading stops idle workers and lets busy ones finish without taking more", () => {
    const bench = new Bench({ maxWorkers: 2 });
    bench.scheduler.onReleased(bench.load("a"), 0);
    bench.load("b");

    const told = bench.scheduler.onUnload(() => true, 0);
    const later = bench.request("b");
    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "unloaded" }]);
    bench.scheduler.onReleased(2, 0);

    expect(told).toEqual([1, 2]);
    expect(bench.effects.stopped.at(-1)).toEqual({ workerId: 2, reason: "unloaded" });
    expect(bench.wasGranted(later)).toBe(false);
  });

  test("scheduler: a request that came during an unload gets a new worker when the old one has gone", () => {
    const bench = new Bench({ maxWorkers: 2 });
    bench.load("a");
    bench.scheduler.onUnload(() => true, 0);
    bench.request("a");

    bench.scheduler.onReleased(1, 0);
    expect(bench.startedKeys).toEqual(["a"]);
    bench.scheduler.onExited(1, STOPPED, 0);

    expect(bench.startedKeys).toEqual(["a", "a"]);
  });

  test("scheduler: a worker that is awaited while it is unloaded serves those who wait first", () => {
    const bench = new Bench();
    const ticket = bench.request("a");

    bench.scheduler.onUnload(() => true, 0);
    bench.scheduler.onReady(1, 0);
    expect(bench.wasGranted(ticket)).toBe(true);
    bench.scheduler.onReleased(1, 0);

    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "unloaded" }]);
  });

  test("scheduler: a load that nobody waits for is stopped by an unload, once", () => {
    const bench = new Bench();
    bench.scheduler.onCancelled(bench.request("a"), 0);

    const told = [bench.scheduler.onUnload(() => true, 0), bench.scheduler.onUnload(() => true, 0)];

    expect(told).toEqual([[1], []]);
    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "unloaded" }]);
  });

  test("scheduler: shutdown rejects what waits and what comes, and lets requests in flight finish", () => {
    const bench = new Bench({ maxWorkers: 2 });
    bench.load("a");
    const waiting = bench.request("b");

    bench.scheduler.onShutdown(0);
    const late = bench.request("a");

    expect([waiting, late].map((id) => bench.rejection(id)?.code)).toEqual([
      "shutting_down",
      "shutting_down",
    ]);
    expect(bench.effects.stopped).toEqual([{ workerId: 2, reason: "shutdown" }]);
  });

  test("scheduler: a forced shutdown stops busy workers too", () => {
    const bench = new Bench();
    bench.load("a");

    bench.scheduler.onForcedShutdown(0);

    expect(bench.effects.stopped).toEqual([{ workerId: 1, reason: "shutdown" }]);
  });
});
