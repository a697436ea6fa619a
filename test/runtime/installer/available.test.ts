import { describe, expect, test } from "bun:test";
import { join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import type { Backend } from "../../../src/runtime/backend.ts";
import { describeEngine, type EngineFacts } from "../../../src/runtime/installer/available.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import type { ListedInstallation } from "../../../src/runtime/installer/installed.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { ENGINE, putActive, putInPlace } from "./fake-installed.ts";
import { loopbackRemotes } from "./remotes.ts";

const SOURCES = [
  { name: "path", network: false, variants: false },
  { name: "github", network: true, variants: true },
  { name: "oci", network: true, variants: true },
  { name: "apt", network: true, variants: true },
  { name: "pypi", network: true, variants: true },
];

const snake: Backend = {
  ...llamacpp,
  name: "snake",
  formats: ["safetensors"],
  problem: ({ platform }) => (platform === "win32" ? "it needs Linux" : undefined),
  recipe: {
    pypi: {
      package: "snake",
      module: "snake",
      version: "1",
      python: ">=3",
      requirements: ({ arch }, gpu) => (arch === "x64" && gpu === "none" ? "snake==1" : undefined),
      launcher: "",
      environment: ["TUG_SNAKE_PYTHON"],
    },
  },
};

function listed(label: string, active = false): ListedInstallation {
  const [name = "", variant = ""] = label.split("-");
  return {
    backend: "snake",
    version: name,
    variant,
    source: "pypi",
    directory: `/e/${label}`,
    command: [`/e/${label}/x`],
    installedAt: "2026-01-01T00:00:00Z",
    active,
    sizeBytes: 1,
  };
}

function describeIt(facts: Partial<EngineFacts>) {
  return describeEngine({
    backend: snake,
    machine: { platform: "linux", arch: "x64" },
    offline: false,
    installed: [],
    previous: undefined,
    pinnedVersion: undefined,
    failure: undefined,
    hasProgram: () => false,
    sources: SOURCES,
    ...facts,
  });
}

const INSTALL = "`tug install-runner --backend snake`";

describe("what is said of an engine", () => {
  test.each([
    ["nothing is installed", {}, ["installable", undefined, expect.stringContaining(INSTALL)]],
    ["one is in use", { installed: [listed("2-cpu", true)] }, ["installed", undefined, undefined]],
    [
      "it does not run here",
      { machine: { platform: "win32", arch: "x64" } },
      ["unsupported", "it needs Linux", undefined],
    ],
    [
      "no source has it for this machine",
      { machine: { platform: "linux", arch: "riscv64" } },
      [
        "unavailable",
        "pypi: it has nothing for linux riscv64",
        "Set TUG_SNAKE_PYTHON to one of your own.",
      ],
    ],
    [
      "offline",
      { offline: true },
      [
        "unavailable",
        "pypi: offline mode is on",
        "Turn offline mode off, or set TUG_SNAKE_PYTHON to one of your own.",
      ],
    ],
    [
      "offline, but installed",
      { offline: true, installed: [listed("2-cpu", true)] },
      ["installed", undefined, undefined],
    ],
    [
      "installed, but nothing points to it",
      { installed: [listed("1-cpu"), listed("2-cpu")] },
      ["installable", "no installed version is in use", "Run `tug engines use snake 2-cpu`."],
    ],
    [
      "what names the engine is wrong",
      { failure: { problem: "cannot use X: it is not there", hint: "Unset X." } },
      ["unavailable", "cannot use X: it is not there", "Unset X."],
    ],
    [
      "the configured version is in use",
      { installed: [listed("2-cpu", true)], pinnedVersion: "2" },
      ["installed", undefined, undefined],
    ],
    [
      "another one than configured is in use, which is installed",
      { installed: [listed("1-cpu"), listed("2-cpu", true)], pinnedVersion: "1" },
      [
        "installed",
        "version 2 is in use, and config.toml says 1",
        "Run `tug engines use snake 1-cpu`.",
      ],
    ],
    [
      "another one than configured is in use, which is not installed",
      { installed: [listed("2-cpu", true)], pinnedVersion: "1" },
      ["installed", "version 2 is in use, and config.toml says 1", `Run ${INSTALL} to install 1.`],
    ],
    [
      "there is no recipe at all",
      { backend: { ...snake, recipe: {} } },
      ["unavailable", "no source has it", undefined],
    ],
  ] as [string, Partial<EngineFacts>, unknown[]][])("%s", (_name, facts, expected) => {
    const { state, problem, hint } = describeIt(facts);
    expect<unknown[]>([state, problem, hint]).toEqual(expected);
  });

  test("sources are those of its recipe, in order, each with what speaks against it", () => {
    const { sources, variants } = describeIt({ backend: llamacpp });

    expect(sources).toEqual([
      { name: "path", problem: "no `llama-server` is on PATH" },
      { name: "github", problem: undefined },
      { name: "oci", problem: undefined },
      { name: "apt", problem: "it serves Debian and its family only" },
    ]);
    expect(variants).toContain("cpu");
    expect(variants).toContain("vulkan");
    expect(variants).not.toContain("metal");
    expect(new Set(variants).size).toBe(variants.length);
  });

  test("variants are those for this machine", () => {
    const { variants } = describeIt({
      backend: { ...llamacpp, recipe: { apt: llamacpp.recipe.apt! } },
      hasProgram: () => true,
    });
    expect(variants).toEqual(["cpu", "vulkan"]);
    expect(describeIt({}).variants).toEqual(["cpu"]);
  });
});

const deps = (root: string, env: Record<string, string> = { PATH: "" }) => ({
  directory: join(root, "backends"),
  cacheDirectory: join(root, "cache"),
  backends: [llamacpp, snake],
  machine: { platform: "linux", arch: "x64" } as const,
  env,
  offline: true,
  remotes: loopbackRemotes(),
  smokeModel: () => Promise.reject(new Error("nothing is run")),
  pinnedVersions: new Map([[ENGINE, "b2"]]),
});

describe("Installer.describe", () => {
  test("has a row for every engine, with versions, sizes and what one would go back to", async () => {
    await using home = await tempDir();
    const settings = deps(home.path);
    await putActive(settings.directory, "b1-cpu", "b2-vulkan");

    const [first, second] = await new Installer(settings).describe();

    expect(first).toMatchObject({
      backend: { name: "llama.cpp", formats: ["gguf"] },
      state: "installed",
      previous: { version: "b1" },
      pinnedVersion: "b2",
    });
    expect(first?.installed.map(({ version, active }) => [version, active])).toEqual([
      ["b1", false],
      ["b2", true],
    ]);
    expect(first?.installed[0]?.sizeBytes).toBe(10);
    expect(second).toMatchObject({ state: "unavailable", installed: [], previous: undefined });
  });

  test("a size is what was recorded, else what there is", async () => {
    await using home = await tempDir();
    const settings = deps(home.path);
    const [engine] = await putActive(settings.directory, "b2-cpu");
    const size = async () => (await new Installer(settings).list())[0]?.sizeBytes;
    const record = join(engine?.directory ?? "", "size.json");

    await Bun.write(record, '{"bytes":12345}');
    expect(await size()).toBe(12_345);
    for (const damaged of ["{", "null", "[]", '{"bytes":"1"}', '{"bytes":-0.5}']) {
      await Bun.write(record, damaged);
      const found = (await size()) ?? 0;
      expect(found).toBeGreaterThan(10);
      expect(found).toBeLessThan(12_345);
    }
  });

  test("creates nothing where nothing is", async () => {
    await using home = await tempDir();

    await new Installer(deps(home.path)).describe();

    expect(await Array.fromAsync(new Bun.Glob("**").scan({ cwd: home.path, dot: true }))).toEqual(
      [],
    );
  });

  test("an environment variable that names nothing is that engine's problem alone", async () => {
    await using home = await tempDir();
    const env = { PATH: "", TUG_LLAMA_SERVER: "/nowhere" };

    const [first, second] = await new Installer(deps(home.path, env)).describe();

    expect(first).toMatchObject({
      state: "unavailable",
      problem: expect.stringContaining("TUG_LLAMA_SERVER"),
      hint: expect.stringContaining("unset it"),
    });
    expect(second?.problem).toBe("pypi: offline mode is on");
  });

  test("one that a variable names is in use, whatever is installed", async () => {
    await using home = await tempDir();
    const theirs = await putInPlace(join(home.path, "opt"), "unknown");
    const settings = deps(home.path, { PATH: "", TUG_LLAMA_SERVER: theirs.directory });
    await putActive(settings.directory, "b2-cpu");

    const [first] = await new Installer(settings).describe();

    expect(first?.installed).toMatchObject([
      { source: "path", active: true, sizeBytes: 0 },
      { version: "b2", active: false },
    ]);
    expect(first?.problem).toBe("version unknown is in use, and config.toml says b2");
    expect(first?.hint).toBe(
      "Unset TUG_LLAMA_SERVER if it is set, then run `tug engines use llama.cpp b2-cpu`.",
    );
  });
});
