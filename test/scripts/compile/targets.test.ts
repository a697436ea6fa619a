import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { planJobs } from "../../../scripts/compile/index.ts";
import { fileName, findTarget, hostTarget, TARGETS } from "../../../scripts/compile/targets.ts";

describe("hostTarget", () => {
  test.each([
    ["linux-x64", { platform: "linux", arch: "x64", musl: false }],
    ["linux-arm64-musl", { platform: "linux", arch: "arm64", musl: true }],
    ["darwin-arm64", { platform: "darwin", arch: "arm64", musl: false }],
    ["windows-x64", { platform: "win32", arch: "x64", musl: false }],
  ] as const)("%s", (expected, facts) => {
    expect(hostTarget(facts)?.name).toBe(expected);
  });

  test("a machine that Tug is not made for has none", () => {
    expect(hostTarget({ platform: "win32", arch: "arm64", musl: false })).toBeUndefined();
  });
});

describe("fileName", () => {
  test("names the system, the architecture and musl, and ends in .exe on Windows", () => {
    const names = TARGETS.map((target) => fileName(target, { asHost: false }));

    expect(names).toEqual([
      "tug-linux-x64",
      "tug-linux-x64-musl",
      "tug-linux-arm64",
      "tug-linux-arm64-musl",
      "tug-darwin-x64",
      "tug-darwin-arm64",
      "tug-windows-x64.exe",
    ]);
  });

  test("the host's own is plain", () => {
    const windows = findTarget("windows-x64");
    const linux = findTarget("linux-x64");

    expect(windows && fileName(windows, { asHost: true })).toBe("tug.exe");
    expect(linux && fileName(linux, { asHost: true })).toBe("tug");
  });
});

describe("planJobs", () => {
  test("`--all` makes one file a target", () => {
    const jobs = planJobs({ all: true, target: undefined }, "dist");

    expect(new Set(jobs.map(({ output }) => output)).size).toBe(TARGETS.length);
  });

  test("one target goes into a file of its name", () => {
    const jobs = planJobs({ all: false, target: "linux-arm64-musl" }, "dist");

    expect(jobs.map(({ output }) => output)).toEqual([join("dist", "tug-linux-arm64-musl")]);
  });

  test("an unknown target is refused with the ones there are", () => {
    expect(() => planJobs({ all: false, target: "plan9" }, "dist")).toThrow(
      /unknown target `plan9`.*linux-x64/,
    );
  });
});
