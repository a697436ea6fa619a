import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { DRAIN_MS, drainModel } from "../../src/server/drain-model.ts";
import { FakeClock } from "../fakes/clock.ts";
import { rejection } from "./fake-deps.ts";

interface Drain {
  readonly force: boolean | undefined;
  readonly signal: AbortSignal;
}

/** Drains that finish when they are told to, or at once by force. */
function fakeSupervisor() {
  const drains: Drain[] = [];
  const finished = Promise.withResolvers<void>();
  return {
    drains,
    finish: finished.resolve,
    drain(
      _: string,
      { signal, force }: { readonly signal: AbortSignal; readonly force?: boolean },
    ): Promise<Disposable> {
      drains.push({ force, signal });
      const done = { [Symbol.dispose]: () => undefined };
      if (force === true) return Promise.resolve(done);
      const { promise, reject } = Promise.withResolvers<never>();
      const cancel = (): void => reject(new AppError("cancelled", "cancelled"));
      signal.addEventListener("abort", cancel, { once: true });
      if (signal.aborted) cancel();
      return Promise.race([finished.promise.then(() => done), promise]);
    },
  };
}

describe("drainModel", () => {
  const { signal } = new AbortController();

  test("waits for what is being answered", async () => {
    const supervisor = fakeSupervisor();
    const clock = new FakeClock();

    const drained = drainModel(supervisor, "sha256:1", { signal, clock });
    clock.advance(DRAIN_MS - 1);
    supervisor.finish();
    using _allowed = await drained;

    expect(supervisor.drains.map(({ force }) => force)).toEqual([undefined]);
    expect(clock.pending).toBe(0);
  });

  test("cuts off what has not finished within the bound", async () => {
    const supervisor = fakeSupervisor();
    const clock = new FakeClock();

    const drained = drainModel(supervisor, "sha256:1", { signal, clock });
    clock.advance(DRAIN_MS);
    using _allowed = await drained;

    expect(supervisor.drains.map(({ force }) => force)).toEqual([undefined, true]);
  });

  test("gives up when its caller does", async () => {
    const supervisor = fakeSupervisor();
    const caller = new AbortController();
    const clock = new FakeClock();

    const drained = rejection(drainModel(supervisor, "sha256:1", { signal: caller.signal, clock }));
    caller.abort();

    expect(await drained).toMatchObject({ code: "cancelled" });
    expect(supervisor.drains).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });
});
