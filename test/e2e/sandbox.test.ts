import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, copyFile, mkdir, readFile, readlink, symlink } from "node:fs/promises";
import { join } from "node:path";

import type { WorkerStatus } from "../../src/api/engines.ts";
import { findSandbox } from "../../src/runtime/sandbox/index.ts";
import { eventually } from "../helpers/eventually.ts";
import { ROOT } from "../../scripts/compile/freshness.ts";
import { tugBinary } from "../helpers/binary.ts";
import { FIRST_SHARD, PEBBLE } from "../helpers/pebble.ts";
import { enginesOf, processesNaming, runnersOf } from "../helpers/processes.ts";
import type { CliResult } from "../helpers/run-cli.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { describeIf, isLinux, isRoot } from "../helpers/test-if.ts";
import { type TugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const SECRET = "hf_this-is-nobodys-business";
const { env, platform } = process;
const { sandbox, problem } = await findSandbox({ mode: "auto", platform, env });
const whereItWorks = describeIf(
  sandbox.name === "bubblewrap",
  problem?.reason ?? "no bubblewrap on this platform",
);

const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const TRIAL_MS = 5000;
const asNobody = describeIf(
  isLinux && isRoot && nobodyMay(["test", "-r", join(ROOT, "package.json")]) && nobodyIsConfined(),
  "needs root to become nobody, user namespaces for nobody, and a checkout that nobody may read",
);

function nobodyMay(command: readonly string[]): boolean {
  return (
    Bun.which("setpriv") !== null &&
    Bun.spawnSync([...NOBODY, ...command], { timeout: TRIAL_MS }).success
  );
}

function nobodyIsConfined(): boolean {
  return (
    Bun.which("bwrap") !== null &&
    nobodyMay(["bwrap", "--unshare-pid", "--ro-bind", "/", "/", "true"])
  );
}

async function workers(home: TugHome): Promise<WorkerStatus[]> {
  return JSON.parse((await home.tug(["ps", "--json"])).stdout) as WorkerStatus[];
}

/** A directory with what the runner finds on `PATH`, but no bubblewrap. */
async function pathWithout(directory: string): Promise<string> {
  const bin = join(directory, "bin");
  await mkdir(bin);
  const setpriv = Bun.which("setpriv");
  if (setpriv !== null) await symlink(setpriv, join(bin, "setpriv"));
  return bin;
}

whereItWorks("an engine of a runner that requires a sandbox", () => {
  test("answers, in namespaces of its own, and goes with a killed runner", async () => {
    await using home = await tugHome({
      engine: true,
      env: { TUG_SANDBOX: "require", HF_TOKEN: SECRET },
    });

    const answer = await home.tug(["run", "pebble", "hi", "--temperature", "0"]);

    expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Pebble") });
    expect(await workers(home)).toMatchObject([{ sandbox: "bubblewrap", state: "ready" }]);
    expect(JSON.parse((await home.tug(["status", "--json"])).stdout)).toMatchObject({
      sandbox: { mode: "require", name: "bubblewrap", problem: null },
    });
    const [engine] = await enginesOf(home.path);
    const at = (name: string): string => `/proc/${engine?.pid}/${name}`;
    for (const namespace of ["ns/net", "ns/pid", "ns/mnt", "ns/ipc"])
      expect(await readlink(at(namespace))).not.toBe(await readlink(`/proc/self/${namespace}`));
    expect(await readFile(at("environ"), "utf8")).not.toContain(SECRET);
    expect(await readFile(at("status"), "utf8")).toMatch(/^NoNewPrivs:\t1$/m);
    // What it has mounted is what it sees: its own places, no home and no store.
    const mounts = await readFile(at("mountinfo"), "utf8");
    expect(mounts).toContain(join(home.path, "backends"));
    expect(mounts).not.toContain(join(home.path, "tug.db"));
    expect(mounts).not.toContain(` ${home.path} `);
    expect(mounts).not.toContain(` ${join(home.path, "run")} `);

    const [runner] = await runnersOf(home.path);
    process.kill(runner?.pid ?? 0, "SIGKILL");
    await eventually(async () => (await processesNaming(home.path)).length === 0);
  });

  test("leaves no directory behind when it is unloaded", async () => {
    await using home = await tugHome({ engine: true, env: { TUG_SANDBOX: "require" } });
    await home.tug(["run", "pebble", "hi"]);
    const [engine] = await enginesOf(home.path);

    await home.tug(["unload", "pebble"]);

    await eventually(async () => (await workers(home)).length === 0);
    expect(engine).toBeDefined();
    expect(await enginesOf(home.path)).toEqual([]);
    const left = await Array.fromAsync(new Bun.Glob("worker-*").scan(join(home.path, "run")));
    expect(left).toEqual([]);
  });
});

/** Models in places that are odd, or that the sandbox itself has a use for. */
async function oddPlaces(directory: string): Promise<readonly string[]> {
  const spaced = join(directory, "my 'models', \"all\"");
  const shards = join(directory, "shards");
  await Promise.all([mkdir(spaced), mkdir(shards), symlink(spaced, join(directory, "link"))]);
  await copyFile(PEBBLE, join(spaced, "a b,c=d.gguf"));
  await symlink("a b,c=d.gguf", join(spaced, "--model.gguf"));
  // Shards are found beside the first, each a link into another directory.
  for (const number of [1, 2, 3]) {
    const shard = FIRST_SHARD.replace("00001-of", `0000${number}-of`);
    await symlink(shard, join(shards, `m-0000${number}-of-00003.gguf`));
  }
  return [
    join(spaced, "a b,c=d.gguf"),
    join(directory, "link", "--model.gguf"),
    join(shards, "m-00001-of-00003.gguf"),
  ];
}

whereItWorks("a file that is run by its path", () => {
  test("is seen by its engine wherever it lies", async () => {
    await using directory = await tempDir();
    await using home = await tugHome({ engine: true, env: { TUG_SANDBOX: "require" } });
    for (const path of await oddPlaces(directory.path)) {
      const answer = await home.tug(["run", path, "hi", "--temperature", "0"]);

      expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Pebble") });
    }
    for (const { sandbox: name } of await workers(home)) expect(name).toBe("bubblewrap");
  });
});

asNobody("a user without privileges", () => {
  test.each([
    ["auto", "bubblewrap"],
    ["require", "bubblewrap"],
    ["off", "none"],
  ])("with sandbox = %s runs engines in %s, and none outlives the runner", async (mode, name) => {
    await using home = await tugHome({ engine: true, env: { TUG_SANDBOX: mode } });
    await chmod(home.path, 0o700);
    Bun.spawnSync(["chown", "-R", "65534:65534", home.path]);
    const binary = await tugBinary();
    const tug = async (...args: string[]): Promise<CliResult> => {
      const child = Bun.spawn([...NOBODY, binary, ...args], {
        env: { PATH: env["PATH"], ...home.env },
        cwd: "/",
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 60_000,
      });
      const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
      return { stdout, stderr, exitCode: await child.exited };
    };

    const answer = await tug("run", "pebble", "hi", "--temperature", "0");
    const listed = JSON.parse((await tug("ps", "--json")).stdout) as WorkerStatus[];
    const [runner] = await runnersOf(home.path);
    const [engine] = await enginesOf(home.path);
    const owner = await readFile(`/proc/${engine?.pid}/status`, "utf8");
    process.kill(runner?.pid ?? 0, "SIGKILL");

    expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Pebble") });
    expect(listed).toMatchObject([{ sandbox: name, state: "ready" }]);
    expect(owner).toMatch(/^Uid:\t65534\t/m);
    await eventually(async () => (await processesNaming(home.path)).length === 0);
  });
});

describeIf(isLinux, "others have no bubblewrap")("a machine without bubblewrap", () => {
  test("runs engines under limits, and warns once", async () => {
    await using directory = await tempDir();
    const path = await pathWithout(directory.path);
    await using home = await tugHome({ engine: true, env: { TUG_SANDBOX: "auto", PATH: path } });

    const first = await home.tug(["run", "pebble", "hi"]);
    const shown = await workers(home);
    const status = await home.tug(["status"]);
    await home.tug(["unload", "pebble"]);
    await eventually(async () => (await workers(home)).length === 0);
    const second = await home.tug(["run", "pebble", "hi"]);

    expect([first.exitCode, second.exitCode]).toEqual([0, 0]);
    expect(shown).toMatchObject([{ sandbox: "limits" }]);
    expect(status.stdout).toContain("Sandbox:  limits: bubblewrap is not installed");
    const log = await logOf(home);
    expect(log.match(/bubblewrap is not installed/g)).toHaveLength(1);
    expect(log).toContain("apt install bubblewrap");
  });

  test("refuses where a sandbox is required, and says what to install", async () => {
    await using directory = await tempDir();
    const path = await pathWithout(directory.path);
    await using home = await tugHome({ engine: true, env: { TUG_SANDBOX: "require", PATH: path } });

    const refused = await home.tug(["run", "pebble", "hi"]);

    expect(refused.exitCode).toBe(1);
    expect(refused.stdout).toBe("");
    expect(refused.stderr).toContain("bubblewrap is not installed");
    expect(refused.stderr).toContain("apt install bubblewrap");
    expect(await enginesOf(home.path)).toEqual([]);
  });

  test("says nothing where none is wanted", async () => {
    await using home = await tugHome({ engine: true, env: { TUG_SANDBOX: "off" } });

    const answer = await home.tug(["run", "pebble", "hi"]);

    expect(answer.exitCode).toBe(0);
    expect(await workers(home)).toMatchObject([{ sandbox: "none" }]);
    expect(await logOf(home)).not.toContain("bubblewrap");
  });
});

describe("a setting that is none of them", () => {
  test("is refused with those there are", async () => {
    await using home = await tugHome({ env: { TUG_SANDBOX: "sometimes" } });

    const refused = await home.tug(["list"]);

    expect(refused.exitCode).toBe(2);
    for (const mode of ["auto", "off", "require"]) expect(refused.stderr).toContain(mode);
  });
});

async function logOf(home: TugHome): Promise<string> {
  const files = await Array.fromAsync(new Bun.Glob("runner*").scan(join(home.path, "logs")));
  const texts = files.map((name) => readFile(join(home.path, "logs", name), "utf8"));
  return (await Promise.all(texts)).join("\n");
}
