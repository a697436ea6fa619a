import { describe, expect, test } from "bun:test";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { composeBackends, BACKENDS } from "../../src/runtime/backends.ts";
import type { Backend, ExitFacts } from "../../src/runtime/backend.ts";
import { readCustomEngines } from "../../src/runtime/custom-engine.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const ECHO = { command: ["sh", "echo.sh", "${MODEL}", "~/x", "${PORT}"], formats: ["echo"] };
const INPUT = {
  bundle: { directory: "/b", format: "echo", model: "/b/x.bin", weightBytes: 1 },
  mode: "completion",
  settings: { contextTokens: 4096, runtimeFlags: ["--loud", "${PORT}"] },
  alias: "me/x",
  socket: "/run/e.sock",
  port: 4000,
  cores: 3,
  platform: "linux",
} as const;

function engine(table: Readonly<Record<string, unknown>> = ECHO): Backend {
  const [found] = readCustomEngines({ echo: table }, []);
  if (found === undefined) throw new Error("there is none");
  return found;
}

const exit = (facts: Partial<ExitFacts>): ExitFacts => ({
  exitCode: 1,
  signal: null,
  stderrTail: "",
  ...facts,
});

describe("composeBackends", () => {
  test("custom: those of the user's own come first, in the order of the file", () => {
    const tables = { b: ECHO, a: ECHO, "llama.cpp": { version: "b1" } };

    expect(composeBackends(tables).map(({ name }) => name)).toEqual([
      "b",
      "a",
      ...BACKENDS.map(({ name }) => name),
    ]);
  });

  test("custom: none is configured", () => {
    expect(composeBackends({})).toEqual(BACKENDS);
  });

  test("custom: a built-in engine cannot be replaced", () => {
    const tables = { "llama.cpp": ECHO };

    expect(() => composeBackends(tables)).toThrow("Tug has an engine of that name");
  });
});

describe("customEngine", () => {
  test("custom: its arguments are its words, expanded, and then the flags as they are", () => {
    const { args, env } = engine({ ...ECHO, env: { M: "${MODEL_NAME}" } }).args(INPUT);

    expect(args).toEqual([
      "echo.sh",
      "/b/x.bin",
      expect.stringMatching(/^\/.*\/x$/),
      "4000",
      "--loud",
      "${PORT}",
    ]);
    expect(env).toEqual({ M: "me/x" });
  });

  test("custom: it listens where its command says", () => {
    expect(engine().listensOn).toBe("port");
    expect(engine({ ...ECHO, command: "a ${SOCKET}" }).listensOn).toBe("socket");
    expect(engine({ ...ECHO, command: "a", env: { P: "${PORT}" } }).listensOn).toBe("port");
  });

  test("custom: flags are for the owner alone", () => {
    const backend = engine();
    const flags = ["--any", "/path"];

    expect(backend.readFlags?.(flags, { allowPaths: true })).toMatchObject({ flags, settings: {} });
    expect(() => backend.readFlags?.(flags, { allowPaths: false })).toThrow(
      expect.objectContaining({ code: "forbidden" }),
    );
    expect(backend.readFlags?.([], { allowPaths: false })).toMatchObject({ flags: [] });
  });

  test.each<[string, Partial<ExitFacts>, string]>([
    ["says nothing", {}, "the engine ended with exit code 1"],
    [
      "prints a traceback",
      { stderrTail: 'Traceback:\n  File "a.py"\nValueError: no such layer\n\n' },
      "the engine ended with exit code 1: ValueError: no such layer",
    ],
    [
      "is followed by the name of its runtime",
      { stderrTail: "error: bad weights\n      at x.ts:1\n\nBun v1.4.5 (Linux x64)\n" },
      "the engine ended with exit code 1: error: bad weights",
    ],
    [
      "prints controls",
      { stderrTail: "a\u001B[31m\tb\n" },
      "the engine ended with exit code 1: a [31m b",
    ],
    [
      "was killed",
      { exitCode: null, signal: "SIGTERM", stderrTail: "x" },
      "the engine was ended by SIGTERM",
    ],
  ])("custom: an engine that %s", (_what, facts, reason) => {
    expect(engine().explainExit(exit(facts))).toEqual({ reason });
  });

  test("custom: a long line is cut", () => {
    const { reason } = engine().explainExit(exit({ stderrTail: "x".repeat(5000) }));

    expect(reason.length).toBeLessThan(300);
  });

  test("custom: a file that it does not see may be hidden by the sandbox", () => {
    const stderrTail = "python3: can't open file '/opt/x.py': [Errno 2] No such file or directory";

    expect(engine().explainExit(exit({ stderrTail })).reason).toContain("`reads`");
  });

  test.each<Partial<ExitFacts>>([
    { stderrTail: "torch.cuda.OutOfMemoryError: CUDA out of memory." },
    { exitCode: null, signal: "SIGKILL", wasMemoryShort: true },
  ])("custom: %j is a lack of memory", (facts) => {
    expect(engine().explainExit(exit(facts)).isOutOfMemory).toBe(true);
  });
});

describe("what is there of it", () => {
  test("custom: its program is found on PATH, each time anew", async () => {
    await using directory = await tempDir();
    const program = join(directory.path, "sh");
    const env = { PATH: directory.path };
    const { recipe } = engine();

    const before = await recipe.config?.(env).catch((error: unknown) => error);
    await writeFile(program, "#!/bin/sh\n");
    await chmod(program, 0o755);
    const after = await recipe.config?.(env);

    expect(before).toMatchObject({
      code: "install_failed",
      message: "cannot start echo: its program `sh` is not on PATH",
      hint: expect.stringContaining("config.toml"),
    });
    expect(after).toMatchObject({
      backend: "echo",
      source: "config",
      variant: "host",
      command: [program],
      version: expect.stringMatching(/^[0-9a-f]{8}$/),
    });
  });

  test("custom: a program that is not there, and one that is no program", async () => {
    await using directory = await tempDir();
    const plain = join(directory.path, "plain");
    await writeFile(plain, "");
    const failures = [join(directory.path, "no"), plain, directory.path].map(async (program) => {
      const { recipe } = engine({ ...ECHO, command: [program, "${PORT}"] });
      const failure: unknown = await recipe.config?.({}).catch((error: unknown) => error);
      return (failure as Error).message;
    });

    expect(await Promise.all(failures)).toEqual([
      expect.stringMatching(/is not there$/),
      expect.stringMatching(/cannot be executed$/),
      expect.stringMatching(/cannot be executed$/),
    ]);
  });

  test("custom: another command is another version", async () => {
    const versions = ["${PORT}", "--port=${PORT}"].map(async (word) => {
      const { recipe } = engine({ ...ECHO, command: [process.execPath, word] });
      return (await recipe.config?.({}))?.version;
    });
    const [one, other] = await Promise.all(versions);

    expect(one).not.toBe(other);
  });

  test("custom: it needs the files that its command names and `reads`, if they are there", async () => {
    await using directory = await tempDir();
    const { path } = directory;
    const [script, config, data] = ["e.ts", "c.yaml", "data"].map((name) => join(path, name));
    await Promise.all([script, config].map((file) => writeFile(file ?? "", "")));
    await mkdir(data ?? "");
    const command = [
      process.execPath,
      script,
      `--c=${config}`,
      "--out",
      join(path, "no"),
      "/tmp",
      "~/e.ts",
      "${PORT}",
    ];

    const found = await engine({ command, formats: ["echo"], reads: ["~/data"] }).recipe.config?.({
      HOME: path,
    });

    expect(found?.needs).toEqual([script, config, data] as string[]);
  });

  test("custom: of a script that stands for one of several versions all of them", async () => {
    await using directory = await tempDir();
    const [shims, home] = [join(directory.path, "pyenv/shims"), join(directory.path, "home")];
    await mkdir(shims, { recursive: true });
    const program = join(shims, "python3");
    await writeFile(program, "#!/bin/sh\n");
    await chmod(program, 0o755);

    const { recipe } = engine({ command: [program, "${PORT}"], formats: ["echo"] });

    expect((await recipe.config?.({ HOME: home }))?.needs).toEqual([dirname(shims)]);
    // Nobody is shown the home as a whole.
    expect((await recipe.config?.({ HOME: join(dirname(shims), "me") }))?.needs).toEqual([]);
  });

  test("custom: it starts where `cwd` says, which it sees, if it is there", async () => {
    await using directory = await tempDir();
    const { path } = directory;
    const table = { command: [process.execPath, "${PORT}"], formats: ["echo"] };
    const there = engine({ ...table, cwd: path });
    const gone = engine({ ...table, cwd: join(path, "no") });

    const failure: unknown = await gone.recipe.config?.({}).catch((error: unknown) => error);

    expect(there.startsIn).toBe(path);
    expect((await there.recipe.config?.({ HOME: "/root" }))?.needs).toContain(path);
    expect(engine(table).startsIn).toBeUndefined();
    expect(failure).toMatchObject({
      code: "install_failed",
      message: `cannot start echo: there is no directory \`${join(path, "no")}\``,
      hint: expect.stringContaining('`cwd` of `[engines."echo"]`'),
    });
  });

  test("custom: what it says of its memory and its start holds", () => {
    expect(engine({ ...ECHO, memory: "2GiB", ready_timeout: "10m" })).toMatchObject({
      processBytes: 2 ** 31,
      readyBoundMs: 600_000,
    });
  });

  test("custom: its own models are of a format that no other engine has", () => {
    const own = engine({ command: ["a", "${PORT}"], models: ["me/thing"] });

    expect(own.formats).toEqual(["engine:echo"]);
    expect(engine({ ...ECHO, models: ["me/thing"] }).formats).toEqual(["echo", "engine:echo"]);
  });

  test("custom: two engines cannot have a model of one name", () => {
    const table = { command: ["a", "${PORT}"] };
    const tables = {
      one: { ...table, models: ["me/thing"] },
      other: { ...table, models: ["x", "me/thing:latest"] },
    };

    expect(() => readCustomEngines(tables, [])).toThrow(
      'cannot read `[engines."other"]` in config.toml: its model `docker.io/me/thing:latest` is one\'s, too',
    );
  });

  test("custom: of a virtual environment all of it, and the library of its interpreter", async () => {
    await using directory = await tempDir();
    const [base, venv] = [join(directory.path, "base"), join(directory.path, "venv")];
    await mkdir(join(base, "bin"), { recursive: true });
    await mkdir(join(base, "lib"));
    await mkdir(join(venv, "bin"), { recursive: true });
    await writeFile(join(base, "bin/python3"), "");
    await chmod(join(base, "bin/python3"), 0o755);
    await symlink(join(base, "bin/python3"), join(venv, "bin/python"));
    await writeFile(join(venv, "pyvenv.cfg"), "");

    const command = [join(venv, "bin/python"), "${PORT}"];
    const found = await engine({ command, formats: ["echo"] }).recipe.config?.({ HOME: "/root" });

    expect(found?.needs).toEqual([venv, join(base, "lib")]);
  });
});
