import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { startPreload } from "../../src/server/preload.ts";
import { countedLease, fakeDeps, fakeRuntime, runnable } from "./fake-deps.ts";

describe("startPreload", () => {
  test("loads models in order, and one that fails does not keep the others", async () => {
    const order: string[] = [];
    const runtime = fakeRuntime({
      async acquire({ plan, reason }) {
        order.push(`${plan.model.name} ${reason}`);
        await Promise.resolve();
        if (plan.model.name === "broken") throw new AppError("worker_failed", "it is broken");
        return countedLease("/nowhere.sock");
      },
    });
    const deps = fakeDeps({
      runtime,
      resolve: (name) =>
        name === "unknown"
          ? Promise.reject(new AppError("model_not_found", "no"))
          : Promise.resolve({ ...runnable(), name }),
    });

    await startPreload(deps, ["a", "unknown", "broken", "b"], new AbortController().signal);

    expect(order).toEqual(["a preload", "broken preload", "b preload"]);
  });

  test("releases what it has loaded, and may name files", async () => {
    const runtime = fakeRuntime({});
    const trusted: boolean[] = [];
    const deps = fakeDeps({
      runtime,
      resolve: (_, options) => {
        trusted.push(options.trusted);
        return Promise.resolve(runnable());
      },
    });

    await startPreload(deps, ["/m.gguf"], new AbortController().signal);

    expect(runtime.leases.map(({ releases }) => releases)).toEqual([1]);
    expect(trusted).toEqual([true]);
  });

  test.each(["cancelled", "shutting_down"] as const)(
    "ends when the runner does (%s)",
    async (code) => {
      const leaving = new AbortController();
      const runtime = fakeRuntime({
        acquire() {
          if (code === "cancelled") leaving.abort();
          return Promise.reject(new AppError(code, "leaving"));
        },
      });

      await startPreload(fakeDeps({ runtime }), ["pebble", "pebble"], leaving.signal);

      expect(runtime.acquired).toHaveLength(1);
    },
  );
});
