import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rpc } from "../../backends/llamacpp/rpc.ts";
import type { AppError } from "../../src/errors.ts";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import { createPlanner } from "../../src/runtime/planner.ts";
import {
  assertAnswering,
  claimRemotes,
  RemoteDevices,
  remotesOf,
} from "../../src/runtime/remote-devices.ts";
import { planKey } from "../../src/runtime/worker-key.ts";
import { ENGINE, fakePlannerDeps, GIB, RAM, shapedModel } from "../fakes/planner.ts";
import { freePort } from "../helpers/free-port.ts";
import { rejection } from "../server/fake-deps.ts";

/** Closes what connects, as a server does that is free. */
function freeServer() {
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => void socket.end() },
  });
  return { address: `127.0.0.1:${server.port}`, [Symbol.dispose]: () => server.stop(true) };
}

/** Says what an engine says of the devices of a server, and notes that it was asked. */
function engineSaying(text: string) {
  const asked = join(directory, "asked");
  const script = `echo once >> '${asked}'; printf '%s' '${text}'`;
  return {
    command: ["/bin/sh", "-c", script, "engine"],
    timesAsked: async () =>
      (
        await Bun.file(asked)
          .text()
          .catch(() => "")
      ).split("\n").length - 1,
  };
}

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tug-remotes-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function failure(promise: Promise<unknown>): Promise<AppError> {
  return (await rejection(promise)) as AppError;
}

const NOBODY: ReadonlySet<string> = new Set();
const OFFER = "  RPC0: a:1 (9000 MiB, 8192 MiB free)\n";

describe("servers as devices", () => {
  test("one that is free is asked once, and remembered until it may have changed", async () => {
    using server = freeServer();
    const engine = engineSaying(OFFER);
    let nowMs = 0;
    const remotes = new RemoteDevices({
      servers: [server.address],
      backend: { rpc },
      activeEngine: () => Promise.resolve(engine),
      env: process.env,
      now: () => nowMs,
    });
    const id = `rpc:${server.address}`;

    const [[device]] = await Promise.all([remotes.read(NOBODY), remotes.read(NOBODY)]);
    expect(device).toMatchObject({ id, kind: "rpc", totalBytes: 8 * GIB, freeBytes: null });
    expect(device?.problem).toBeUndefined();
    expect(await engine.timesAsked()).toBe(1);

    nowMs = 600_000;
    await remotes.read(new Set([id]));
    expect(await engine.timesAsked()).toBe(1);
    await remotes.read(NOBODY);
    expect(await engine.timesAsked()).toBe(2);
  });

  test("one that is not there, or offers nothing, has a problem, and is asked again soon", async () => {
    using server = freeServer();
    const engine = engineSaying("Available devices:\n");
    const gone = `127.0.0.1:${await freePort()}`;
    let nowMs = 0;
    const remotes = new RemoteDevices({
      servers: [gone, server.address],
      backend: { rpc },
      activeEngine: () => Promise.resolve(engine),
      env: process.env,
      now: () => nowMs,
    });

    const devices = await remotes.read(NOBODY);
    expect(devices.map(({ problem }) => problem)).toEqual(["does not answer", "offers no device"]);
    await remotes.read(NOBODY);
    expect(await engine.timesAsked()).toBe(1);
    nowMs = 3000;
    await remotes.read(NOBODY);
    expect(await engine.timesAsked()).toBe(2);
  });

  test("nobody is asked without an engine, nor without servers", async () => {
    const base = { backend: { rpc }, env: process.env, activeEngine: async () => undefined };
    const unknown = new RemoteDevices({ ...base, servers: ["192.0.2.7:1"] });

    expect(await unknown.read(NOBODY)).toMatchObject([{ totalBytes: 0, kind: "rpc" }]);
    expect(await new RemoteDevices({ ...base, servers: [] }).read(NOBODY)).toEqual([]);
  });

  test("whoever uses one claims all of it", () => {
    const device: Device = {
      id: "rpc:a:1",
      kind: "rpc",
      name: null,
      totalBytes: 8 * GIB,
      freeBytes: null,
    };

    expect(remotesOf([RAM, device])).toEqual(["a:1"]);
    expect(remotesOf([RAM])).toBeUndefined();
    expect(claimRemotes({ ram: 1, "rpc:a:1": 2 }, [RAM, device], { "rpc:a:1": 7 })).toEqual({
      ram: 1,
      "rpc:a:1": 7,
    });
    expect(claimRemotes({ ram: 1 }, [RAM], {})).toEqual({ ram: 1 });
  });

  test("before a load each is asked whether it answers", async () => {
    using server = freeServer();
    const gone = `127.0.0.1:${await freePort()}`;
    const { signal } = new AbortController();

    await assertAnswering("m", [server.address], signal);
    await assertAnswering("m", undefined, signal);
    const error = await failure(assertAnswering("m", [server.address, gone], signal));
    expect(error.code).toBe("worker_failed");
    expect(error.message).toBe(`cannot load \`m\`: the RPC server ${gone} does not answer`);
    expect(error.hint).toContain("tug rpc serve");
  });
});

describe("a plan over several machines", () => {
  const server: Device = {
    id: "rpc:192.0.2.7:50052",
    kind: "rpc",
    name: null,
    totalBytes: 80 * GIB,
    freeBytes: null,
  };
  const model = shapedModel("m");
  const planner = (devices: readonly Device[] = [RAM, server]) =>
    createPlanner(
      fakePlannerDeps(directory, {
        readDevices: () => Promise.resolve(devices),
        config: {
          contextSize: { value: 4096, source: "default" },
          keepAliveMs: { value: 1, source: "default" },
          rpcServers: { value: ["192.0.2.7:50052"], source: "config.toml" },
        },
      }),
    );

  test("names the server, claims it whole, and is a worker of its own", async () => {
    const plan = await planner().plan({ model, mode: "completion" });
    const alone = await planner([RAM]).plan({ model, mode: "completion" });

    expect(plan.settings.remotes).toEqual(["192.0.2.7:50052"]);
    expect(plan.demand["rpc:192.0.2.7:50052"]).toBe(80 * GIB * 0.9 - GIB / 2);
    expect(plan.demand["ram"]).toBeLessThan(alone.demand["ram"] ?? 0);
    expect(plan.explained).toContainEqual({
      name: "rpc_servers",
      value: "192.0.2.7:50052",
      source: "config.toml",
    });
    expect(planKey(plan)).not.toBe(planKey(alone));
    expect(alone.settings).not.toHaveProperty("remotes");
  });

  test("a model that does not fit here fits there", async () => {
    const large = shapedModel("large", { shape: { weightBytes: 65 * GIB } });
    const request = { model: large, mode: "completion" } as const;

    expect((await planner([RAM]).examine(request)).largestContext).toBeNull();
    expect((await planner().examine(request)).largestContext).toBeGreaterThan(4000);
  });

  test.each([
    ["embedding", {}],
    ["completion", { gpu_layers: 0 }],
    ["completion", { runtime_flags: ["--device", "CUDA0"] }],
  ] as const)("%s with %j stays on this machine", async (mode, request) => {
    const plan = await planner().plan({ model, mode, request });

    expect(plan.settings).not.toHaveProperty("remotes");
    expect(Object.keys(plan.demand)).toEqual(["ram"]);
  });

  test("what was measured replaces none of the claim", async () => {
    const deps = fakePlannerDeps(directory, {
      readDevices: () => Promise.resolve([RAM, server]),
    });
    const planning = createPlanner(deps);
    const before = await planning.plan({ model, mode: "completion" });
    deps.ledger.record(before.ledgerKey ?? "", { ram: GIB });

    const cached = await planning.plan({ model, mode: "completion" });
    const { plan, measured } = await planning.examine({ model, mode: "completion" });

    expect(cached.demand["rpc:192.0.2.7:50052"]).toBe(before.demand["rpc:192.0.2.7:50052"] ?? 0);
    expect(plan.demand["rpc:192.0.2.7:50052"]).toBe(before.demand["rpc:192.0.2.7:50052"] ?? 0);
    expect(measured).toEqual({ ram: GIB });
  });

  test("a server that cannot be used is named instead of memory that would be missing", async () => {
    const broken = { ...server, totalBytes: 0, problem: "is serving somebody else" };

    const error = await failure(planner([RAM, broken]).plan({ model, mode: "completion" }));
    expect(error.message).toBe(
      "cannot load `m`: the RPC server 192.0.2.7:50052 is serving somebody else",
    );
    expect(await planner([RAM, broken]).plan({ model, mode: "embedding" })).toBeDefined();
  });

  test("an engine of another kind sees no servers", async () => {
    expect(ENGINE.backend).toBe("llama.cpp");
    const plan = await planner().plan({ model, mode: "reranking" });

    expect(plan.settings).not.toHaveProperty("remotes");
  });
});
