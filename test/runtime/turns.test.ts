import { describe, expect, test } from "bun:test";

import { Turns, turnsOf } from "../../src/runtime/turns.ts";
import { failureOf, setUp } from "../fakes/supervised.ts";
import { eventually } from "../helpers/eventually.ts";

const never = new AbortController().signal;

function isHere(turn: Promise<void>): boolean {
  return Bun.peek.status(turn) === "fulfilled";
}

async function expectFailure(promise: Promise<unknown>, facts: object): Promise<void> {
  expect(await failureOf(promise)).toMatchObject(facts);
}

/** Takes all there are at once. */
function taken(slots: number): Turns {
  const turns = new Turns(slots);
  for (let index = 0; index < turnsOf(slots); index += 1)
    expect(isHere(turns.take(never))).toBe(true);
  return turns;
}

describe("Turns", () => {
  test("turns: what is given back goes to who has waited longest", async () => {
    const turns = taken(1);
    const order: number[] = [];
    const waits = [1, 2, 3].map((id) => turns.take(never).then(() => order.push(id)));

    turns.give();
    await waits[0];
    expect(order).toEqual([1]);
    turns.give();
    turns.give();
    await Promise.all(waits);

    expect(order).toEqual([1, 2, 3]);
  });

  test("turns: who leaves is passed over, and takes nothing", async () => {
    const turns = taken(1);
    const leaving = new AbortController();
    const left = turns.take(leaving.signal);
    const stays = turns.take(never);

    leaving.abort(new Error("gone"));
    await expectFailure(left, { message: "gone" });
    turns.give();
    await stays;
    turns.give();
    turns.give();

    expect(isHere(turns.take(never))).toBe(true);
  });

  test("turns: an abort after the turn came changes nothing", async () => {
    const turns = taken(1);
    const leaving = new AbortController();
    const waiting = turns.take(leaving.signal);
    turns.give();
    await waiting;
    leaving.abort();

    turns.give();
    expect(isHere(turns.take(never))).toBe(true);
    expect(isHere(turns.take(never))).toBe(false);
  });

  test("turns: an engine that has gone makes nobody wait", async () => {
    const turns = taken(2);
    const waits = [turns.take(never), turns.take(never)];

    turns.end();
    await Promise.all(waits);

    expect(isHere(turns.take(never))).toBe(true);
  });

  test("turns: there is an end to those that wait", async () => {
    const turns = taken(1);
    for (let index = 0; index < 8192; index += 1) void turns.take(never);

    await expectFailure(turns.take(never), { code: "queue_full" });
  });
});

describe("Supervisor: turns", () => {
  const settings = { runtimeFlags: [], parallel: 1 };

  test("supervisor: an engine gets twice as many requests as it has slots; others wait", async () => {
    await using at = await setUp();
    const first = await at.acquire("a", { settings });
    using _second = await at.acquire("a", { settings });
    const third = at.acquire("a", { settings });
    let hasTurn = false;
    void third.then(() => (hasTurn = true));
    // It has its worker, and waits for nothing but its turn.
    await eventually(() => at.supervisor.list()[0]?.inUse === 3);
    expect(hasTurn).toBe(false);

    first[Symbol.dispose]();
    using lease = await third;

    expect(lease.workerId).toBe(first.workerId);
  });

  test("supervisor: one that leaves while it waits for its turn holds nothing", async () => {
    await using at = await setUp();
    const leaving = new AbortController();
    const first = await at.acquire("a", { settings });
    const second = await at.acquire("a", { settings });
    const third = at.acquire("a", { settings, signal: leaving.signal });

    leaving.abort();

    await expectFailure(third, { code: "cancelled" });
    first[Symbol.dispose]();
    second[Symbol.dispose]();
    expect(at.supervisor.list().map(({ inUse }) => inUse)).toEqual([0]);
  });

  test("supervisor: those that wait for the turn of an engine that dies hear of it", async () => {
    await using at = await setUp();
    using first = await at.acquire("a", { settings });
    using _second = await at.acquire("a", { settings });
    const third = at.acquire("a", { settings });

    const [worker] = at.supervisor.list();
    process.kill(worker?.pid ?? 0, "SIGKILL");
    using lease = await third;

    expect(await lease.failure()).toMatchObject({ code: "worker_failed" });
    expect(lease.workerId).toBe(first.workerId);
  });
});
