import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AvailableEngine, EngineInstallation, WorkerStatus } from "../../src/api/engines.ts";
import type { Installation } from "../../src/runtime/backend.ts";
import { isLinux, testIf } from "../helpers/test-if.ts";
import { type TugHome, sharedTugHome, tugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(120_000);

const NAME = "llama.cpp";
const OLD = "0.0.1";

async function json<T>(home: TugHome, ...words: string[]): Promise<T> {
  return JSON.parse((await home.tug([...words, "--json"])).stdout) as T;
}

async function llamacpp(home: TugHome): Promise<AvailableEngine> {
  const engines = await json<AvailableEngine[]>(home, "engines");
  const found = engines.find(({ name }) => name === NAME);
  if (found === undefined) throw new Error("it is not listed");
  return found;
}

async function inUse(home: TugHome): Promise<string | undefined> {
  return (await llamacpp(home)).installed.find(({ active }) => active)?.version;
}

/** The same engine once more, under another version. */
async function addOld(home: TugHome): Promise<void> {
  const { installed } = await llamacpp(home);
  if (installed.some(({ version }) => version === OLD)) return;
  const [present] = installed;
  if (present === undefined) throw new Error("no engine is installed");
  const directory = join(home.path, "backends", NAME, `${OLD}-${present.variant}`);
  await cp(present.directory, directory, { recursive: true });
  const record = join(directory, "install.json");
  const installation = JSON.parse(await readFile(record, "utf8")) as Installation;
  await writeFile(record, JSON.stringify({ ...installation, version: OLD }));
}

describe("versions of an engine", () => {
  const home = sharedTugHome();

  const onLinux = testIf(isLinux, "reads /proc");

  onLinux("one that is chosen runs the models that are loaded from then on", async () => {
    await addOld(home());
    const young = await inUse(home());
    const before = await home().tug(["run", "pebble", "What is the capital of France?"]);
    const [first] = await json<WorkerStatus[]>(home(), "ps");

    const used = await json<EngineInstallation>(home(), "engines", "use", NAME, OLD);
    const still = await home().tug(["run", "pebble", "What is the capital of France?"]);
    const [same] = await json<WorkerStatus[]>(home(), "ps");
    const kept = await commandOf(same);
    await home().tug(["unload", "--all"]);
    const after = await home().tug(["run", "pebble", "What is the capital of France?"]);
    const [second] = await json<WorkerStatus[]>(home(), "ps");

    for (const { stdout } of [before, still, after]) expect(stdout).toContain("Paris");
    expect(used).toMatchObject({ version: OLD, active: true });
    expect(same?.pid).toBe(first?.pid ?? null);
    expect(kept).toContain(`/${NAME}/${young}-`);
    expect(await commandOf(second)).toContain(`/${NAME}/${OLD}-`);

    const back = await json<EngineInstallation>(home(), "engines", "rollback", NAME);
    expect(back.version).toBe(young ?? "");
    expect(await inUse(home())).toBe(young ?? "");
    expect((await llamacpp(home())).previous).toStartWith(`${OLD}-`);
  });

  test("config.toml says which one there should be, and the table what to run", async () => {
    await addOld(home());
    const config = join(home().path, "config.toml");
    await writeFile(config, `[engines."${NAME}"]\nversion = "${OLD}"\n`);

    const { stdout, stderr, exitCode } = await home().tug(["engines"]);
    const [, command = ""] = /hint: Run `tug (engines use .*)`\./.exec(stderr) ?? [];
    await home().tug(command.split(" "));

    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/\* \S+/);
    expect(stderr).toContain(`is in use, and config.toml says ${OLD}`);
    expect(await inUse(home())).toBe(OLD);
    expect((await llamacpp(home())).problem).toBeNull();
    await writeFile(config, "");
  });

  test("one that is removed takes idle models with it, and leaves the other", async () => {
    await addOld(home());
    await home().tug(["engines", "use", NAME, OLD]);
    await home().tug(["run", "-d", "pebble"]);

    const removed = await json<EngineInstallation[]>(
      home(),
      "uninstall-runner",
      "--backend",
      NAME,
      "--version",
      OLD,
    );

    expect(removed).toMatchObject([{ version: OLD, active: false }]);
    expect(await json<WorkerStatus[]>(home(), "ps")).toEqual([]);
    expect(
      (await home().tug(["run", "pebble", "What is the capital of France?"])).stdout,
    ).toContain("Paris");
    expect(await inUse(home())).not.toBe(OLD);
  });
});

describe("tug engines", () => {
  test("works where nothing is installed and nothing runs, and leaves nothing behind", async () => {
    await using home = await tugHome();

    const { stdout, exitCode } = await home.tug(["engines", "--offline"]);

    expect(exitCode).toBe(0);
    expect(stdout).toContain(NAME);
    expect(await Array.fromAsync(new Bun.Glob("**").scan({ cwd: home.path }))).toEqual([]);
  });

  test.each([
    [["engines", "use", NAME, "9"], 1, "it is not installed"],
    [["engines", "use", "abacus", "9"], 1, "`abacus`: it is not known"],
    [["engines", "rollback", NAME], 1, "no version was used before"],
    [["engines", "use", NAME], 2, "say which version"],
    [["engines", "usee", NAME], 2, "nothing to do with engines"],
    [["engines", "list", "x"], 2, "unexpected argument `x`"],
    [["install-runner", "--python", "/nowhere/python"], 2, "it does not run in one"],
    [["uninstall-runner", "--backend", "abacus"], 1, "`abacus`: it is not known"],
  ] as [string[], number, string][])("%j ends with %d", async (words, code, message) => {
    await using home = await tugHome();

    const { stderr, exitCode } = await home.tug(words);

    expect(stderr).toContain(message);
    expect(exitCode).toBe(code);
  });

  test("an engine that nobody knows in config.toml is named with those there are", async () => {
    await using home = await tugHome();
    await writeFile(join(home.path, "config.toml"), '[engines.abacus]\nversion = "1"\n');

    const { stderr, exitCode } = await home.tug(["engines"]);

    expect(exitCode).toBe(2);
    expect(stderr).toContain('`[engines."abacus"]`');
    expect(stderr).toContain(`Known are ${NAME}`);
  });
});

/** With the sandbox's words, if there is one, before the engine's. */
async function commandOf(worker: WorkerStatus | undefined): Promise<string> {
  const text = await readFile(`/proc/${worker?.pid}/cmdline`, "utf8");
  return text.replaceAll("\0", " ");
}
