import { describe, expect, test } from "bun:test";

import type { Demand } from "../../src/runtime/demand.ts";
import type { RuntimeEvent } from "../../src/runtime/events.ts";
import { measureProcess } from "../../src/runtime/measure.ts";
import type { ProcessBytes } from "../../src/runtime/memory-record.ts";
import { fakeBackend } from "../fakes/backend.ts";
import { failureOf, setUp } from "../fakes/supervised.ts";
import { eventually } from "../helpers/eventually.ts";
import { isLinux, testIf } from "../helpers/test-if.ts";

const MIB = 2 ** 20;
const onLinux = testIf(isLinux, "only Linux tells a process's peak");

interface Ledger {
  readonly rows: Map<string, Demand>;
  record(key: string, demand: Demand): void;
}

function never(): Promise<never> {
  return Promise.withResolvers<never>().promise;
}

function oneByte(): ProcessBytes {
  return { residentBytes: 1, peakBytes: 1 };
}

function noDriver(): Promise<never> {
  return Promise.reject(new Error("driver is gone"));
}

function fakeLedger(): Ledger {
  const rows = new Map<string, Demand>();
  return { rows, record: (key, demand) => void rows.set(key, demand) };
}

describe("Supervisor: the budget", () => {
  test("budget: it is read before a load is decided, and not for a request whose worker is ready", async () => {
    let reads = 0;
    await using at = await setUp(
      {},
      { readBudget: () => Promise.resolve({ ram: 5000 * ++reads }) },
    );

    const refused = await failureOf(at.acquire("big", { demand: { ram: 6000 } }));
    (await at.acquire("a", { demand: { ram: 5000 } }))[Symbol.dispose]();
    at.clock.advance(60_000);
    (await at.acquire("a", { demand: { ram: 5000 } }))[Symbol.dispose]();
    expect(reads).toBe(1);
    (await at.acquire("big", { demand: { ram: 6000 } }))[Symbol.dispose]();

    expect(refused.code).toBe("insufficient_memory");
    expect(reads).toBe(2);
    expect(at.supervisor.held).toEqual({ ram: 6000 });
  });

  test("budget: one that cannot be read leaves the one before, and a hanging one is not waited for by who leaves", async () => {
    const answers: (() => Promise<Demand>)[] = [
      () => Promise.resolve({ ram: 100 }),
      () => Promise.reject(new Error("driver is gone")),
      () => Promise.withResolvers<Demand>().promise,
    ];
    await using at = await setUp({}, { readBudget: () => (answers.shift() ?? never)() });
    await failureOf(at.acquire("a", { demand: { ram: 200 } }));
    at.clock.advance(20_000);
    const second = await failureOf(at.acquire("a", { demand: { ram: 200 } }));
    at.clock.advance(20_000);
    const caller = new AbortController();
    const third = failureOf(at.acquire("a", { signal: caller.signal }));
    caller.abort();

    expect(second.code).toBe("insufficient_memory");
    expect((await third).code).toBe("cancelled");
    expect(at.supervisor.busy).toBe(false);
  });

  test("budget: twenty who come at once share one reading", async () => {
    let reads = 0;
    const readBudget = (): Promise<Demand> => {
      reads += 1;
      return Promise.resolve({ ram: 5000 });
    };
    await using at = await setUp({}, { readBudget });

    const leases = await Promise.all(
      Array.from({ length: 20 }, () =>
        at.acquire("a", { settings: { runtimeFlags: [], parallel: 20 } }),
      ),
    );

    expect([reads, leases.length]).toEqual([1, 20]);
    for (const lease of leases) lease[Symbol.dispose]();
  });
});

describe("Supervisor: what workers really hold", () => {
  onLinux(
    "memory: a worker that holds more than was assumed counts for what it holds",
    async () => {
      await using at = await setUp({}, { measure: measureProcess });

      using _lease = await at.acquire("a", { flags: ["--hold-mib=32"], demand: { ram: MIB } });

      const [worker] = at.supervisor.list();
      expect(worker?.demand["ram"]).toBeGreaterThan(32 * MIB);
      expect(worker?.measured?.["ram"]).toBeGreaterThan(32 * MIB);
      expect(at.supervisor.held).toEqual(worker?.demand ?? {});
    },
  );

  onLinux("memory: it never counts for less than its plan while it lives", async () => {
    await using at = await setUp({}, { measure: measureProcess });
    const demand = { ram: 2 ** 40, "cuda:0": 5 };

    (await at.acquire("a", { demand }))[Symbol.dispose]();

    expect(at.supervisor.list()).toMatchObject([{ demand, devices: ["cuda:0", "ram"] }]);
  });

  test("memory: idle workers leave when another one turns out to hold more", async () => {
    const peaks = new Map<number, number>();
    const measure = (pid: number) => {
      const peakBytes = peaks.get(pid) ?? 10;
      return { residentBytes: peakBytes, peakBytes };
    };
    await using at = await setUp({}, { measure, readBudget: () => Promise.resolve({ ram: 1000 }) });
    (await at.acquire("idle", { demand: { ram: 300 } }))[Symbol.dispose]();
    const lease = await at.acquire("grows", { demand: { ram: 300 } });
    peaks.set(at.supervisor.list()[1]?.pid ?? 0, 900);

    lease[Symbol.dispose]();

    await eventually(() => at.supervisor.list().length === 1);
    expect(at.supervisor.list()).toMatchObject([{ modelName: "grows", demand: { ram: 900 } }]);
  });

  test("memory: the ledger gets the peak of workers that have served, when it grew and when they stop", async () => {
    const ledger = fakeLedger();
    let peakBytes = 500;
    const measure = () => ({ residentBytes: 400, peakBytes });
    await using at = await setUp({}, { measure, ledger });
    const plan = { ledgerKey: "a|1", demand: { ram: 400, "cuda:0": 7 } };

    const lease = await at.acquire("a", plan);
    expect(ledger.rows.size).toBe(0);
    lease[Symbol.dispose]();
    expect(ledger.rows.get("a|1")).toEqual({ ram: 500, "cuda:0": 7 });
    peakBytes = 800;
    await at.supervisor.unload({ all: true });

    expect(ledger.rows.get("a|1")).toEqual({ ram: 800, "cuda:0": 7 });
  });

  test("memory: what a GPU's driver tells is asked once a load, and only of workers on a GPU", async () => {
    const ledger = fakeLedger();
    const asked: number[] = [];
    const measureDevices = (pid: number): Promise<Demand> => {
      asked.push(pid);
      return Promise.resolve({ "cuda:0": 900 });
    };
    await using at = await setUp({}, { ledger, measure: oneByte, measureDevices });
    const demand = { ram: 10, "cuda:0": 7, "cuda:1": 8 };

    (await at.acquire("cpu"))[Symbol.dispose]();
    (await at.acquire("gpu", { demand, ledgerKey: "g" }))[Symbol.dispose]();
    await eventually(() => at.supervisor.list()[1]?.demand["cuda:0"] === 900);
    await at.supervisor.unload({ all: true });

    expect(asked).toHaveLength(1);
    expect(ledger.rows.get("g")).toEqual({ ram: 1, "cuda:0": 900, "cuda:1": 8 });
  });

  test("memory: a driver that fails changes nothing", async () => {
    await using at = await setUp({}, { measure: oneByte, measureDevices: noDriver });
    const demand = { "cuda:0": 7 };

    using _lease = await at.acquire("gpu", { demand });

    expect(at.supervisor.list()).toMatchObject([{ demand: { "cuda:0": 7 } }]);
  });

  test("memory: a ledger that cannot be written and a process that cannot be measured harm nobody", async () => {
    const ledger = {
      record: () => {
        throw new Error("disk full");
      },
    };
    await using at = await setUp(
      {},
      {
        ledger,
        measure: () => ({ residentBytes: 1, peakBytes: 1 }),
      },
    );
    await using other = await setUp({}, { measure: () => undefined });

    (await at.acquire("a", { ledgerKey: "k" }))[Symbol.dispose]();
    (await other.acquire("a", { ledgerKey: "k" }))[Symbol.dispose]();

    expect(other.supervisor.list()).toMatchObject([{ measured: null, demand: { ram: 1000 } }]);
  });
});

describe("Supervisor: an engine out of memory", () => {
  const backend = fakeBackend({
    explainExit: ({ stderrTail }) => ({
      reason: stderrTail.includes("OOM") ? "not enough memory" : "other",
      isOutOfMemory: stderrTail.includes("OOM"),
    }),
  });

  test("oom: it is tried once more when room was made, and both say why", async () => {
    await using at = await setUp(
      {},
      { backends: [backend], readBudget: () => Promise.resolve({ ram: 5000 }) },
    );
    const events: RuntimeEvent[] = [];
    at.supervisor.events.subscribe((event) => events.push(event));
    (await at.acquire("idle"))[Symbol.dispose]();

    const failure = await failureOf(at.acquire("a", { flags: ["--stderr=OOM", "--exit=1"] }));

    expect(failure).toMatchObject({
      code: "insufficient_memory",
      message: "cannot load `a`: not enough memory",
    });
    const loads = events.filter(({ kind }) => kind === "loading");
    expect(loads).toMatchObject([
      { worker: { modelName: "idle" }, reason: "request" },
      { worker: { modelName: "a" }, reason: "request" },
      { worker: { modelName: "a" }, reason: "retry" },
    ]);
  });
});
