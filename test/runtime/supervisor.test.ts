import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { AppError } from "../../src/errors.ts";
import type { Installation, RunnableModel } from "../../src/runtime/backend.ts";
import { readStartTime } from "../../src/runtime/process-identity.ts";
import type { UnloadFilter } from "../../src/runtime/supervisor.ts";
import { fakeBackend, fakeInstallation, fakeModel } from "../fakes/backend.ts";
import { failureOf, onlyPid, setUp, socketOf } from "../fakes/supervised.ts";
import { eventually } from "../helpers/eventually.ts";

function refuse(): never {
  throw new Error("disk full");
}

/** Slots for all of them. */
const MANY = { settings: { runtimeFlags: [], parallel: 20 } };

function never(): Promise<never> {
  return Promise.withResolvers<never>().promise;
}

describe("Supervisor: loading", () => {
  test("supervisor: a lease leads to an engine that answers", async () => {
    await using at = await setUp();

    using lease = await at.acquire("a");
    const response = await fetch("http://engine/health", { unix: socketOf(lease) });

    expect(await response.text()).toBe("ok");
    expect(lease).toMatchObject({ backend: "fake", modelName: "a", workerId: 1 });
    for (const directory of [join(at.directory, "run"), dirname(socketOf(lease))])
      expect((await stat(directory)).mode & 0o777).toBe(0o700);
  });

  test("supervisor: a loaded model is leased at once and shared, also under another name", async () => {
    await using at = await setUp();
    const alias = { ...fakeModel("a"), name: "alias" };

    using first = await at.acquire("a");
    using second = await at.acquire(alias);

    expect(second.workerId).toBe(first.workerId);
    expect(at.supervisor.list()).toMatchObject([{ modelName: "a", inUse: 2, state: "ready" }]);
  });

  test("supervisor: other settings are another worker", async () => {
    await using at = await setUp();

    using first = await at.acquire("a");
    using second = await at.acquire("a", { flags: ["--stderr=x"] });

    expect(second.workerId).not.toBe(first.workerId);
  });

  test("supervisor: twenty callers at once share one load", async () => {
    await using at = await setUp();

    const leases = await Promise.all(Array.from({ length: 20 }, () => at.acquire("a", MANY)));

    expect(new Set(leases.map(({ workerId }) => workerId))).toEqual(new Set([1]));
    expect(at.supervisor.list()).toMatchObject([{ inUse: 20 }]);
    for (const lease of leases) lease[Symbol.dispose]();
    expect(at.supervisor.list()).toMatchObject([{ inUse: 0 }]);
  });

  test("supervisor: the caller that started a load may leave, the others get it", async () => {
    await using at = await setUp();
    const readyFile = join(at.directory, "ready");
    const flags = [`--ready-file=${readyFile}`];
    const first = new AbortController();

    const leaving = failureOf(at.acquire("a", { flags, signal: first.signal }));
    const staying = at.acquire("a", { flags });
    await eventually(() => at.supervisor.list()[0]?.pid);
    first.abort();
    expect((await leaving).code).toBe("cancelled");
    await writeFile(readyFile, "");

    using lease = await staying;
    expect(lease.workerId).toBe(1);
  });

  test("supervisor: a load goes on when nobody waits for it any more", async () => {
    await using at = await setUp();
    const readyFile = join(at.directory, "ready");
    const flags = [`--ready-file=${readyFile}`];
    const caller = new AbortController();

    const leaving = failureOf(at.acquire("a", { flags, signal: caller.signal }));
    await eventually(() => at.supervisor.list()[0]?.pid);
    caller.abort();
    await leaving;
    await writeFile(readyFile, "");

    await eventually(() => at.supervisor.list()[0]?.state === "ready");
    expect(at.supervisor.list()).toMatchObject([{ inUse: 0, lastUsed: null }]);
  });

  test("supervisor: progress of installing and loading reaches every caller that waits", async () => {
    const installing = {
      type: "progress",
      id: "fake",
      phase: "installing",
      done_bytes: 1,
      total_bytes: 2,
    } as const;
    await using at = await setUp(
      {},
      {
        installer: {
          active: () => Promise.resolve(undefined),
          ensure: (_name, { onProgress }): Promise<Installation> => {
            onProgress(installing);
            return Promise.resolve(fakeInstallation());
          },
        },
      },
    );
    const seen: string[][] = [[], []];
    const listen = (who: number) => (event: { type: string; phase?: string }) =>
      void seen[who]?.push(event.phase ?? event.type);

    const leases = await Promise.all(
      [0, 1].map((who) => at.acquire("a", { onProgress: listen(who) })),
    );

    expect(leases).toHaveLength(2);
    expect(seen).toEqual([
      ["installing", "loading"],
      ["installing", "loading"],
    ]);
  });

  test("supervisor: a stale file where the socket goes does no harm", async () => {
    await using at = await setUp();
    using _first = await at.acquire("a");
    await mkdir(join(at.directory, "run", "w2"));
    await writeFile(join(at.directory, "run", "w2", "e.sock"), "stale");

    using lease = await at.acquire("b");

    expect((await fetch("http://engine/health", { unix: socketOf(lease) })).status).toBe(200);
  });

  test("supervisor: engines run without the variables of Bun, in their own directory", async () => {
    await using at = await setUp();
    process.env["BUN_TUG_TEST"] = "1";

    using lease = await at.acquire("a");
    const env = (await (
      await fetch("http://engine/env", { unix: socketOf(lease) })
    ).json()) as Record<string, string>;
    delete process.env["BUN_TUG_TEST"];

    expect(Object.keys(env).filter((name) => name.startsWith("BUN_"))).toEqual([]);
    expect(env["FAKE_ENGINE"]).toBe("yes");
    expect(env["PATH"]).toBe(process.env["PATH"] as string);
  });
});

describe("Supervisor: failures", () => {
  test("supervisor: an engine that exits before it is ready gives its reason to all who wait", async () => {
    await using at = await setUp();
    const flags = ["--stderr=bad magic", "--exit=1"];

    const failures = await Promise.all([
      failureOf(at.acquire("a", { flags })),
      failureOf(at.acquire("a", { flags })),
    ]);

    expect(failures.map(({ code }) => code)).toEqual(["worker_failed", "worker_failed"]);
    expect(failures[0]?.message).toBe("cannot load `a`: fake exited with 1: bad magic");
    expect(failures[0]?.details).toMatchObject({ backend: "fake", exit_code: 1, signal: null });
    const [header, ...lines] = (
      await readFile(join(at.directory, "logs", "worker-1.log"), "utf8")
    ).split("\n");
    expect(header).toMatch(/^# \{"time":"[^"]+","model":"a",.*"backend":"fake","pid":\d+\}$/);
    expect(lines).toEqual([expect.stringMatching(/^\[.+Z\] bad magic$/), ""]);
    await eventually(() => at.supervisor.list().length === 0);
    expect(at.supervisor.busy).toBe(false);
  });

  test("supervisor: a crash loop is held back", async () => {
    await using at = await setUp();
    const attempt = (): Promise<AppError> => failureOf(at.acquire("a", { flags: ["--exit=1"] }));
    await attempt();
    await attempt();

    const held = await attempt();
    at.clock.advance(1000);
    const tried = await attempt();

    expect(held.details).toMatchObject({ retry_after_ms: 1000 });
    expect(tried.details).not.toHaveProperty("retry_after_ms");
  });

  test("supervisor: loading without any sign of progress is given up", async () => {
    await using at = await setUp({ stallMs: 300 });

    const failing = failureOf(at.acquire("a", { flags: ["--ready-file=/nowhere/at/all"] }));
    await eventually(() => at.supervisor.list()[0]?.pid);
    const pid = onlyPid(at.supervisor);

    expect((await failing).message).toBe("cannot load `a`: fake made no progress for 0.3 s");
    expect(readStartTime(pid)).toBeUndefined();
    expect(at.supervisor.list()).toEqual([]);
  });

  test("supervisor: a slow load that prints something is not given up", async () => {
    await using at = await setUp({ stallMs: 400 });
    const readyFile = join(at.directory, "ready");
    const startedMs = performance.now();

    const acquiring = at.acquire("a", { flags: [`--ready-file=${readyFile}`, "--dots-ms=20"] });
    await eventually(() => performance.now() - startedMs > 1000);
    await writeFile(readyFile, "");

    using lease = await acquiring;
    expect(lease.workerId).toBe(1);
  });

  test("supervisor: an engine that dies in the middle of an answer tells the caller why", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");

    const response = await fetch("http://engine/die-mid-stream", {
      unix: socketOf(lease),
      keepalive: false,
    });
    await response.text().catch(() => undefined);

    expect(await lease.failure()).toMatchObject({
      code: "worker_failed",
      message: "cannot serve `a`: fake exited with 7: out of luck",
    });
  });

  test("supervisor: after a crash the next request gets a new worker at another socket", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");
    process.kill(onlyPid(at.supervisor), "SIGKILL");
    expect((await lease.failure())?.message).toBe("cannot serve `a`: fake exited with SIGKILL: ");
    await eventually(() => at.supervisor.list().length === 0);

    using next = await at.acquire("a");

    expect(socketOf(next)).not.toBe(socketOf(lease));
    lease[Symbol.dispose]();
    expect(at.supervisor.list()).toMatchObject([{ inUse: 1 }]);
  });

  test("supervisor: a failed installation reaches the caller as it is", async () => {
    const error = new AppError("install_failed", "cannot install fake: no source answered");
    await using at = await setUp(
      {},
      {
        installer: {
          ensure: () => Promise.reject(error),
          active: () => Promise.resolve(undefined),
        },
      },
    );

    expect(await failureOf(at.acquire("a"))).toBe(error);
  });

  test("supervisor: a program that is gone is named", async () => {
    const installation = fakeInstallation({ command: ["/no/such/engine"] });
    await using at = await setUp(
      {},
      {
        installer: {
          ensure: () => Promise.resolve(installation),
          active: () => Promise.resolve(undefined),
        },
      },
    );

    const failure = await failureOf(at.acquire("a"));

    expect(failure.message).toBe(
      "cannot load `a`: fake's program `/no/such/engine` cannot be executed",
    );
    expect(failure.hint).toBeString();
  });

  test("supervisor: a record that cannot be written does not stop a worker", async () => {
    await using at = await setUp({}, { pidStore: { add: refuse, remove: refuse, list: () => [] } });

    using lease = await at.acquire("a");

    expect(lease.workerId).toBe(1);
  });

  test("supervisor: a caller that has its lease hears nothing of later loads", async () => {
    await using at = await setUp();
    const heard: string[] = [];

    (await at.acquire("a", { onProgress: ({ type }) => heard.push(type) }))[Symbol.dispose]();
    await at.supervisor.unload({ all: true });
    using _lease = await at.acquire("a");

    expect(heard).toEqual(["progress"]);
  });

  test("supervisor: a caller that cannot take its progress harms nobody", async () => {
    await using at = await setUp();

    const leases = await Promise.all([at.acquire("a", { onProgress: refuse }), at.acquire("a")]);

    expect(leases.map(({ workerId }) => workerId)).toEqual([1, 1]);
  });

  test("supervisor: close does not wait for an installation or a bundle that hangs", async () => {
    await using at = await setUp(
      {},
      {
        installer: {
          ensure: (name) => (name === "stuck" ? never() : Promise.resolve(fakeInstallation())),
          active: () => Promise.resolve(undefined),
        },
        backends: [fakeBackend(), fakeBackend({ name: "stuck" })],
      },
    );
    const failures = [
      failureOf(at.acquire("a", { backend: "stuck" })),
      failureOf(at.acquire({ ...fakeModel("b"), openBundle: never })),
    ];
    await eventually(() => at.supervisor.list().length === 2);

    await at.supervisor.close({ graceMs: 0 });

    expect((await Promise.all(failures)).map(({ code }) => code)).toEqual([
      "shutting_down",
      "shutting_down",
    ]);
  });

  test("supervisor: a bundle that comes too late is given back", async () => {
    await using at = await setUp();
    const late = Promise.withResolvers<void>();
    let disposals = 0;
    const model = fakeModel("a", { onDispose: () => (disposals += 1) });
    const openBundle: RunnableModel["openBundle"] = async (signal) => {
      await late.promise;
      return model.openBundle(signal);
    };
    const failure = failureOf(at.acquire({ ...model, openBundle }));
    await eventually(() => at.supervisor.list().length === 1);
    await at.supervisor.close({ graceMs: 0 });
    expect((await failure).code).toBe("shutting_down");

    late.resolve();

    await eventually(() => disposals === 1);
  });

  test("supervisor: an aborted request does not even begin", async () => {
    await using at = await setUp();

    const failure = await failureOf(at.acquire("a", { signal: AbortSignal.abort() }));

    expect(failure.code).toBe("cancelled");
    expect(at.supervisor.busy).toBe(false);
  });
});

describe("Supervisor: room and time", () => {
  test("supervisor: a request waits until another model has made room", async () => {
    await using at = await setUp({ maxWorkers: 1 });
    const first = await at.acquire("a");
    const phases: string[] = [];

    const waiting = at.acquire("b", {
      onProgress: (event) => "phase" in event && phases.push(event.phase),
    });
    await eventually(() => phases.length > 0);
    expect(at.supervisor.list()).toMatchObject([{ modelName: "a" }]);
    first[Symbol.dispose]();

    using second = await waiting;
    expect(second.modelName).toBe("b");
    expect(phases).toEqual(["waiting", "loading"]);
    expect(at.supervisor.list()).toMatchObject([{ modelName: "b" }]);
  });

  test("supervisor: an idle worker leaves after its keep-alive, by one timer that is set for that time", async () => {
    await using at = await setUp();
    const lease = await at.acquire("a", { keepAliveMs: 60_000 });
    expect(at.clock.pending).toBe(0);

    lease[Symbol.dispose]();
    const [idle] = at.supervisor.list();
    expect(at.clock.pending).toBe(1);
    expect(idle?.expiresAt?.getTime()).toBe(at.clock.now() + 60_000);
    at.clock.advance(60_000);

    await eventually(() => at.supervisor.list().length === 0);
    expect(at.clock.pending).toBe(0);
    expect(existsSync(socketOf(lease))).toBe(false);
  });

  test("supervisor: keep-alive 0 unloads with the last request, -1 never", async () => {
    await using at = await setUp();

    (await at.acquire("a", { keepAliveMs: 0 }))[Symbol.dispose]();
    (await at.acquire("b", { keepAliveMs: -1 }))[Symbol.dispose]();
    at.clock.advance(2 ** 40);

    await eventually(() => at.supervisor.list().length === 1);
    expect(at.supervisor.list()).toMatchObject([
      { modelName: "b", keepAliveMs: -1, expiresAt: null },
    ]);
  });

  test("supervisor: a bundle is pinned while its worker lives, and no longer", async () => {
    await using at = await setUp();
    let disposals = 0;
    const lease = await at.acquire(fakeModel("a", { onDispose: () => (disposals += 1) }));
    lease[Symbol.dispose]();
    expect(disposals).toBe(0);

    const unloaded = await at.supervisor.unload({ all: true });

    expect([unloaded.unloaded, disposals]).toEqual([1, 1]);
  });

  test("supervisor: unload goes by backend and by model", async () => {
    await using at = await setUp({ maxWorkers: 3 });
    for (const name of ["a", "b", "c"]) (await at.acquire(name))[Symbol.dispose]();
    const [a, b] = at.supervisor.list();

    const unload = async (filter: UnloadFilter): Promise<number> =>
      (await at.supervisor.unload(filter)).unloaded;

    expect(await unload({})).toBe(0);
    expect(await unload({ backend: "other", models: [a?.modelId ?? ""] })).toBe(0);
    expect(await unload({ models: [a?.modelId ?? "", b?.modelId ?? ""] })).toBe(2);
    expect(at.supervisor.list()).toMatchObject([{ modelName: "c" }]);
    expect(await unload({ backend: "fake" })).toBe(1);
  });

  test("supervisor: idleness is told when it begins and when it ends", async () => {
    await using at = await setUp();
    const told: boolean[] = [];
    const stopListening = at.supervisor.onIdleChange((idle) => void told.push(idle));

    const lease = await at.acquire("a");
    lease[Symbol.dispose]();
    await at.supervisor.unload({ all: true });
    stopListening();
    (await at.acquire("a"))[Symbol.dispose]();

    expect(told).toEqual([false, true]);
  });
});

describe("Supervisor: the end", () => {
  test("supervisor: close refuses what waits and what comes, and leaves nothing running", async () => {
    await using at = await setUp({ maxWorkers: 1 });
    using lease = await at.acquire("a");
    const pid = onlyPid(at.supervisor);
    const waiting = failureOf(at.acquire("b"));

    await at.supervisor.close({ graceMs: 0 });
    const late = failureOf(at.acquire("a"));

    expect([(await waiting).code, (await late).code]).toEqual(["shutting_down", "shutting_down"]);
    expect(readStartTime(pid)).toBeUndefined();
    expect(at.records.size).toBe(0);
    expect(existsSync(socketOf(lease))).toBe(false);
  });

  test("supervisor: close waits for requests in flight", async () => {
    await using at = await setUp();
    const lease = await at.acquire("a");

    const closing = at.supervisor.close({ graceMs: 60_000 });
    expect((await fetch("http://engine/health", { unix: socketOf(lease) })).status).toBe(200);
    lease[Symbol.dispose]();
    await closing;

    expect(at.supervisor.list()).toEqual([]);
  });

  test("supervisor: a second close without grace cuts a patient one short", async () => {
    await using at = await setUp();
    using lease = await at.acquire("a");
    const patient = at.supervisor.close({ graceMs: 60_000 });

    await at.supervisor.close({ graceMs: 0 });
    await patient;

    expect(at.supervisor.list()).toEqual([]);
    expect(existsSync(socketOf(lease))).toBe(false);
  });

  test("supervisor: close during a load ends it", async () => {
    await using at = await setUp();
    const loading = failureOf(at.acquire("a", { flags: ["--ready-file=/nowhere/at/all"] }));
    await eventually(() => at.supervisor.list()[0]?.pid);
    const pid = onlyPid(at.supervisor);

    await at.supervisor.close();

    expect((await loading).code).toBe("shutting_down");
    expect(readStartTime(pid)).toBeUndefined();
  });

  test("supervisor: an engine that ignores SIGTERM is killed with what it started", async () => {
    await using at = await setUp({ stopGraceMs: 100 });
    const pidFile = join(at.directory, "grandchild.pid");
    const flags = ["--ignore-sigterm", `--grandchild=${pidFile}`];
    (await at.acquire("a", { flags }))[Symbol.dispose]();
    const pids = [onlyPid(at.supervisor), Number(await readFile(pidFile, "utf8"))];

    await at.supervisor.unload({ all: true });

    await eventually(() => pids.every((pid) => readStartTime(pid) === undefined));
  });
});
