import { describe, expect, test } from "bun:test";

import { countOomKills } from "../../src/runtime/oom-kills.ts";
import { exitError, stalledError, unwrapExit } from "../../src/runtime/worker-errors.ts";
import { fakeBackend } from "../fakes/backend.ts";

const names = (isOutOfMemory: boolean) => ({
  modelName: "m",
  logFile: "/log",
  backend: fakeBackend({ explainExit: () => ({ reason: "why", isOutOfMemory }) }),
});

const facts = { exitCode: 1, signal: null, stderrTail: "" };

describe("exitError", () => {
  test("exit: an engine out of memory is another code than a crash, and both name the log", () => {
    const errors = [exitError(names(true), facts, false), exitError(names(false), facts, true)];

    expect(errors.map(({ code, message }) => [code, message])).toEqual([
      ["insufficient_memory", "cannot load `m`: why"],
      ["worker_failed", "cannot serve `m`: why"],
    ]);
    expect(errors[0]?.hint).toBe("Read the engine's log: /log.");
  });
});

describe("stalledError", () => {
  test.each<[number | undefined, string]>([
    [undefined, ""],
    [503, ""],
    [404, "; it answers /health with 404"],
  ])("stalled: with the answer %p", (answer, what) => {
    const { message } = stalledError(names(false), { stallMs: 2000, answer });

    expect(message).toBe(`cannot load \`m\`: fake made no progress for 2 s${what}`);
  });

  test("stalled: one that had a time is told that one", () => {
    const { message } = stalledError(names(false), { stallMs: 9000, boundMs: 9000 });

    expect(message).toBe("cannot load `m`: fake was not ready within 9 s");
  });
});

describe("unwrapExit", () => {
  test.each<[number | null, string | null]>([
    [137, "SIGKILL"],
    [139, "SIGSEGV"],
  ])("exit: the code %p of a sandbox is the engine's %p", (exitCode, signal) => {
    expect(unwrapExit({ exitCode, signal: null, stderrTail: "x" })).toEqual({
      exitCode: null,
      signal,
      stderrTail: "x",
    });
  });

  test.each<[number | null, string | null]>([
    [0, null],
    [1, null],
    [128, null],
    [255, null],
    [null, "SIGTERM"],
  ])("exit: %p %p stays as it is", (exitCode, signal) => {
    const exit = { exitCode, signal, stderrTail: "" };

    expect(unwrapExit(exit)).toEqual(exit);
  });
});

describe("countOomKills", () => {
  test("oom kills: the kernel's counter, or nothing", () => {
    expect(countOomKills(() => "nr_free_pages 5\noom_kill 12\nother 1\n")).toBe(12);
    expect(countOomKills(() => "nr_free_pages 5\n")).toBeUndefined();
    expect(
      countOomKills(() => {
        throw new Error("ENOENT");
      }),
    ).toBeUndefined();
  });
});
