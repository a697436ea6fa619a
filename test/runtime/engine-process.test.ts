import { expect, test } from "bun:test";
import type { Installation, StartedRun } from "../../src/runtime/backend.ts";
import { findEngineProcess } from "../../src/runtime/engine-process.ts";

const RUN: StartedRun = { installation: {} as Installation, socket: "/run/w1/e.sock", port: 1 };
const { signal } = new AbortController();

test.each([
  ["what it finds", () => Promise.resolve(7), 7],
  ["null where it finds nothing", () => Promise.resolve(undefined), null],
  ["null where it fails", () => Promise.reject(new Error("no")), null],
  ["null where nothing looks", undefined, null],
] as const)("the process of an engine is %s", async (_, findProcess, pid) => {
  const backend = { name: "x", ...(findProcess === undefined ? {} : { findProcess }) };

  expect(await findEngineProcess(backend, RUN, signal)).toBe(pid);
});
