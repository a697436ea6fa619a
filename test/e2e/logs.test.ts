import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { tugBinary } from "../helpers/binary.ts";
import { eventually } from "../helpers/eventually.ts";
import { cleanEnvironment } from "../helpers/run-cli.ts";
import { type TugHome, sharedTugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

const TIMED = /^\[(\d{4}-\d\d-\d\dT[\d:.]+Z)\] /;
const READY = / info runtime: worker ready model=\S*pebble\S* /;
const STARTED = / pebble \| engine started backend=llama\.cpp pid=\d+$/;

describe("tug logs", () => {
  const home = sharedTugHome();

  test("shows what the runner and its engines said, by time", async () => {
    await home().tug(["run", "pebble", "hi"]);

    const lines = await linesOf(home(), []);

    const times = lines.map((line) => Date.parse(TIMED.exec(line)?.[1] ?? ""));
    expect(times).toEqual(times.toSorted((one, other) => one - other));
    expect(lines.filter((line) => READY.test(line))).toHaveLength(1);
    expect(lines.filter((line) => STARTED.test(line))).toHaveLength(1);
    expect(lines.filter((line) => line.includes("] pebble | ")).length).toBeGreaterThan(3);
  });

  test("shows as much as it is asked for", async () => {
    const all = await linesOf(home(), []);

    expect(await linesOf(home(), ["--tail", "2"])).toEqual(all.slice(-2));
    expect(await linesOf(home(), ["--since", "2126-01-31"])).toEqual([]);
    expect(await linesOf(home(), ["--since", "1h"])).toEqual(all);
    expect(await linesOf(home(), ["--no-engines"])).toEqual(
      all.filter((line) => !line.includes("] pebble | ")),
    );
    expect(await linesOf(home(), ["--model", "pebble"])).toEqual(
      all.filter((line) => line.includes("pebble")),
    );
    expect(await linesOf(home(), ["--model", "other"])).toEqual([]);
  });

  test("says what is wrong with what it is asked", async () => {
    const wrong = await Promise.all(
      [["--since", "noon"], ["--tail", "x"], ["--tail", "-1"], ["worker-1"]].map((args) =>
        home().tug(["logs", ...args]),
      ),
    );

    expect(wrong.map(({ exitCode }) => exitCode)).toEqual([2, 2, 2, 2]);
    for (const { stderr } of wrong) expect(stderr).toMatch(/^error: .+\nhint: .+\n$/);
  });

  test("follows, and ends with the runner; it is there afterwards too", async () => {
    const follower = Bun.spawn([await tugBinary(), "logs", "-f", "--tail", "0"], {
      env: { ...cleanEnvironment(), ...home().env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const decoder = new TextDecoder();
    let seen = "";
    const reading = (async () => {
      for await (const bytes of follower.stdout) seen += decoder.decode(bytes, { stream: true });
    })();
    // It may not be there yet when the first one is asked.
    await eventually(async () => {
      await home().tug(["run", "pebble", "hi"]);
      return seen.includes("] pebble | ");
    }, 30_000);

    await home().tug(["stop-runner"]);
    await reading;

    expect(await follower.exited).toBe(0);
    expect(seen).toContain(" info runner: stopping ");
    expect((await linesOf(home(), ["--tail", "1"]))[0]).toEndWith(" info runner: stopped");
    expect(await home().tug(["logs", "-f"])).toMatchObject({ exitCode: 1, stdout: "" });
  });

  test("keeps its files to their owner", async () => {
    for (const name of ["runner.log", "worker-1.log"]) {
      const { mode } = await stat(join(home().path, "logs", name));
      if (process.platform !== "win32") expect(mode & 0o077).toBe(0);
    }
  });
});

describe("tug serve --log-format json", () => {
  test("writes an object a line and nothing else, also when it fails; the engines' lines look the same", async () => {
    await using home = await tugHome({ engine: true });
    const serve = await spawnServe(home);
    await eventually(async () => (await home.tug(["status"])).stdout.includes("is running"));

    const second = await home.tug(["serve", "--log-format", "json"]);
    await home.tug(["run", "pebble", "hi"]);
    const merged = await home.tug(["logs"]);
    await home.tug(["stop-runner"]);
    const said = await serve.stderr.text();

    expect(await serve.exited).toBe(0);
    const objects = parseLines(said);
    expect(objects).toContainEqual(
      expect.objectContaining({
        time: expect.stringMatching(/Z$/),
        level: "info",
        scope: "runtime",
        message: "worker ready",
        backend: "llama.cpp",
        pid: expect.any(Number),
      }),
    );
    expect(second.exitCode).toBe(1);
    expect(parseLines(second.stderr)).toMatchObject([{ level: "error", code: "conflict" }]);
    expect(parseLines(merged.stdout)[0]).toMatchObject({ scope: "engine", level: "info" });
    expect(merged.stderr).toStartWith("note: ");
  });

  test("the runner in the background does so by its configuration", async () => {
    await using home = await tugHome({ engine: true, env: { TUG_LOG_FORMAT: "json" } });

    await home.tug(["run", "pebble", "hi"]);

    const text = await readFile(join(home.path, "logs", "runner.log"), "utf8");
    expect(parseLines(text)[0]).toMatchObject({ level: "info", scope: "runner" });
    expect(parseLines((await home.tug(["logs"])).stdout).length).toBeGreaterThan(5);
  });
});

// --- internal ---

async function linesOf(home: TugHome, args: readonly string[]): Promise<string[]> {
  const { stdout, stderr, exitCode } = await home.tug(["logs", ...args]);
  expect([stderr.replace("Nothing was logged.\n", ""), exitCode]).toEqual(["", 0]);
  return stdout.split("\n").slice(0, -1);
}

async function spawnServe(home: TugHome): Promise<Bun.Subprocess<"ignore", "pipe", "pipe">> {
  return Bun.spawn([await tugBinary(), "serve", "--log-format", "json"], {
    env: { ...cleanEnvironment(), ...home.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** @throws if a line is no JSON */
function parseLines(text: string): unknown[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as unknown);
}
