import { describe, expect, test } from "bun:test";
import type { Listening } from "../../src/server/listen.ts";
import { RunningRunner } from "../../src/server/runner.ts";

interface Rig {
  readonly runner: RunningRunner;
  readonly calls: string[];
  readonly setIdle: (isIdle: boolean) => void;
  pending: number;
}

function rig(options: { idleExitMs: number | null; busy?: boolean }): Rig {
  const calls: string[] = [];
  const listeners: ((idle: boolean) => void)[] = [];
  const state = { pending: 0 };
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
    logFile: "/nonexistent",
    idleExitMs: options.idleExitMs,
  });
  const listening: Listening = {
    endpoint: "http://127.0.0.1:1",
    endpointProblem: Promise.resolve(null),
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
    const { runner, calls } = rig({ idleExitMs: 20 });

    await runner.closed;

    expect(calls).toEqual(["close 60000", "unlisten"]);
  });

  test("stays while a worker is loaded, and leaves after it", async () => {
    const { runner, calls, setIdle } = rig({ idleExitMs: 20, busy: true });
    await Bun.sleep(60); // three times the bound: it would have left
    const whileBusy = [...calls];

    setIdle(true);
    await runner.closed;

    expect(whileBusy).toEqual([]);
    expect(calls).toHaveLength(2);
  });

  test("stays while a request is served without a worker", async () => {
    const it = rig({ idleExitMs: 20 });
    it.pending = 1;
    await Bun.sleep(60); // three times the bound: it would have left
    const whileServing = [...it.calls];

    it.pending = 0;
    await it.runner.closed;

    expect(whileServing).toEqual([]);
  });

  test("a patient stop can be cut short, and a stop comes once", async () => {
    const { runner, calls } = rig({ idleExitMs: null });

    runner.stop({ force: false });
    runner.stop({ force: false });
    runner.stop({ force: true });
    await runner.closed;

    expect(calls.filter((call) => call.startsWith("close"))).toEqual(["close 60000", "close 0"]);
  });
});
