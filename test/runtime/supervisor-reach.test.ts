import { describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";

import type { RuntimeEvent } from "../../src/runtime/events.ts";
import { readStartTime } from "../../src/runtime/process-identity.ts";
import { fakeBackend, fakeInstallation, fakeModel } from "../fakes/backend.ts";
import { failureOf, onlyPid, setUp, socketOf } from "../fakes/supervised.ts";
import { eventually } from "../helpers/eventually.ts";
import { isWindows, testIf } from "../helpers/test-if.ts";

const posix = testIf(!isWindows, "Windows has no such signal");

function stop(pid: number): void {
  process.kill(pid, "SIGSTOP");
}

describe("Supervisor: engines that do not answer", () => {
  posix("silence: an engine that was stopped is ended after a minute, with a reason", async () => {
    await using at = await setUp({ healthMs: 100 });
    using lease = await at.acquire("a");
    const pid = onlyPid(at.supervisor);
    const broken = fetch("http://engine/slow", { unix: socketOf(lease), keepalive: false }).catch(
      () => "broken",
    );
    lease.watch();
    stop(pid);

    at.clock.advance(59_999);
    expect(at.clock.pending).toBe(1);
    at.clock.advance(1);

    await eventually(() => !lease.isAlive);
    expect(await lease.failure()).toMatchObject({
      code: "worker_failed",
      message: "cannot serve `a`: fake stopped responding and was ended",
    });
    expect(await broken).toBe("broken");
    await eventually(() => readStartTime(pid) === undefined);
    using next = await at.acquire("a");
    expect(next.workerId).toBe(2);
  });

  test("silence: an engine that thinks for long and answers after its health is left alone", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");
    lease.watch();

    at.clock.advance(60_000);
    await eventually(() => at.clock.pending === 1);
    at.clock.advance(60_000);
    await eventually(() => at.clock.pending === 1);

    expect(lease.isAlive).toBe(true);
  });

  posix("silence: bytes start the minute again, and no timer outlives the lease", async () => {
    await using at = await setUp({ healthMs: 50 });
    const lease = await at.acquire("a");
    stop(onlyPid(at.supervisor));
    const watch = lease.watch();

    at.clock.advance(40_000);
    watch.heard();
    at.clock.advance(20_000);
    expect([at.clock.pending, lease.isAlive]).toEqual([1, true]);
    lease[Symbol.dispose]();

    // The keep-alive of the worker.
    expect(at.clock.pending).toBe(1);
    process.kill(onlyPid(at.supervisor), "SIGCONT");
  });

  posix(
    "silence: while it loads, a stopped engine is given up as one without progress",
    async () => {
      await using at = await setUp({ stallMs: 200 });
      const failing = failureOf(at.acquire("a", { flags: ["--ready-file=/nowhere/at/all"] }));
      await eventually(() => at.supervisor.list()[0]?.pid);
      const pid = onlyPid(at.supervisor);
      stop(pid);

      expect((await failing).message).toBe("cannot load `a`: fake made no progress for 0.2 s");
      await eventually(() => readStartTime(pid) === undefined);
    },
  );
});

describe("Supervisor: after the machine slept", () => {
  posix(
    "sleep: an engine that does not answer any more is replaced before it is leased",
    async () => {
      let hasSlept = false;
      let reads = 0;
      await using at = await setUp(
        { wakeHealthMs: 100 },
        {
          sleepDetector: { check: () => hasSlept },
          readBudget: () => Promise.resolve({ ram: 5000 + ++reads }),
        },
      );
      (await at.acquire("a"))[Symbol.dispose]();
      stop(onlyPid(at.supervisor));
      hasSlept = true;

      const acquiring = Promise.all([at.acquire("a"), at.acquire("a")]);
      hasSlept = false;
      const leases = await acquiring;

      expect(leases.map(({ workerId }) => workerId)).toEqual([2, 2]);
      expect(reads).toBe(2);
      for (const lease of leases) lease[Symbol.dispose]();
    },
  );

  test("sleep: one that answers stays, and is asked once", async () => {
    let sleeps = 1;
    await using at = await setUp({}, { sleepDetector: { check: () => sleeps-- > 0 } });
    (await at.acquire("a"))[Symbol.dispose]();
    sleeps = 1;

    using lease = await at.acquire("a");
    using again = await at.acquire("a");

    expect([lease.workerId, again.workerId]).toEqual([1, 1]);
  });
});

describe("Supervisor: things that are gone", () => {
  posix(
    "gone: a socket that was removed is a reason, and the next request gets a new worker",
    async () => {
      await using at = await setUp();
      using lease = await at.acquire("a");
      await rm(socketOf(lease));

      const failure = await lease.failure();
      using next = await at.acquire("a");

      expect(failure?.message).toBe(
        `cannot serve \`a\`: its engine's socket \`${socketOf(lease)}\` is gone`,
      );
      expect(next.workerId).toBe(2);
    },
  );

  posix(
    "gone: a socket that was removed while its worker was idle is noticed before it is leased",
    async () => {
      await using at = await setUp();
      const lease = await at.acquire("a");
      lease[Symbol.dispose]();
      await rm(socketOf(lease));

      using next = await at.acquire("a");

      expect(next.workerId).toBe(2);
      expect((await fetch("http://engine/health", { unix: socketOf(next) })).status).toBe(200);
    },
  );

  test("gone: a model file is named", async () => {
    await using at = await setUp();
    const path = join(at.directory, "model.gguf");

    const failure = await failureOf(at.acquire(fakeModel("a", { path })));

    expect(failure).toMatchObject({
      code: "model_not_found",
      message: `cannot load \`a\`: its file \`${path}\` is gone`,
    });
    expect(failure.hint).toBeString();
  });

  test("gone: a shard in the middle, an adapter and the engine's own file are named", async () => {
    const gone = { ...fakeInstallation(), command: [process.execPath, "/no/such/lib.so"] };
    await using at = await setUp();
    await using broken = await setUp(
      {},
      { installer: { ensure: () => Promise.resolve(gone), active: () => Promise.resolve(gone) } },
    );
    const shard = (index: number): string => join(at.directory, `m-0000${index}-of-00003.gguf`);
    for (const index of [1, 3]) await Bun.write(shard(index), "x");

    const failures = await Promise.all([
      failureOf(at.acquire(fakeModel("a", { path: shard(1) }))),
      failureOf(
        at.acquire("b", { settings: { runtimeFlags: [], adapters: ["/no/adapter.gguf"] } }),
      ),
      failureOf(broken.acquire("c")),
    ]);

    expect(failures.map(({ message }) => message)).toEqual([
      `cannot load \`a\`: its file \`${shard(2)}\` is gone`,
      "cannot load `b`: its file `/no/adapter.gguf` is gone",
      "cannot load `c`: fake's program `/no/such/lib.so` cannot be executed",
    ]);
  });

  test("gone: an engine that this Tug does not have", async () => {
    await using at = await setUp();

    expect((await failureOf(at.acquire("a", { backend: "other" }))).code).toBe("backend_not_found");
    expect(at.supervisor.busy).toBe(false);
  });

  test("gone: a socket path that no system takes is refused by its length", async () => {
    await using at = await setUp();
    await using deep = await setUp({}, { runDirectory: join(at.directory, "x".repeat(100)) });

    const failure = await failureOf(deep.acquire("a"));

    expect(failure.message).toMatch(
      /^cannot listen on `.*e\.sock`: its path is longer than \d+ bytes$/,
    );
    expect(failure.hint).toContain("TUG_HOME");
  });
});

describe("Supervisor: settings read back", () => {
  const backend = fakeBackend({
    report: async (ask) => (await ask("/props")) as Readonly<Record<string, unknown>>,
  });

  test("report: what the engine says is known with the first lease, and a difference is kept", async () => {
    await using at = await setUp({}, { backends: [backend] });
    const props = JSON.stringify({ context_size: 512, parallel: 4 });
    const settings = { contextTokens: 2048, parallel: 4, runtimeFlags: [`--props=${props}`] };

    using lease = await at.acquire("a", { settings });

    expect(lease.report).toEqual({ context_size: 512, parallel: 4 });
    expect(lease.plan.settings).toEqual(settings);
    expect(at.supervisor.list()).toMatchObject([
      {
        contextTokens: 512,
        slots: 4,
        report: { context_size: 512 },
        mismatches: [{ name: "context_size", wanted: 2048, actual: 512 }],
      },
    ]);
  });

  test("report: an engine that answers nonsense is served without a report", async () => {
    await using at = await setUp({}, { backends: [backend] });
    const settings = { runtimeFlags: ["--props=not json"], parallel: 3 };

    using lease = await at.acquire("a", { settings });

    expect(lease.report).toBeUndefined();
    expect(at.supervisor.list()).toMatchObject([
      { slots: 3, contextTokens: null, mismatches: [], report: null },
    ]);
  });
});

describe("Supervisor: what is told", () => {
  test("events: a request that loads, waits, is served and ends, in this order", async () => {
    await using at = await setUp();
    const events: RuntimeEvent[] = [];
    at.supervisor.events.subscribe((event) => events.push(event));

    (await at.acquire("a", { reason: "preload" }))[Symbol.dispose]();
    await at.supervisor.unload({ all: true });
    await failureOf(at.acquire("b", { flags: ["--exit=1"] }));

    expect(events.map(({ kind }) => kind).join(" ")).toBe(
      "queued loading progress ready granted released stopping exited " +
        "queued loading progress exited refused",
    );
    const worker = { workerId: 1, backend: "fake", modelName: "a", mode: "completion" };
    expect(events[1]).toMatchObject({ reason: "preload", worker });
    expect(events[6]).toMatchObject({ reason: "unloaded", worker });
    expect(events[7]).not.toHaveProperty("code");
    expect(events[11]).toMatchObject({ code: "worker_failed", worker: { workerId: 2 } });
    expect(events[12]).toMatchObject({ code: "worker_failed", modelName: "b" });
  });

  test("progress: who listens while a model loads sees its bytes, and nobody else costs a timer", async () => {
    let residentBytes = 0;
    await using at = await setUp(
      {},
      { measure: () => ({ residentBytes, peakBytes: residentBytes }) },
    );
    const readyFile = join(at.directory, "ready");
    const flags = [`--ready-file=${readyFile}`];
    const seen: (number | null)[] = [];
    const silent = at.acquire("a", { flags });
    await eventually(() => at.supervisor.list()[0]?.pid);
    expect(at.clock.pending).toBe(0);

    const listening = at.acquire("a", {
      flags,
      onProgress: (event) => event.type === "progress" && seen.push(event.done_bytes),
    });
    residentBytes = 300;
    expect(at.supervisor.list()).toMatchObject([
      { progress: { phase: "loading", doneBytes: 300, totalBytes: 1000 } },
    ]);
    await eventually(() => at.clock.pending === 1);
    at.clock.advance(500);
    residentBytes = 5000;
    at.clock.advance(500);
    await Bun.write(readyFile, "");
    const leases = await Promise.all([silent, listening]);

    expect(seen).toEqual([null, 300, 1000]);
    expect(at.clock.pending).toBe(0);
    expect(at.supervisor.list()).toMatchObject([{ progress: null }]);
    for (const lease of leases) lease[Symbol.dispose]();
  });
});
