import { describe, expect, test } from "bun:test";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { lockPath, readPointer, writePointer } from "../../../src/runtime/installer/layout.ts";
import { activate, matching } from "../../../src/runtime/installer/installed.ts";
import { readCustomEngines } from "../../../src/runtime/custom-engine.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import type { InstallerDeps } from "../../../src/runtime/installer/installer.ts";
import { engineStamp } from "../../../src/runtime/engine-stamp.ts";
import { acquireLock } from "../../../src/lock.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";
import { ENGINE, putActive, putEngine, putInPlace } from "./fake-installed.ts";
import { loopbackRemotes } from "./remotes.ts";

interface Bench extends AsyncDisposable {
  readonly root: string;
  readonly installer: Installer;
  readonly deps: InstallerDeps;
  labels(): Promise<string[]>;
}

async function bench(overrides: Partial<InstallerDeps> = {}): Promise<Bench> {
  const directory = await tempDir();
  const root = join(directory.path, "backends");
  const deps: InstallerDeps = {
    directory: root,
    cacheDirectory: join(directory.path, "cache"),
    backends: [llamacpp],
    machine: { platform: "linux", arch: "x64" },
    env: { PATH: "" },
    offline: true,
    remotes: loopbackRemotes(),
    smokeModel: () => Promise.resolve(""),
    verifyEngine: () => Promise.resolve(),
    ...overrides,
  };
  const installer = new Installer(deps);
  return {
    root,
    installer,
    deps,
    labels: async () =>
      (await installer.list()).map(
        ({ version, variant, active }) => `${active ? "*" : ""}${version}-${variant}`,
      ),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

const options = () => ({ signal: AbortSignal.timeout(10_000), onProgress: () => {} });

const MODULE = join(import.meta.dir, "../../../src/runtime/installer/installed.ts");

const OWN = { echo: { command: ["echo", "${PORT}"], formats: ["echo"] } };

const one = (version: string, variant: string) => ({ version, variant });

describe("matching", () => {
  const all = [one("0.7.0+dfsg-2", "cpu"), one("0.7.0+dfsg-2", "vulkan"), one("b1", "cpu")];

  test.each([
    ["b1", ["b1-cpu"]],
    ["b1-cpu", ["b1-cpu"]],
    ["0.7.0+dfsg-2", ["0.7.0+dfsg-2-cpu", "0.7.0+dfsg-2-vulkan"]],
    ["0.7.0+dfsg-2-vulkan", ["0.7.0+dfsg-2-vulkan"]],
    ["0.7.0+dfsg", []],
    ["b1-", []],
    ["", []],
  ])("%p means %p", (wanted, expected) => {
    const found = matching(all, wanted).map(({ version, variant }) => `${version}-${variant}`);
    expect(found).toEqual(expected);
  });
});

describe("Installer.use", () => {
  test("makes another installed version the active one, and remembers the one before", async () => {
    await using it = await bench();
    const [old] = await putActive(it.root, "b1-cpu", "b2-cpu");

    const chosen = await it.installer.use(ENGINE, "b1");

    expect(chosen).toMatchObject({ version: "b1", directory: old?.directory ?? "" });
    expect(await it.installer.active(ENGINE)).toMatchObject({ version: "b1" });
    expect(await it.labels()).toEqual(["*b1-cpu", "b2-cpu"]);
    expect((await readPointer(it.root, ENGINE))?.previous).toMatchObject({ version: "b2" });
  });

  test("is noticed by whoever keeps plans, also when it changes nothing else", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");
    const before = engineStamp(it.root, [ENGINE]);

    await it.installer.use(ENGINE, "b1");
    const used = engineStamp(it.root, [ENGINE]);
    await it.installer.rollback(ENGINE);

    expect(new Set([before, used, engineStamp(it.root, [ENGINE])]).size).toBe(3);
  });

  test("the one in use already stays so, and the one before it is kept", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");

    await it.installer.use(ENGINE, "b2-cpu");

    expect((await readPointer(it.root, ENGINE))?.previous).toMatchObject({ version: "b1" });
  });

  test("one that is not installed is refused with those that are", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");

    expect(await failureOf(it.installer.use(ENGINE, "b3"))).toMatchObject({
      code: "backend_not_installed",
      message: "cannot use llama.cpp b3: it is not installed",
      hint: expect.stringContaining("Installed are b1-cpu, b2-cpu;"),
    });
    expect(await it.labels()).toEqual(["b1-cpu", "*b2-cpu"]);
  });

  test("without any, the hint says how to install", async () => {
    await using it = await bench();

    expect(await failureOf(it.installer.use(ENGINE, "b3"))).toMatchObject({
      hint: "Install it with `tug install-runner --backend llama.cpp`.",
    });
  });

  test("a version in several variants has to be said in full", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b1-vulkan");

    expect(await failureOf(it.installer.use(ENGINE, "b1"))).toMatchObject({
      code: "usage",
      hint: "Choose one of: b1-cpu, b1-vulkan.",
    });
    expect(await it.installer.use(ENGINE, "b1-cpu")).toMatchObject({ variant: "cpu" });
  });

  test.each(["../../../etc", "b1-cpu/../b2-cpu", "\u0000", "x".repeat(10_000), "constructor"])(
    "%p is a version that nobody has, and no path",
    async (hostile) => {
      await using it = await bench();
      await putActive(it.root, "b1-cpu");

      const failure = await failureOf(it.installer.use(ENGINE, hostile));

      expect(failure).toMatchObject({ code: "backend_not_installed" });
      expect((failure as Error).message.length).toBeLessThan(200);
    },
  );

  test("an unknown engine is named with the known ones, at bounded length", async () => {
    await using it = await bench();

    const failure = await failureOf(it.installer.use("x".repeat(10_000), "b1"));

    expect(failure).toMatchObject({
      code: "backend_not_found",
      hint: "Choose one of: llama.cpp.",
    });
    expect((failure as Error).message.length).toBeLessThan(200);
  });

  test("an engine of the user's own can be gone back to while it is remembered", async () => {
    await using it = await bench();
    const theirs = await putInPlace(join(it.root, "..", "opt"), "9999");
    await putEngine(it.root, "b1-cpu");
    await activate(it.root, theirs);
    await it.installer.use(ENGINE, "b1");

    expect(await it.labels()).toEqual(["9999-host", "*b1-cpu"]);
    await it.installer.use(ENGINE, "9999");

    expect(await it.installer.active(ENGINE)).toMatchObject({ source: "path", version: "9999" });
    expect(await it.labels()).toEqual(["*9999-host", "b1-cpu"]);
  });

  test("what an environment variable names cannot be chosen away", async () => {
    await using home = await tempDir();
    const theirs = await putInPlace(join(home.path, "opt"), "9999");
    await using it = await bench({ env: { PATH: "", LLAMA_SERVER_PATH: theirs.directory } });
    await putActive(it.root, "b1-cpu", "b2-cpu");

    for (const change of [it.installer.use(ENGINE, "b1"), it.installer.rollback(ENGINE)]) {
      expect(await failureOf(change)).toMatchObject({
        code: "conflict",
        message: expect.stringContaining("LLAMA_SERVER_PATH names"),
      });
    }
    expect((await readPointer(it.root, ENGINE))?.active).toMatchObject({ version: "b2" });
  });

  test("while another process installs, it is refused within seconds", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");
    using _lock = await acquireLock(lockPath(it.root, ENGINE));

    expect(await failureOf(it.installer.use(ENGINE, "b1"))).toMatchObject({
      code: "conflict",
      message: "cannot switch llama.cpp: another process is installing it",
    });
  });
});

describe("Installer.rollback", () => {
  test("exchanges the active version and the one before, again and again", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");

    const seen = [];
    for (let turn = 0; turn < 3; turn += 1) {
      seen.push((await it.installer.rollback(ENGINE)).version);
    }

    expect(seen).toEqual(["b1", "b2", "b1"]);
  });

  test("without one before it is refused, with what there is", async () => {
    await using it = await bench();
    expect(await failureOf(it.installer.rollback(ENGINE))).toMatchObject({
      hint: "Install it with `tug install-runner --backend llama.cpp`.",
    });
    await putActive(it.root, "b2-cpu");

    expect(await failureOf(it.installer.rollback(ENGINE))).toMatchObject({
      code: "backend_not_installed",
      message: expect.stringContaining("cannot roll back llama.cpp"),
    });

    await putEngine(it.root, "b1-cpu");
    expect(await failureOf(it.installer.rollback(ENGINE))).toMatchObject({
      hint: "Installed are b1-cpu, b2-cpu; choose one with `tug engines use`.",
    });
  });

  test("one whose files are gone is none", async () => {
    await using it = await bench();
    const [old] = await putActive(it.root, "b1-cpu", "b2-cpu");
    await rm(old?.directory ?? "", { recursive: true });

    expect(await failureOf(it.installer.rollback(ENGINE))).toMatchObject({
      code: "backend_not_installed",
    });
    expect(await it.installer.active(ENGINE)).toMatchObject({ version: "b2" });
  });

  test("a damaged record is none, too", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");
    await Bun.write(join(it.root, ENGINE, "active.json"), "{ half");

    expect(await failureOf(it.installer.rollback(ENGINE))).toMatchObject({
      code: "backend_not_installed",
    });
    expect(await it.installer.use(ENGINE, "b1")).toMatchObject({ version: "b1" });
  });
});

describe("Installer.uninstall", () => {
  test("of the active version goes back to the one before", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b3-cpu", "b2-cpu");

    expect(await it.installer.uninstall({ backend: ENGINE, version: "b2" })).toHaveLength(1);

    expect(await it.labels()).toEqual(["b1-cpu", "*b3-cpu"]);
    expect((await readPointer(it.root, ENGINE))?.previous).toBeNull();
  });

  test("of the one before leaves nothing that points to it", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b2-cpu");

    await it.installer.uninstall({ backend: ENGINE, version: "b1-cpu" });

    expect(await it.labels()).toEqual(["*b2-cpu"]);
    expect((await readPointer(it.root, ENGINE))?.previous).toBeNull();
  });

  test("of one variant leaves the other", async () => {
    await using it = await bench();
    await putActive(it.root, "b1-cpu", "b1-vulkan");

    await it.installer.uninstall({ backend: ENGINE, version: "b1-vulkan" });

    expect(await it.labels()).toEqual(["*b1-cpu"]);
  });

  test("of all forgets the user's own and removes nothing of theirs", async () => {
    await using it = await bench();
    const theirs = await putInPlace(join(it.root, "..", "opt"), "9999");
    await putEngine(it.root, "b1-cpu");
    await activate(it.root, theirs);
    await it.installer.use(ENGINE, "b1");

    const removed = await it.installer.uninstall({ backend: ENGINE });

    expect(removed.map(({ version }) => version)).toEqual(["9999", "b1"]);
    expect(await it.labels()).toEqual([]);
    expect(await readdir(theirs.directory)).toEqual(["llama-server"]);
    expect(await readdir(join(it.root, ENGINE))).toEqual(["lock"]);
  });

  test("of a version that is not there is refused, with what there is", async () => {
    await using it = await bench();
    const failure = () => failureOf(it.installer.uninstall({ backend: ENGINE, version: "b7" }));

    expect(await failure()).toMatchObject({
      code: "backend_not_installed",
      message: "cannot uninstall llama.cpp b7: it is not installed",
      hint: "`tug engines` shows what is.",
    });
    await putActive(it.root, "b1-cpu", "b2-cpu");
    expect(await failure()).toMatchObject({ hint: "Installed are b1-cpu, b2-cpu." });
    expect(await it.labels()).toEqual(["b1-cpu", "*b2-cpu"]);
  });

  test("of an engine that is configured is refused, as its other versions are", async () => {
    await using it = await bench({ backends: readCustomEngines(OWN, []) });
    const tries = [
      it.installer.uninstall({ backend: "echo" }),
      it.installer.use("echo", "1"),
      it.installer.rollback("echo"),
    ];

    for (const refused of tries) {
      expect(await failureOf(refused)).toMatchObject({
        code: "usage",
        message: expect.stringMatching(/ echo: it is configured, not installed$/),
      });
    }
    expect(await readdir(it.root).catch(() => [])).toEqual([]);
  });

  test("that was killed half-way left no half of an engine", async () => {
    await using it = await bench();
    const [half] = await putActive(it.root, "b1-cpu", "b2-cpu");
    const script = `
      import * as fs from "node:fs/promises";
      import { mock } from "bun:test";
      mock.module("node:fs/promises", () => ({ ...fs, rm: () => process.kill(process.pid, "SIGKILL") }));
      const { removeInstalled } = await import(${JSON.stringify(MODULE)});
      await removeInstalled(${JSON.stringify(it.root)}, "llama.cpp", "b1");
    `;

    const child = Bun.spawn([process.execPath, "-e", script], { stderr: "inherit" });
    await child.exited;

    expect(child.signalCode).toBe("SIGKILL");
    expect(await it.labels()).toEqual(["*b2-cpu"]);
    expect(await Bun.file(half?.command[0] ?? "").exists()).toBe(false);
    await it.installer.use(ENGINE, "b2");
    expect(await readdir(join(it.root, ENGINE))).not.toContainEqual(
      expect.stringContaining(".staging-"),
    );
  });

  test("forgets the user's own also when it is gone", async () => {
    await using it = await bench();
    const theirs = await putInPlace(join(it.root, "..", "opt"), "9999");
    await putEngine(it.root, "b1-cpu");
    await writePointer(it.root, ENGINE, { active: theirs, previous: null });
    await rm(theirs.directory, { recursive: true });

    await it.installer.uninstall({ backend: ENGINE, version: "9999" });

    expect(await it.labels()).toEqual(["*b1-cpu"]);
  });
});

describe("versions that config.toml names", () => {
  const pinnedVersions = new Map([[ENGINE, "b1"]]);

  test("the one that is there is used before anything is fetched", async () => {
    await using it = await bench({ pinnedVersions });
    await putEngine(it.root, "b1-cpu");
    await putEngine(it.root, "b2-cpu");

    expect(await it.installer.ensure(ENGINE, options())).toMatchObject({ version: "b1" });
    expect(await it.labels()).toEqual(["*b1-cpu", "b2-cpu"]);
  });

  test("another one that is in use stays in use", async () => {
    await using it = await bench({ pinnedVersions });
    await putActive(it.root, "b1-cpu", "b2-cpu");

    expect(await it.installer.ensure(ENGINE, options())).toMatchObject({ version: "b2" });
  });

  test("a failure says where the version comes from", async () => {
    await using it = await bench({ pinnedVersions });
    const failed = it.installer.install({ backend: ENGINE, gpu: "none" }, options());

    expect(await failureOf(failed)).toMatchObject({
      code: "install_failed",
      message: "cannot install from the network: offline mode is on",
      hint: expect.stringContaining("config.toml says version b1: correct it, or take it out."),
    });
  });

  test("what somebody types wins", async () => {
    await using it = await bench({ pinnedVersions });
    const typed = { backend: ENGINE, gpu: "none", version: "b7" } as const;

    expect(await failureOf(it.installer.install(typed, options()))).toMatchObject({
      hint: expect.not.stringContaining("config.toml"),
    });
  });
});

describe("what cannot be installed", () => {
  const elsewhere = { ...llamacpp, problem: () => "it needs a Cray" };

  test("an engine that does not run here is refused with the reason, also by the first model", async () => {
    await using it = await bench({ backends: [elsewhere] });
    const attempts = [
      it.installer.install({ backend: ENGINE, gpu: "auto" }, options()),
      it.installer.ensure(ENGINE, options()),
    ];

    for (const attempt of attempts) {
      expect(await failureOf(attempt)).toMatchObject({
        code: "not_supported",
        message: "cannot install llama.cpp: it needs a Cray",
      });
    }
  });

  test("a Python for an engine that has none", async () => {
    await using it = await bench();
    const request = { backend: ENGINE, gpu: "auto", python: "/opt/python" } as const;

    expect(await failureOf(it.installer.install(request, options()))).toMatchObject({
      code: "usage",
      message: "cannot install llama.cpp with a Python: it does not run in one",
    });
  });
});
