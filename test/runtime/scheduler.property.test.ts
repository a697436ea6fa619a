import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import { AppError, assert } from "../../src/errors.ts";
import { OVERTAKING_MS, Scheduler, type Ticket } from "../../src/runtime/scheduler.ts";

const CRASH = new AppError("worker_failed", "cannot load the model: it broke");
const KEEP_ALIVES = [undefined, 0, 5000, -1] as const;
const KEYS = ["a", "b", "c", "d"] as const;
const BYTES: Readonly<Record<string, number>> = { a: 10, b: 20, c: 40, d: 60 };

interface WorldLimits {
  readonly maxWorkers: number;
  readonly maxBytes: number;
  readonly queueLimit: number;
}

/** Plays the supervisor, and checks the invariants after every event. */
class World {
  readonly scheduler: Scheduler;
  readonly #limits: WorldLimits;
  readonly endings = new Map<number, string[]>();
  /** Worker id of each lease held. */
  leases: { readonly workerId: number; readonly sinceMs: number }[] = [];
  nowMs = 0;
  deadlineMs: number | undefined;

  constructor(limits: WorldLimits) {
    this.#limits = limits;
    this.scheduler = new Scheduler(
      { ...limits, keepAliveMs: 10_000 },
      {
        startWorker: (_id, ticket) => this.#assertOldestForRoom(ticket),
        stopWorker: (id) => this.#assertStoppable(id),
        grant: (ticketId, workerId) => {
          this.#end(ticketId, "granted");
          this.leases.push({ workerId, sinceMs: this.nowMs });
        },
        reject: (ticketId) => this.#end(ticketId, "rejected"),
        setDeadline: (atMs) => (this.deadlineMs = atMs),
      },
    );
  }

  request(key: string, keepAliveMs?: number): number {
    const id = this.endings.size + 1;
    this.endings.set(id, []);
    const bytes = BYTES[key] ?? 1;
    const ticket = { id, key, modelName: key, bytes, keepAliveMs, arrivedMs: this.nowMs };
    this.scheduler.onRequest(ticket, this.nowMs);
    this.#check();
    return id;
  }

  cancel(ticketId: number): void {
    this.#end(ticketId, "cancelled");
    this.scheduler.onCancelled(ticketId, this.nowMs);
    this.#check();
  }

  ready(workerId: number): void {
    this.scheduler.onReady(workerId, this.nowMs);
    this.#check();
  }

  exit(workerId: number): void {
    this.leases = this.leases.filter((lease) => lease.workerId !== workerId);
    this.scheduler.onExited(workerId, CRASH, this.nowMs);
    this.#check();
  }

  release(index: number): void {
    const [lease] = this.leases.splice(index, 1);
    if (lease !== undefined) this.scheduler.onReleased(lease.workerId, this.nowMs);
    this.#check();
  }

  unload(key: string): void {
    const ids = new Set(
      this.workers(...KINDS)
        .filter((w) => w.key === key)
        .map(({ id }) => id),
    );
    this.scheduler.onUnload((id) => ids.has(id), this.nowMs);
    this.#check();
  }

  advance(ms: number): void {
    this.nowMs += ms;
    if (this.deadlineMs === undefined || this.deadlineMs > this.nowMs) return;
    this.deadlineMs = undefined;
    this.scheduler.onDeadline(this.nowMs);
    this.#check();
  }

  workers(...kinds: readonly (typeof KINDS)[number][]) {
    return this.scheduler.workers.filter(({ kind }) => kinds.includes(kind));
  }

  /** Everything that is under way comes to its end. */
  finishAll(): void {
    for (const { id } of this.workers("starting")) this.ready(id);
    while (this.leases.length > 0) this.release(0);
    for (const { id } of this.workers("stopping")) this.exit(id);
  }

  #end(ticketId: number, how: string): void {
    const endings = this.endings.get(ticketId);
    assert(endings !== undefined, "only known tickets end");
    endings.push(how);
    expect(endings).toHaveLength(1);
  }

  #assertOldestForRoom(ticket: Ticket): void {
    const keys = new Set(this.scheduler.workers.map(({ key }) => key));
    const waiting = this.scheduler.waiting;
    const older = waiting.slice(
      0,
      waiting.findIndex(({ id }) => id === ticket.id),
    );
    expect(older.filter(({ key }) => !keys.has(key))).toEqual([]);
  }

  #assertStoppable(workerId: number): void {
    expect(this.leases.filter((lease) => lease.workerId === workerId)).toEqual([]);
  }

  #check(): void {
    const { workers, waiting } = this.scheduler;
    expect(workers.length).toBeLessThanOrEqual(this.#limits.maxWorkers);
    const usedBytes = workers.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(usedBytes).toBeLessThanOrEqual(this.#limits.maxBytes);
    expect(waiting.length).toBeLessThanOrEqual(this.#limits.queueLimit);
    expect(new Set(workers.map(({ key }) => key)).size).toBe(workers.length);
    for (const worker of workers) {
      const held = this.leases.filter(({ workerId }) => workerId === worker.id).length;
      expect("leases" in worker ? worker.leases : 0).toBe(held);
    }
    const open = [...this.endings].filter(([, endings]) => endings.length === 0).map(([id]) => id);
    expect(waiting.map(({ id }) => id)).toEqual(open);
    this.#checkDeadline();
  }

  #checkDeadline(): void {
    const due = this.scheduler.workers.flatMap((worker) =>
      worker.kind === "ready" && worker.leases === 0 && worker.keepAliveMs >= 0
        ? [worker.lastUsedMs + worker.keepAliveMs]
        : [],
    );
    expect(this.deadlineMs).toBe(due.length === 0 ? undefined : Math.min(...due));
  }
}

const KINDS = ["starting", "ready", "draining", "stopping"] as const;

type Step = readonly [kind: string, which: number, keepAlive: number];

/** Steps that do not apply to the state they meet do nothing. */
function perform(world: World, [kind, which, keepAlive]: Step): void {
  const pick = <T>(items: readonly T[]): T | undefined => items[which % Math.max(1, items.length)];
  const key = KEYS[which % KEYS.length] ?? "a";
  switch (kind) {
    case "request":
      world.request(key, KEEP_ALIVES[keepAlive % KEEP_ALIVES.length]);
      break;
    case "cancel": {
      const ticket = pick(world.scheduler.waiting);
      if (ticket !== undefined) world.cancel(ticket.id);
      break;
    }
    case "ready": {
      const worker = pick(world.workers("starting"));
      if (worker !== undefined) world.ready(worker.id);
      break;
    }
    case "exit": {
      const worker = pick(world.workers("stopping"));
      if (worker !== undefined) world.exit(worker.id);
      break;
    }
    case "crash": {
      const worker = pick(world.workers(...KINDS));
      if (worker !== undefined) world.exit(worker.id);
      break;
    }
    case "release":
      world.release(which % Math.max(1, world.leases.length));
      break;
    case "unload":
      world.unload(key);
      break;
    default:
      world.advance(which * 500);
  }
}

const step = fc.tuple(
  fc.oneof(
    { weight: 6, arbitrary: fc.constant("request") },
    { weight: 4, arbitrary: fc.constant("ready") },
    { weight: 4, arbitrary: fc.constant("release") },
    { weight: 3, arbitrary: fc.constant("exit") },
    { weight: 2, arbitrary: fc.constant("advance") },
    { weight: 1, arbitrary: fc.constantFrom("cancel", "crash", "unload") },
  ),
  fc.nat(60),
  fc.nat(11),
);

const limits = fc.record({
  maxWorkers: fc.integer({ min: 1, max: 3 }),
  maxBytes: fc.constantFrom(Infinity, 70, 50),
  queueLimit: fc.constantFrom(3, 512),
});

describe("Scheduler, by property", () => {
  test("scheduler: any sequence of events keeps the invariants, and every ticket ends exactly once", () => {
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 120 }), (worldLimits, steps) => {
        const world = new World(worldLimits);

        for (const one of steps) perform(world, one);
        const rounds = 4 * KEYS.length + 4;
        for (let round = 0; round < rounds; round++) world.finishAll();

        expect(world.scheduler.waiting).toEqual([]);
        expect([...world.endings.values()].filter((endings) => endings.length !== 1)).toEqual([]);
      }),
      { numRuns: 1500 },
    );
  });

  test("scheduler: when all are idle and time passes, all but pinned workers leave and no deadline remains", () => {
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 60 }), (worldLimits, steps) => {
        const world = new World(worldLimits);
        for (const one of steps) perform(world, one);
        for (let round = 0; round < 20; round++) world.finishAll();

        world.advance(60_000);
        world.finishAll();

        expect(world.scheduler.workers.filter(({ keepAliveMs }) => keepAliveMs >= 0)).toEqual([]);
        expect(world.deadlineMs).toBeUndefined();
      }),
    );
  });

  test("scheduler: models that are never idle cannot keep others waiting beyond the age cap and a few turns", () => {
    const traffic = fc.record({
      hotKeys: fc.integer({ min: 1, max: 3 }),
      leaseTicks: fc.integer({ min: 2, max: 6 }),
      victims: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(traffic, ({ hotKeys, leaseTicks, victims }) => {
        const world = new World({ maxWorkers: hotKeys, maxBytes: Infinity, queueLimit: 10_000 });
        const hot = Array.from({ length: hotKeys }, (_, index) => `hot${index}`);
        const tick = (): void => runTick(world, hot, leaseTicks);
        for (let count = 0; count < 10; count++) tick();
        const cold = Array.from({ length: victims }, (_, index) => world.request(`cold${index}`));

        const turnTicks = leaseTicks + 3;
        const bound = OVERTAKING_MS / 1000 + (victims + hotKeys) * turnTicks;
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
  for (const key of hot) world.request(key);
  const isOver = ({ sinceMs }: { readonly sinceMs: number }): boolean =>
    world.nowMs - sinceMs >= leaseTicks * 1000;
  for (;;) {
    const index = world.leases.findIndex(isOver);
    if (index < 0) break;
    world.release(index);
  }
  world.advance(1000);
}
