import { describe, expect, test } from "bun:test";

import { fakeModel } from "../fakes/backend.ts";
import { failureOf, setUp, socketOf } from "../fakes/supervised.ts";
import { eventually } from "../helpers/eventually.ts";

const idOf = (name: string): string => fakeModel(name).id;
const signal = new AbortController().signal;

describe("Supervisor: unloading", () => {
  test("unload: a busy worker is skipped, and stays as it is", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");
    (await at.acquire("b"))[Symbol.dispose]();

    const outcome = await at.supervisor.unload({ all: true });

    expect(outcome).toEqual({
      unloaded: 1,
      skipped: [{ modelName: "a", modelId: idOf("a"), reason: "it serves 1 request" }],
    });
    expect(at.supervisor.list()).toMatchObject([{ modelName: "a", state: "ready", inUse: 1 }]);
    expect(lease.isAlive).toBe(true);
  });

  test("unload --wait: a busy worker takes nothing new, finishes and has gone", async () => {
    await using at = await setUp();
    const lease = await at.acquire("a");

    const leaving = at.supervisor.unload({ all: true, wait: true });
    expect(at.supervisor.list()).toMatchObject([{ state: "draining", inUse: 1 }]);
    expect((await fetch("http://engine/health", { unix: socketOf(lease) })).status).toBe(200);
    lease[Symbol.dispose]();

    expect(await leaving).toEqual({ unloaded: 1, skipped: [] });
    expect(at.supervisor.list()).toEqual([]);
  });

  test("unload --wait: whoever waits may leave, the worker still leaves when it is done", async () => {
    await using at = await setUp();
    const lease = await at.acquire("a");
    const caller = new AbortController();

    const leaving = failureOf(
      at.supervisor.unload({ all: true, wait: true, signal: caller.signal }),
    );
    caller.abort();

    expect((await leaving).code).toBe("cancelled");
    lease[Symbol.dispose]();
    await eventually(() => at.supervisor.list().length === 0);
  });

  test("unload --force: what a busy worker serves is cut off, with a reason", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");

    const outcome = await at.supervisor.unload({ all: true, force: true });

    expect(outcome).toEqual({ unloaded: 1, skipped: [] });
    expect(lease.isAlive).toBe(false);
    expect(await lease.failure()).toMatchObject({
      code: "shutting_down",
      message: "cannot serve `a`: its worker was stopped",
    });
  });

  test("unload: a worker that loads for somebody is skipped, with --force it is not", async () => {
    await using at = await setUp();
    const failing = failureOf(at.acquire("a", { flags: ["--ready-file=/nowhere/at/all"] }));
    await eventually(() => at.supervisor.list()[0]?.pid);

    const skipped = await at.supervisor.unload({ all: true });
    const forced = await at.supervisor.unload({ all: true, force: true });

    expect(skipped.skipped).toMatchObject([{ reason: "it is being loaded for a request" }]);
    expect(forced.unloaded).toBe(1);
    expect((await failing).code).toBe("shutting_down");
  });
});

describe("Supervisor: a model that was configured anew", () => {
  const before = { isUsual: true, flags: ["--stderr=before"] };
  const after = { isUsual: true, flags: ["--stderr=after"] };

  test("supersede: the idle worker of before goes when the model is asked for, pinned or not", async () => {
    await using at = await setUp();
    (await at.acquire("a", { ...before, pinned: true }))[Symbol.dispose]();
    const [old] = at.supervisor.list();

    (await at.acquire("a", { ...after, pinned: true }))[Symbol.dispose]();
    await eventually(() => at.supervisor.list().length === 1);

    expect(at.supervisor.list()).toMatchObject([{ modelName: "a", state: "ready" }]);
    expect(at.supervisor.list()[0]?.pid).not.toBe(old?.pid ?? null);
  });

  test("supersede: where there is room for one, a pinned worker of before makes it", async () => {
    await using at = await setUp({ maxWorkers: 1 });
    (await at.acquire("a", { ...before, pinned: true }))[Symbol.dispose]();

    using lease = await at.acquire("a", { ...after, pinned: true });

    expect(lease.isAlive).toBe(true);
    expect(at.supervisor.list()).toHaveLength(1);
  });

  test("supersede: a busy worker of before finishes what it serves, and takes nothing more", async () => {
    await using at = await setUp();
    const lease = await at.acquire("a", before);

    using _new = await at.acquire("a", after);

    expect(lease.isAlive).toBe(true);
    expect(at.supervisor.list().map(({ state }) => state)).toEqual(["draining", "ready"]);
    lease[Symbol.dispose]();
    await eventually(() => at.supervisor.list().length === 1);
  });

  test("supersede: workers with what requests asked for stay, as do those of other modes and models", async () => {
    await using at = await setUp({ maxWorkers: 8 });
    (await at.acquire("a", { isUsual: false, flags: ["--stderr=asked"] }))[Symbol.dispose]();
    (await at.acquire("a", { ...before, mode: "embedding" }))[Symbol.dispose]();
    (await at.acquire("b", before))[Symbol.dispose]();
    (await at.acquire("a", after))[Symbol.dispose]();

    (await at.acquire("a", { isUsual: false, flags: ["--stderr=too"] }))[Symbol.dispose]();

    expect(at.supervisor.list().map(({ state }) => state)).toEqual(Array(5).fill("ready"));
  });
});

describe("Supervisor: draining a model", () => {
  test("drain: requests in flight finish, new and waiting ones are refused until it is over", async () => {
    await using at = await setUp({ maxWorkers: 1 });
    const lease = await at.acquire("a");
    const waiting = failureOf(at.acquire("a", { flags: ["--stderr=other"] }));

    const draining = at.supervisor.drain(idOf("a"), { signal });
    const refused = await Promise.all([waiting, failureOf(at.acquire("a"))]);
    lease[Symbol.dispose]();
    const drained = await draining;

    expect(refused.map(({ code, message }) => [code, message])).toEqual([
      ["conflict", "cannot run `a`: it is being removed"],
      ["conflict", "cannot run `a`: it is being removed"],
    ]);
    expect(at.supervisor.list()).toEqual([]);
    expect((await failureOf(at.acquire("a"))).code).toBe("conflict");
    drained[Symbol.dispose]();
    (await at.acquire("a"))[Symbol.dispose]();
  });

  test("drain: a worker that only drafts with the model has to go, too", async () => {
    await using at = await setUp();
    (await at.acquire("big", { draft: fakeModel("small") }))[Symbol.dispose]();
    expect(at.supervisor.list()).toMatchObject([{ draftModelId: idOf("small") }]);

    using _drained = await at.supervisor.drain(idOf("small"), { signal });

    expect(at.supervisor.list()).toEqual([]);
    expect((await failureOf(at.acquire("big", { draft: fakeModel("small") }))).code).toBe(
      "conflict",
    );
    (await at.acquire("big"))[Symbol.dispose]();
  });

  test("drain: it is given up with its caller, and the model is allowed again", async () => {
    await using at = await setUp();
    using _lease = await at.acquire("a");
    const caller = new AbortController();

    const failing = failureOf(at.supervisor.drain(idOf("a"), { signal: caller.signal }));
    caller.abort();

    expect((await failing).code).toBe("cancelled");
  });

  test("drain: two at once end only with the second", async () => {
    await using at = await setUp();
    const first = await at.supervisor.drain(idOf("a"), { signal });
    const second = await at.supervisor.drain(idOf("a"), { signal, force: true });

    first[Symbol.dispose]();
    first[Symbol.dispose]();
    const early = await failureOf(at.acquire("a"));
    second[Symbol.dispose]();
    using lease = await at.acquire("a");

    expect(early.code).toBe("conflict");
    expect(lease.modelName).toBe("a");
  });
});

describe("Supervisor: pins and keep-alive", () => {
  test("pin: a pinned worker outlives its keep-alive until it is unpinned", async () => {
    await using at = await setUp();
    (await at.acquire("a", { keepAliveMs: 1000 }))[Symbol.dispose]();

    expect(at.supervisor.pin(idOf("a"), true)).toBe(1);
    at.clock.advance(5000);
    expect(at.supervisor.list()).toMatchObject([{ pinned: true, expiresAt: null }]);
    at.supervisor.pin(idOf("a"), false);

    await eventually(() => at.supervisor.list().length === 0);
    expect(at.supervisor.pin(idOf("a"), true)).toBe(0);
  });

  test("pin: a plan that says so pins", async () => {
    await using at = await setUp();

    (await at.acquire("a", { pinned: true }))[Symbol.dispose]();
    (await at.acquire("a"))[Symbol.dispose]();

    expect(at.supervisor.list()).toMatchObject([{ pinned: true }]);
  });

  test("keep-alive: one that a request names holds for those that name none", async () => {
    await using at = await setUp();
    const named = [{ name: "keep_alive", value: "-1", source: "request" }];
    const keepAlive = (): number | undefined => at.supervisor.list()[0]?.keepAliveMs;

    (await at.acquire("a"))[Symbol.dispose]();
    (await at.acquire("a", { keepAliveMs: -1, explained: named }))[Symbol.dispose]();
    (await at.acquire("a"))[Symbol.dispose]();
    expect(keepAlive()).toBe(-1);
    // Configured anew.
    (await at.acquire("a", { keepAliveMs: 1234 }))[Symbol.dispose]();

    expect(keepAlive()).toBe(1234);
  });
});
