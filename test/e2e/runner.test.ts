import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createServer } from "node:net";
import type { RunnerInfo, WorkerStatus } from "../../src/api/engines.ts";
import { describeIf } from "../helpers/test-if.ts";
import { eventually } from "../helpers/eventually.ts";
import { CAN_LIST_PROCESSES, enginesOf, isAlive, runnersOf } from "../helpers/processes.ts";
import type { CliResult } from "../helpers/run-cli.ts";
import { type TugHome, sharedTugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const AT_ONCE = 20;
/** What an engine may outlive its killed runner by. */
const ORPHAN_LIMIT_MS = 12_000;

describeIf(CAN_LIST_PROCESSES, "processes cannot be listed here")("exactly one runner", () => {
  const home = sharedTugHome();

  test("twenty commands at once start one runner and one worker, and all are answered", async () => {
    const answers = await askAtOnce(home());

    expect(answers.filter(isAnswered)).toHaveLength(AT_ONCE);
    expect(await runnersOf(home().path)).toHaveLength(1);
    expect(await enginesOf(home().path)).toHaveLength(1);
    expect(await workers(home())).toHaveLength(1);
  });

  test("the same after the runner was killed and its socket stayed behind", async () => {
    const [runner] = await runnersOf(home().path);
    process.kill(runner?.pid ?? 0, "SIGKILL");
    await eventually(async () => !(await isAlive(runner?.pid ?? 0)));
    const socketStayed = existsSync(join(home().path, "run", "runner.sock"));

    const answers = await askAtOnce(home());

    expect(socketStayed).toBe(true);
    expect(answers.filter(isAnswered)).toHaveLength(AT_ONCE);
    const runners = await runnersOf(home().path);
    expect(runners).toHaveLength(1);
    expect(runners[0]?.pid).not.toBe(runner?.pid);
    expect(await enginesOf(home().path)).toHaveLength(1);
    expect(await workers(home())).toHaveLength(1);
  });

  test("an engine does not outlive a killed runner", async () => {
    const [runner] = await runnersOf(home().path);
    const before = await enginesOf(home().path);

    process.kill(runner?.pid ?? 0, "SIGKILL");

    expect(before).toHaveLength(1);
    await eventually(async () => (await enginesOf(home().path)).length === 0, ORPHAN_LIMIT_MS);
  });

  test("stopping it leaves nothing behind", async () => {
    await home().tug(["run", "pebble", "hi"]);
    const before = [await runnersOf(home().path), await enginesOf(home().path)];

    const stopped = await home().tug(["stop-runner"]);

    expect(before.map(({ length }) => length)).toEqual([1, 1]);
    expect(stopped.exitCode).toBe(0);
    expect((await home().tug(["status"])).exitCode).toBe(1);
    await eventually(async () => (await runnersOf(home().path)).length === 0);
    expect(await enginesOf(home().path)).toEqual([]);
  });
});

describe("workers", () => {
  test("are listed, and unloaded on request", async () => {
    await using home = await tugHome({ engine: true });
    await home.tug(["run", "pebble", "hi"]);
    const before = await workers(home);

    const unloaded = await home.tug(["unload", "pebble"]);

    expect(before).toMatchObject([
      { model_name: expect.stringContaining("pebble"), state: "ready", in_use: false },
    ]);
    expect(unloaded.exitCode).toBe(0);
    await eventually(async () => (await workers(home)).length === 0);
  });

  test("leave when their time is over, and the runner stays", async () => {
    await using home = await tugHome({ engine: true });
    await home.tug(["run", "pebble", "hi", "--keep-alive", "1s"]);

    await eventually(async () => (await workers(home)).length === 0);

    expect((await home.tug(["status"])).exitCode).toBe(0);
  });
});

describe("an older runner", () => {
  test("finishes its work and is replaced by a newer command's", async () => {
    await using home = await tugHome({ engine: true });
    // A source checkout calls itself 0.0.0-dev, which is older than any release.
    const source = [process.execPath, join(import.meta.dir, "../../src/main.ts")];
    const started = Bun.spawnSync([...source, "start-runner", "--json"], { env: home.env });
    const old = JSON.parse(started.stdout.toString()) as RunnerInfo;

    const answer = await home.tug(["run", "pebble", "hi"]);
    const now = JSON.parse((await home.tug(["status", "--json"])).stdout) as RunnerInfo;

    expect(old.version).toBe("0.0.0-dev");
    expect(isAnswered(answer)).toBe(true);
    expect(now.version).not.toBe(old.version);
    expect(await isAlive(old.pid)).toBe(false);
  });
});

describe("a port that is taken", () => {
  test("costs the endpoint, not the answer, and the status says why", async () => {
    await using home = await tugHome({ engine: true });
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(home.port, "127.0.0.1", resolve));
    try {
      const answer = await home.tug(["run", "pebble", "hi"]);
      // Who has the port is found out while the socket serves already.
      const problem = await eventually(async () => (await statusOf(home)).endpoint_problem);

      expect(answer).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Pebble") });
      expect(problem).toContain(String(home.port));
      expect(await statusOf(home)).toMatchObject({ running: true, endpoint: null });
    } finally {
      squatter.close();
    }
  });
});

function askAtOnce(home: TugHome): Promise<CliResult[]> {
  const ask = (): Promise<CliResult> => home.tug(["run", "pebble", "hi", "--temperature", "0"]);
  return Promise.all(Array.from({ length: AT_ONCE }, ask));
}

function isAnswered({ exitCode, stdout }: CliResult): boolean {
  return exitCode === 0 && stdout.includes("Pebble");
}

async function statusOf(home: TugHome): Promise<RunnerInfo> {
  return JSON.parse((await home.tug(["status", "--json"])).stdout) as RunnerInfo;
}

async function workers(home: TugHome): Promise<WorkerStatus[]> {
  return JSON.parse((await home.tug(["ps", "--json"])).stdout) as WorkerStatus[];
}
