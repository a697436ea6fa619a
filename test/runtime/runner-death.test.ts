import { describe, expect } from "bun:test";
import { isWindows, testIf } from "../helpers/test-if.ts";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { listDescendants } from "../../src/runtime/measure.ts";
import { readStartTime } from "../../src/runtime/process-identity.ts";
import { findSandbox } from "../../src/runtime/sandbox/index.ts";
import { Supervisor } from "../../src/runtime/supervisor.ts";
import { StateDatabase } from "../../src/state/database.ts";
import { WorkerRecords } from "../../src/state/worker-records.ts";
import { fakeBackend, fakeInstallation } from "../fakes/backend.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const RUNNER = join(import.meta.dir, "..", "fakes", "runner.ts");
const sandbox = await findSandbox({
  mode: "auto",
  platform: process.platform,
  env: process.env,
});
const confined = testIf(
  sandbox.sandbox.name === "bubblewrap",
  sandbox.problem?.reason ?? "no bubblewrap on this platform",
);
const posix = testIf(!isWindows, "Windows works otherwise");

function startRunner(directory: string, flags: readonly string[], env = {}) {
  return Bun.spawn([process.execPath, RUNNER, directory, ...flags], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
}

async function firstLine(
  stream: ReadableStream<Uint8Array>,
): Promise<{ readonly pids: readonly number[] }> {
  let text = "";
  for await (const chunk of stream) {
    text += new TextDecoder().decode(chunk);
    if (text.includes("\n")) break;
  }
  return JSON.parse(text);
}

const isAlive = (pid: number): boolean => readStartTime(pid) !== undefined;

describe("a runner's death", () => {
  posix(
    "runner: no engine and no child of one survives kill -9, not even those that ignore SIGTERM",
    async () => {
      await using directory = await tempDir();
      const pidFile = join(directory.path, "grandchild.pid");
      const runner = startRunner(directory.path, [
        "--stderr=obedient",
        "--ignore-sigterm",
        `--grandchild=${pidFile}`,
      ]);
      const { pids } = await firstLine(runner.stdout);
      const all = [...pids, Number(await readFile(pidFile, "utf8"))];
      expect(all).toHaveLength(4);
      expect(all.filter(isAlive)).toEqual(all);

      runner.kill("SIGKILL");

      await eventually(() => !all.some(isAlive));
    },
  );

  confined("runner: no engine survives kill -9 in its sandbox either", async () => {
    await using directory = await tempDir();
    const flags = ["--stderr=obedient", "--ignore-sigterm"];
    const runner = startRunner(directory.path, flags, { CONFINED: "1" });
    const { pids } = await firstLine(runner.stdout);
    const all = pids.flatMap((pid) => listDescendants(pid));
    // A watcher, two of the sandbox's and the engine.
    expect(all.length).toBeGreaterThanOrEqual(2 * 4);
    expect(all.filter(isAlive)).toEqual(all);

    runner.kill("SIGKILL");

    await eventually(() => !all.some(isAlive));
  });

  posix("runner: an engine that was asked to end and did not is still guarded", async () => {
    await using directory = await tempDir();
    const runner = startRunner(directory.path, ["--ignore-sigterm"]);
    const { pids } = await firstLine(runner.stdout);
    for (const pid of pids) process.kill(-pid, "SIGTERM");
    expect(pids.filter(isAlive)).toHaveLength(1);

    runner.kill("SIGKILL");

    await eventually(() => !pids.some(isAlive));
  });

  posix(
    "runner: a supervisor whose workers have gone keeps nothing alive: the process ends by itself",
    async () => {
      await using directory = await tempDir();
      const runner = startRunner(directory.path, ["idle"]);

      const { pids } = await firstLine(runner.stdout);

      expect(await runner.exited).toBe(0);
      expect(pids).toHaveLength(1);
      expect(pids.filter(isAlive)).toEqual([]);
    },
  );

  posix(
    "runner: what a dead one left behind is killed at the next start, and nothing else",
    async () => {
      await using directory = await tempDir();
      using state = new StateDatabase(join(directory.path, "tug.db"));
      const records = new WorkerRecords(state);
      const sleepers = [1, 2].map(() => Bun.spawn(["/bin/sleep", "1000"], { detached: true }));
      const [leftover = 0, stranger = 0] = sleepers.map(({ pid }) => pid);
      records.add({ pid: leftover, startTime: readStartTime(leftover) ?? "" });
      records.add({ pid: stranger, startTime: "of another process with this number" });
      records.add({ pid: 2 ** 22 - 1, startTime: "long gone" });
      const supervisor = new Supervisor({
        backends: [fakeBackend()],
        installer: {
          ensure: () => Promise.resolve(fakeInstallation()),
          active: () => Promise.resolve(undefined),
        },
        runDirectory: directory.path,
        logDirectory: directory.path,
        pidStore: records,
        limits: { maxWorkers: 1, queueLimit: 1, keepAliveMs: 0 },
        cores: 1,
      });

      const reaped = await supervisor.reapLeftovers();

      expect(reaped).toBe(1);
      expect(records.list()).toEqual([]);
      await eventually(() => !isAlive(leftover));
      expect(isAlive(stranger)).toBe(true);
      for (const sleeper of sleepers) sleeper.kill("SIGKILL");
    },
  );
});
