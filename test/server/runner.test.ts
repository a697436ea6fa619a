import { describe, expect, test } from "bun:test";
import { FakeClock } from "../fakes/clock.ts";
import type { Listening } from "../../src/server/listen.ts";
import { RunningRunner } from "../../src/server/runner.ts";

interface Rig {
  readonly runner: RunningRunner;
  readonly calls: string[];
  readonly clock: FakeClock;
  readonly setIdle: (isIdle: boolean) => void;
  pending: number;
}

function rig(options: { idleExitMs: number | null; busy?: boolean }): Rig {
  const calls: string[] = [];
  const listeners: ((idle: boolean) => void)[] = [];
  const state = { pending: 0 };
  const clock = new FakeClock();
  const runner = new RunningRunner({
    supervisor: {
      busy: options.busy ?? false,
      close: ({ graceMs }) => {
        calls.push(`close ${graceMs}`);
        return Promise.resolve();
      },
      onIdleChange: (listener) => {
        listeners.push(listener);
        return () => {};
      },
    },
    installer: { list: () => Promise.resolve([]) },
    idleExitMs: options.idleExitMs,
    clock,
  });
  const listening: Listening = {
    endpoint: "http://127.0.0.1:1",
    endpointProblem: Promise.resolve(null),
    authority: null,
    socket: "/s",
    pendingRequests: () => state.pending,
    stop: () => {
      calls.push("unlisten");
      return Promise.resolve();
    },
  };
  runner.begin(listening);
  return {
    runner,
    calls,
    clock,
    setIdle: (isIdle) => listeners.forEach((listener) => listener(isIdle)),
    get pending() {
      return state.pending;
    },
    set pending(value) {
      state.pending = value;
    },
  };
}

describe("RunningRunner", () => {
  test("leaves when it has been idle for long enough, engines first, doors last", async () => {
    const { runner, calls, clock } = rig({ idleExitMs: 1000 });
    clock.advance(999);
    const before = [...calls];

    clock.advance(1);
    await runner.closed;

    expect(before).toEqual([]);
    expect(calls).toEqual(["close 60000", "unlisten"]);
  });

  test("stays while a worker is loaded, and leaves after it", async () => {
    const { runner, calls, clock, setIdle } = rig({ idleExitMs: 1000, busy: true });
    clock.advance(5000);
    const whileBusy = [...calls];

    setIdle(true);
    clock.advance(1000);
    await runner.closed;

    expect(whileBusy).toEqual([]);
    expect(calls).toHaveLength(2);
  });

  test("stays while a request is served without a worker", async () => {
    const it = rig({ idleExitMs: 1000 });
    it.pending = 1;
    it.clock.advance(1000);
    const whileServing = [...it.calls];

    it.pending = 0;
    it.clock.advance(1000);
    await it.runner.closed;

    expect(whileServing).toEqual([]);
  });

  test("waits for ever if it was started by a person, and holds no timer", () => {
    expect(rig({ idleExitMs: null }).clock.pending).toBe(0);
  });

  test("leaves after 24 days at the latest: a longer timer would fire at once", async () => {
    const { runner, calls, clock } = rig({ idleExitMs: 30 * 86_400_000 });
    clock.advance(20 * 86_400_000);
    const before = [...calls];

    clock.advance(5 * 86_400_000);
    await runner.closed;

    expect(before).toEqual([]);
  });

  test("a patient stop can be cut short, and a stop comes once", async () => {
    const { runner, calls } = rig({ idleExitMs: null });

    runner.stop({ force: false });
    runner.stop({ force: false });
    runner.stop({ force: true });
    await runner.closed;

    expect(calls.filter((call) => call.startsWith("close"))).toEqual(["close 60000", "close 0"]);
  });

  test("lets go of those who only watch when the work is done, before the doors close", async () => {
    const it = rig({ idleExitMs: null });
    it.runner.watching.addEventListener("abort", () => it.calls.push("let go"));

    it.runner.stop({ force: false });
    await it.runner.closed;

    expect(it.calls).toEqual(["close 60000", "let go", "unlisten"]);
  });
});
