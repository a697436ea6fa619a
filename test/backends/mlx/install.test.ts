import { describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { recipe } from "../../../backends/mlx/install.ts";
import { machineProblem } from "../../../backends/python/machine.ts";
import { GPUS, type Gpu, type Machine } from "../../../src/runtime/backend.ts";

const LINUX: Machine = { platform: "linux", arch: "x64" };
const MAC: Machine = { platform: "darwin", arch: "arm64" };

interface Requirement {
  readonly name: string;
  readonly version: string;
  /** Which machines and Pythons it is for; undefined: all. */
  readonly marker: string | undefined;
  readonly hashes: readonly string[];
}

/** Of pip's format, with every requirement on lines that end in a backslash but for the last. */
function parse(lock: string): Requirement[] {
  const lines = lock.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const wholes = lines.join("\n").replaceAll("\\\n", "").split("\n");
  return wholes.map((line) => {
    const pattern = /^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; (.+?))? +--hash/;
    const [, name = "", version = "", marker] = pattern.exec(line) ?? [];
    const hashes = Array.from(line.matchAll(/ --hash=sha256:(\S+)/g), ([, hash = ""]) => hash);
    return { name, version, marker, hashes };
  });
}

function requirements(gpu: Gpu, machine = LINUX): Requirement[] {
  return parse(recipe.pypi?.requirements(machine, gpu) ?? "");
}

function namesOf(gpu: Gpu): string[] {
  return requirements(gpu).map(({ name }) => name);
}

function pinsOf(gpu: Gpu): string[] {
  return requirements(gpu).map(({ name, version }) => `${name}==${version}`);
}

/** What there are packages for. */
function served(machine: Machine): Gpu[] {
  return GPUS.filter((gpu) => recipe.pypi?.requirements(machine, gpu) !== undefined);
}

describe("the locks of mlx", () => {
  test.each(["none", "cuda"] as const)("mlx: every requirement of %s has its hashes", (gpu) => {
    const all = requirements(gpu);

    expect(all.length).toBeGreaterThan(20);
    expect(all.filter(({ name, version }) => name === "" || version === "")).toEqual([]);
    expect(all.filter(({ hashes }) => hashes.length === 0)).toEqual([]);
    const hashes = all.flatMap((one) => one.hashes);
    expect(hashes.filter((hash) => !/^[0-9a-f]{64}$/.test(hash))).toEqual([]);
  });

  test("mlx: a package that is locked twice is so for different Pythons", () => {
    const all = requirements("none");
    const twice = all.filter(({ name }, index) => all[index + 1]?.name === name);

    expect(twice.length).toBeGreaterThan(0);
    expect(
      twice.filter(({ marker }) => marker?.startsWith("python_full_version") !== true),
    ).toEqual([]);
  });

  test("mlx: packages that both locks have are of the same versions", () => {
    const cuda = pinsOf("cuda");
    const names = new Set(cuda.map((pin) => pin.split("==")[0]));
    const both = pinsOf("none").filter((pin) => names.has(pin.split("==")[0]));

    expect(both.length).toBeGreaterThan(20);
    expect(both.filter((pin) => !cuda.includes(pin))).toEqual([]);
  });

  test("mlx: the version is the one that is locked", () => {
    const locked = requirements("none").find(({ name }) => name === "mlx-lm");

    expect(recipe.pypi?.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(locked?.version).toBe(recipe.pypi?.version ?? "");
  });

  test("mlx: each lock has the library of its device", () => {
    expect(namesOf("none")).toContain("mlx-cpu");
    expect(namesOf("none")).toContain("mlx-metal");
    expect(namesOf("cuda")).toContain("mlx-cuda-13");
    expect(namesOf("none").filter((name) => name.includes("cuda"))).toEqual([]);
  });

  test("mlx: the launcher is the one of the tree", async () => {
    const path = join(import.meta.dir, "../../../backends/python/launch.py");

    expect(recipe.pypi?.launcher).toBe(await readFile(path, "utf8"));
  });
});

describe("machines of mlx", () => {
  test.each([
    ["linux", "x64", true],
    ["linux", "arm64", true],
    ["darwin", "arm64", true],
    ["darwin", "x64", false],
    ["win32", "x64", false],
    ["win32", "arm64", false],
    ["linux", "riscv64", false],
    ["freebsd", "x64", false],
  ] as const)("mlx: on %s %s it runs: %p", (...[platform, arch, runs]) => {
    const problem = machineProblem({ platform, arch });

    expect(problem).toBe(runs ? undefined : "it needs a Mac with Apple silicon, or Linux");
    expect(served({ platform, arch }).length > 0).toBe(runs);
  });

  test("mlx: there are packages for processors and CUDA on Linux, for Metal on a Mac", () => {
    expect(served(LINUX)).toEqual(["none", "cuda"]);
    expect(served(MAC)).toEqual(["metal"]);
  });
});
