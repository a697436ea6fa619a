import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";

import { spawnEngine } from "../../../src/runtime/process.ts";
import { createBubblewrap } from "../../../src/runtime/sandbox/bubblewrap.ts";
import { findSandbox, NO_SANDBOX } from "../../../src/runtime/sandbox/index.ts";
import type { Sandbox, SandboxView } from "../../../src/runtime/sandbox/sandbox.ts";
import type { NosyReport, NosyTargets } from "../../fakes/nosy-engine.ts";
import { eventually } from "../../helpers/eventually.ts";
import { isAlive } from "../../helpers/processes.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isLinux, isRoot, testIf } from "../../helpers/test-if.ts";

const ENGINE = join(import.meta.dir, "..", "..", "fakes", "nosy-engine.ts");
const TOKEN = "hf_a-token-of-the-user";
const NOTHING: SandboxView = { readOnly: [], writable: [], devices: [] };

const NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"];
const bwrap = Bun.which("bwrap");
const env = { ...process.env, HF_TOKEN: TOKEN };
const found = await findSandbox({ mode: "auto", platform: process.platform, env });
const works = testIf(
  found.sandbox.name === "bubblewrap",
  found.problem?.reason ?? "no bubblewrap on this platform",
);
const asNobody = testIf(
  isLinux && isRoot && bwrap !== null && Bun.which("setpriv") !== null && nobodyMay(),
  "needs root to become nobody, and user namespaces for nobody",
);

function nobodyMay(): boolean {
  return Bun.spawnSync(["setpriv", ...NOBODY, bwrap ?? "", "--ro-bind", "/", "/", "true"]).success;
}

const fake = createBubblewrap({
  program: "/usr/bin/bwrap",
  env: { PATH: "/bin", HOME: "/home/u", HF_TOKEN: "t", CUDA_VISIBLE_DEVICES: "0", HF_HOME: "/h" },
});

/** Neighbours of options in an argv. */
function pairs(argv: readonly string[], option: string): (string | undefined)[] {
  return argv.flatMap((word, index) => (word === option ? [argv[index + 1]] : []));
}

function seesSystem(argv: readonly string[]): boolean {
  return pairs(argv, "--ro-bind-try").includes("/usr");
}

/** Where there is memory for files, and which of it is for temporary ones. */
function scratch(path: string): unknown {
  const argv = fake.wrap(["/e"], { ...NOTHING, readOnly: [path] });
  return [pairs(argv, "--tmpfs"), argv[argv.indexOf("TMPDIR") + 1]];
}

describe("the command line of bubblewrap", () => {
  test("shows what the view names, and nothing of the system to an engine with its own loader", () => {
    const view = { readOnly: ["/e", "/m.gguf"], writable: ["/run/w1"], devices: [] };

    const argv = fake.wrap(
      ["/e/ld-linux-x86-64.so.2", "/e/llama-server", "--model", "/m.gguf"],
      view,
    );

    const shown = pairs(argv, "--ro-bind-try").filter((path) => !path?.startsWith("/proc/"));
    expect(shown).toEqual(["/e", "/m.gguf"]);
    expect(pairs(argv, "--bind")).toEqual(["/run/w1"]);
    expect(pairs(argv, "--chdir")).toEqual(["/run/w1"]);
    expect(argv.slice(argv.indexOf("--"))).toEqual([
      "--",
      "/e/ld-linux-x86-64.so.2",
      "/e/llama-server",
      "--model",
      "/m.gguf",
    ]);
  });

  test("starts where the view says", () => {
    const view = { readOnly: ["/work"], writable: ["/run/w1"], devices: [], startsIn: "/work" };

    expect(pairs(fake.wrap(["/e/engine"], view), "--chdir")).toEqual(["/work"]);
  });

  test("shows the system to an engine that uses it, whether that is guessed or said", () => {
    expect(seesSystem(fake.wrap(["/opt/llama/llama-server"], NOTHING))).toBe(true);
    expect(seesSystem(fake.wrap(["/e/ld-linux-aarch64.so.1"], NOTHING))).toBe(false);
    expect(
      seesSystem(fake.wrap(["/e/ld-linux-aarch64.so.1"], { ...NOTHING, needsSystem: true })),
    ).toBe(true);
    expect(
      seesSystem(fake.wrap(["/opt/llama/llama-server"], { ...NOTHING, needsSystem: false })),
    ).toBe(false);
  });

  test("passes devices through, with the driver's libraries and what the kernel says of them", () => {
    const argv = fake.wrap(["/e/ld-musl-x86_64.so.1"], {
      ...NOTHING,
      devices: ["/dev/dri", "/dev/kfd"],
    });

    expect(pairs(argv, "--dev-bind-try")).toEqual(["/dev/dri", "/dev/kfd"]);
    expect(pairs(argv, "--ro-bind-try")).toContain("/usr");
    expect(pairs(argv, "--ro-bind-try")).toContain("/sys/devices");
  });

  test("parts from the network unless it listens on a port, or computes on other machines", () => {
    expect(fake.wrap(["/e"], NOTHING)).toContain("--unshare-net");
    for (const way of [{ sharesNetwork: true }, { reachesOthers: true }]) {
      expect(fake.wrap(["/e"], { ...NOTHING, ...way })).not.toContain("--unshare-net");
    }
  });

  test("removes variables that are not needed, before bwrap itself starts", () => {
    const argv = fake.wrap(["/e"], NOTHING);
    const kept = fake.wrap(["/e"], { ...NOTHING, variables: ["HF_HOME"] });

    expect(argv[0]).toBe("/usr/bin/env");
    expect(pairs(argv, "-u")).toEqual(["HOME", "HF_TOKEN", "HF_HOME"]);
    expect(pairs(kept, "-u")).toEqual(["HOME", "HF_TOKEN"]);
    expect(argv.indexOf("-u")).toBeLessThan(argv.indexOf("/usr/bin/bwrap"));
  });

  test("gives memory for temporary files where none of the view's are", () => {
    expect(scratch("/m.gguf")).toEqual([["/tmp", "/var/tmp"], "/tmp"]);
    expect(scratch("/tmpfile")).toEqual([["/tmp", "/var/tmp"], "/tmp"]);
    expect(scratch("/tmp/m.gguf")).toEqual([["/var/tmp"], "/var/tmp"]);
    expect(scratch("/var/tmp/m.gguf")).toEqual([["/tmp"], "/tmp"]);
  });

  test("takes odd paths as they are", () => {
    const odd = [
      "/a b",
      '/it\'s "quoted"',
      "/-dash/--bind",
      "/$(x)`y`;z",
      "/new\nline",
      "/ünï/模型",
    ];

    const argv = fake.wrap(["/e"], { ...NOTHING, readOnly: odd });

    expect(pairs(argv, "--ro-bind-try")).toEqual(expect.arrayContaining(odd));
  });

  test("finds no engine in a process that is none", () => {
    expect(fake.askToEnd?.(process.pid)).toBe(false);
    expect(fake.askToEnd?.(2 ** 22 - 1)).toBe(false);
  });

  test.each(["", "relative", "--bind", "/", "/proc", "/dev", "/tmp", "/var/tmp", "/a\0b"])(
    "refuses %j as a place",
    (path) => {
      for (const view of [
        { ...NOTHING, readOnly: [path] },
        { ...NOTHING, writable: [path] },
        { ...NOTHING, devices: [path] },
      ])
        expect(() => fake.wrap(["/e"], view)).toThrow(/^cannot show /);
    },
  );
});

/** What is around an engine: things of the user's, servers, another process. */
async function surroundings(
  directory: string,
): Promise<AsyncDisposable & { readonly targets: NosyTargets; readonly view: SandboxView }> {
  const run = join(directory, "a run 'directory'");
  const own = join(run, "worker-1");
  const home = join(directory, "home");
  await mkdir(own, { recursive: true });
  await mkdir(home);
  const model = join(home, '--model "1".gguf');
  await writeFile(model, "weights");
  await writeFile(join(home, "secret"), "secret");
  const tcp = createServer().listen(0, "127.0.0.1");
  const abstractSocket = `tug-test-${crypto.randomUUID()}`;
  const runnerSocket = join(run, "runner.sock");
  const servers = [tcp, listen(`\0${abstractSocket}`), listen(runnerSocket)];
  for (const server of servers) if (!server.listening) await once(server, "listening");
  const stranger = Bun.spawn(["sleep", "1000"]);
  const targets = {
    socket: join(own, "engine.sock"),
    model,
    secret: join(home, "secret"),
    outside: join(home, "written"),
    tcpPort: (tcp.address() as { port: number }).port,
    abstractSocket,
    runnerSocket,
    stranger: stranger.pid,
    token: TOKEN,
    kernelSetting: "/proc/sys/kernel/core_pattern",
  };
  const readOnly = [process.execPath, ENGINE, model];
  return {
    targets,
    view: { readOnly, writable: [own], devices: [], needsSystem: true },
    [Symbol.asyncDispose]: async () => {
      stranger.kill("SIGKILL");
      await stranger.exited;
      for (const server of servers) server.close();
    },
  };
}

function listen(path: string): Server {
  return createServer().listen(path);
}

function startNosy(sandbox: Sandbox, around: { targets: NosyTargets; view: SandboxView }) {
  const command = [process.execPath, ENGINE, JSON.stringify(around.targets)];
  const output: string[] = [];
  const engine = spawnEngine({
    command: sandbox.wrap(command, around.view),
    sandbox,
    env: { HF_TOKEN: TOKEN, TMPDIR: join(around.targets.secret, "..", "..") },
    directory: join(around.targets.socket, ".."),
    onOutput: async (chunk) => void output.push(new TextDecoder().decode(chunk)),
  });
  const report = (): Promise<NosyReport> =>
    eventually(async () => {
      const response = await fetch("http://engine/", { unix: around.targets.socket });
      return (await response.json()) as NosyReport;
    });
  return { engine, report, output };
}

describe("an engine under bubblewrap", () => {
  works("reaches nothing but its files and its socket", async () => {
    await using directory = await tempDir();
    await using around = await surroundings(directory.path);
    const { engine, report } = startNosy(found.sandbox, around);
    try {
      const { reached, readsModel, writesTemporary, openFiles } = await report();

      expect(Object.entries(reached).filter(([, isReached]) => isReached)).toEqual([]);
      expect({ readsModel, writesTemporary }).toEqual({ readsModel: true, writesTemporary: true });
      expect(await Bun.file(join(directory.path, "nosy-engine")).exists()).toBe(false);
      expect(await Bun.file(around.targets.outside).exists()).toBe(false);
      expect(openFiles.length).toBeGreaterThan(2);
    } finally {
      engine.kill();
      await engine.exited;
    }
  });

  works("that listens on a port reaches the network besides, and nothing else", async () => {
    await using directory = await tempDir();
    await using around = await surroundings(directory.path);
    const { targets, view } = around;
    const { engine, report } = startNosy(found.sandbox, {
      targets,
      view: { ...view, sharesNetwork: true },
    });
    try {
      const { reached } = await report();

      const names = Object.entries(reached).flatMap(([name, isReached]) =>
        isReached ? [name] : [],
      );
      expect(names).toEqual(["connectsTcp", "connectsAbstract"]);
    } finally {
      engine.kill();
      await engine.exited;
    }
  });

  // Without this the tests above could not fail.
  testIf(isLinux, "it looks at /proc")("reaches all of it without", async () => {
    await using directory = await tempDir();
    await using around = await surroundings(directory.path);
    const { engine, report } = startNosy(NO_SANDBOX, around);
    try {
      const { reached } = await report();
      const missed = Object.entries(reached).filter(([, isReached]) => !isReached);

      // Those belong to root.
      const roots = isRoot ? [] : ["changesKernel", "writesRoot"];
      expect(missed.map(([name]) => name).filter((name) => !roots.includes(name))).toEqual([]);
    } finally {
      engine.kill();
      await engine.exited;
      if (isRoot) await Bun.file("/nosy-engine-was-here").delete();
    }
  });

  works("is asked to end, and ends its own way", async () => {
    await using directory = await tempDir();
    await using around = await surroundings(directory.path);
    const { engine, report } = startNosy(found.sandbox, around);
    await report();

    await engine.terminate();

    expect(await engine.exited).toMatchObject({ exitCode: 0, signal: null });
    expect(await Bun.file(join(around.targets.socket, "..", "bye")).exists()).toBe(true);
    expect(found.sandbox.askToEnd?.(engine.pid)).toBe(false);
  });

  works("is gone with all its processes when its group is killed", async () => {
    await using directory = await tempDir();
    const engine = spawnEngine({
      command: found.sandbox.wrap(["/bin/sh", "-c", "setsid sleep 1000 & echo up; wait"], {
        ...NOTHING,
        writable: [directory.path],
      }),
      env: {},
      directory: directory.path,
      onOutput: () => Promise.resolve(),
    });
    let pids: readonly number[] = [];
    await eventually(() => {
      pids = descendants(engine.pid);
      // The watcher, both of bwrap, the shell and its child that left the group.
      return pids.length >= 5;
    });

    engine.kill();

    await engine.exited;
    await eventually(async () => !(await Promise.all(pids.map(isAlive))).includes(true));
  });

  works("has no capability, no way to one, no core dump and bounded files", async () => {
    await using directory = await tempDir();
    const view = { ...NOTHING, writable: [directory.path] };
    const script = 'cat /proc/self/status; echo "core $(ulimit -c) files $(ulimit -n)"; pwd';

    const text = runHere(found.sandbox.wrap(["/bin/sh", "-c", script], view));

    expect(text).toMatch(/^CapEff:\t0+$/m);
    expect(text).toMatch(/^NoNewPrivs:\t1$/m);
    const [, core, files] = /^core (\d+) files (\d+)$/m.exec(text) ?? [];
    expect(core).toBe("0");
    expect(Number(files)).toBeLessThanOrEqual(65_536);
    expect(text.trimEnd().endsWith(directory.path)).toBe(true);
  });

  works("sees a file under the name of a link, and ignores what is missing", async () => {
    await using directory = await tempDir();
    const link = join(directory.path, "link");
    await writeFile(join(directory.path, "target"), "linked\n");
    await symlink("target", link);
    const view = { ...NOTHING, readOnly: [link, join(directory.path, "missing")] };

    const text = runHere(
      found.sandbox.wrap(["/bin/sh", "-c", `cat ${link}; ls ${directory.path}`], view),
    );

    expect(text).toBe("linked\nlink\n");
  });

  asNobody("holds for a user without privileges too", async () => {
    await using directory = await tempDir();
    await chmod(directory.path, 0o755);
    const own = join(directory.path, "own");
    await mkdir(own, { mode: 0o777 });
    await chmod(own, 0o777);
    await writeFile(join(directory.path, "secret"), "secret\n", { mode: 0o644 });
    const secret = join(directory.path, "secret");
    const script = `cat ${secret}; echo w > own-file; touch /x /usr/x; ls /proc | grep -c '^[0-9]'; cat /proc/net/dev | wc -l`;
    const command = ["/bin/sh", "-c", script];
    const wrapped = createBubblewrap({ program: bwrap ?? "", env }).wrap(command, {
      ...NOTHING,
      writable: [own],
    });

    const inside = runHere(["setpriv", ...NOBODY, ...wrapped]);
    const outside = runHere(["setpriv", ...NOBODY, "/bin/cat", secret]);

    expect(outside).toBe("secret\n");
    expect(inside).not.toContain("secret");
    // bwrap, the shell, ls and grep; two lines of heading and the loopback device.
    expect(inside.trim().split("\n").at(-1)).toBe("3");
    expect(Number(inside.trim().split("\n").at(-2))).toBeLessThanOrEqual(5);
    expect(await Bun.file(join(own, "own-file")).text()).toBe("w\n");
  });
});

function runHere(argv: readonly string[]): string {
  const { stdout } = Bun.spawnSync([...argv], { env, stderr: "ignore" });
  return stdout.toString();
}

/** The pids of all descendants, itself first. */
function descendants(pid: number): number[] {
  const list = Bun.spawnSync(["ps", "-eo", "pid=,ppid="]).stdout.toString();
  const rows = list
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number));
  const family: number[] = [pid];
  for (const parent of family)
    family.push(...rows.filter(([, ppid]) => ppid === parent).map(([child = 0]) => child));
  return family;
}
