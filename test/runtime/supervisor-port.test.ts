import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";

import { engineTarget } from "../../src/runtime/engine-address.ts";
import type { Lease } from "../../src/runtime/lease.ts";
import { fakeBackend } from "../fakes/backend.ts";
import { failureOf, onlyPid, setUp, type Supervised } from "../fakes/supervised.ts";

/** Of engines that listen on a port of 127.0.0.1. */
function setUpPorts(): Promise<Supervised> {
  return setUp({}, { backends: [fakeBackend({ listensOn: "port" })] });
}

async function statusOf({ address }: Lease): Promise<number> {
  const { url, init } = engineTarget(address, "/health");
  return (await fetch(url, { ...init, keepalive: false })).status;
}

describe("Supervisor: engines on ports", () => {
  test("port: a lease reaches its engine, and the snapshot says what it shares", async () => {
    await using at = await setUpPorts();
    using lease = await at.acquire("a");

    expect(lease.address).toBeNumber();
    expect(await statusOf(lease)).toBe(200);
    expect(at.supervisor.list()).toMatchObject([{ address: lease.address, sharesNetwork: true }]);
  });

  test("port: two workers have two, and directories of their own", async () => {
    await using at = await setUpPorts();
    using one = await at.acquire("a");
    using other = await at.acquire("b");

    expect(one.address).not.toBe(other.address);
    expect(await Promise.all([statusOf(one), statusOf(other)])).toEqual([200, 200]);
    expect(existsSync(join(at.directory, "run", "w2"))).toBe(true);
  });

  test("port: after a crash the next request gets another worker", async () => {
    await using at = await setUpPorts();
    const lease = await at.acquire("a");

    process.kill(onlyPid(at.supervisor), "SIGKILL");
    const failure = await lease.failure();
    lease[Symbol.dispose]();
    using next = await at.acquire("a");

    expect(failure?.code).toBe("worker_failed");
    expect(next.workerId).toBe(2);
    expect(await statusOf(next)).toBe(200);
  });

  test("port: an engine that exits at once says why", async () => {
    await using at = await setUpPorts();
    const flags = ["--stderr=Address already in use", "--exit=3"];

    const failure = await failureOf(at.acquire("a", { settings: { runtimeFlags: flags } }));

    expect(failure.message).toContain("Address already in use");
  });

  test("port: a worker that is unloaded leaves nothing", async () => {
    await using at = await setUpPorts();
    (await at.acquire("a"))[Symbol.dispose]();

    await at.supervisor.unload({ all: true, wait: true });

    expect(at.supervisor.list()).toEqual([]);
    expect(existsSync(join(at.directory, "run", "w1"))).toBe(false);
  });
});
