import { describe, expect, test } from "bun:test";

import { SharedTask } from "../../../src/runtime/installer/shared-task.ts";
import { failureOf } from "./failure-of.ts";

const never = new AbortController().signal;

function fail(): Promise<number> {
  return Promise.reject(new Error("no"));
}

describe("SharedTask", () => {
  test("shared task: callers share a run, and the one after it starts another", async () => {
    const task = new SharedTask<string, number>();
    let runs = 0;
    const work = (): Promise<number> => Promise.resolve((runs += 1));
    const caller = { signal: never, onProgress: () => {} };

    expect(await Promise.all([task.join(work, caller), task.join(work, { ...caller })])).toEqual([
      1, 1,
    ]);
    expect(await task.join(work, caller)).toBe(2);
  });

  test("shared task: a failure reaches every caller and is forgotten", async () => {
    const task = new SharedTask<string, number>();

    const failures = [1, 2].map(() =>
      failureOf(task.join(fail, { signal: never, onProgress: () => {} })),
    );

    expect(await Promise.all(failures)).toEqual([new Error("no"), new Error("no")]);
    expect(await task.join(() => Promise.resolve(7), { signal: never, onProgress: () => {} })).toBe(
      7,
    );
  });

  test("shared task: the work is aborted when the last caller has left, and a new caller starts anew", async () => {
    const task = new SharedTask<string, number>();
    let aborted = 0;
    const hang = (signal: AbortSignal): Promise<number> =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted += 1;
          reject(signal.reason as Error);
        });
      });
    const [one, two] = [new AbortController(), new AbortController()];
    const outcomes = [one, two].map(({ signal }) =>
      failureOf(task.join(hang, { signal, onProgress: () => {} })),
    );

    one.abort();
    await outcomes[0];
    expect(aborted).toBe(0);
    two.abort();
    await outcomes[1];
    expect(aborted).toBe(1);
    expect(await task.join(() => Promise.resolve(1), { signal: never, onProgress: () => {} })).toBe(
      1,
    );
  });

  test("shared task: who comes already aborted starts nothing", async () => {
    const task = new SharedTask<string, number>();
    const caller = { signal: AbortSignal.abort(new Error("gone")), onProgress: () => {} };

    expect(await failureOf(task.join(() => Promise.resolve(1), caller))).toEqual(new Error("gone"));
  });
});
