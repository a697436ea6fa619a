import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PEBBLE } from "../helpers/pebble.ts";
import { type CliResult, runCli } from "../helpers/run-cli.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { type TugHome, sharedTugHome } from "../helpers/tug-home.ts";

setDefaultTimeout(60_000);

describe("what is typed wrong", () => {
  test.each([
    ["an unknown command", ["lst"], "`tug list`"],
    ["an unknown flag", ["list", "--jso"], "--json"],
    ["a flag of another command", ["df", "--gguf", "x"], "--help"],
    ["a missing argument", ["inspect"], "model"],
    ["a name that is no reference", ["inspect", "me//Bad Name"], "name"],
  ])("%s leaves with 2, and the hint helps", async (_, args, expected) => {
    const result = await runCli(args);

    expect(result.exitCode).toBe(2);
    expect(result.stdout).toBe("");
    expect(result.stderr.toLowerCase()).toContain(expected.toLowerCase());
    expect(complaints(result)).toHaveLength(1);
  });

  test("no command at all leaves with 2 and the overview on stderr", async () => {
    const result = await runCli([]);

    expect(result).toMatchObject({ exitCode: 2, stdout: "" });
    expect(result.stderr).toContain("package");
  });

  test.each([
    ["--version", /^tug \d+\.\d+\.\d+\n$/],
    ["--help", /\bpackage\b/],
  ])("`tug %s` prints on stdout and leaves with 0", async (flag, expected) => {
    const result = await runCli([flag]);

    expect(result).toMatchObject({ exitCode: 0, stderr: "" });
    expect(result.stdout).toMatch(expected);
  });
});

describe("`--json`", () => {
  test.each([
    ["a model there is not", ["inspect", "absent", "--json"], { code: "model_not_found", exit: 1 }],
    ["a wrong flag", ["list", "--jsno", "--json"], { code: "usage", exit: 2 }],
    ["a file there is not", ["package", "--gguf", "/nowhere.gguf", "me/x", "--json"], { exit: 1 }],
  ])("%s is one object on stdout", async (_, args, { exit, ...expected }) => {
    const { exitCode, stdout } = await runCli(args);

    expect(exitCode).toBe(exit);
    const { error } = JSON.parse(stdout) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ message: expect.any(String), ...expected });
    expect(Object.keys(error)).toEqual(expect.arrayContaining(["code", "message", "hint"]));
  });
});

describe("models that cannot be run", () => {
  const home = sharedTugHome();

  test("a model there is not is named", async () => {
    const result = await home().tug(["run", "me/absent", "hi"]);

    expect(result).toMatchObject({ exitCode: 1, stdout: "" });
    expect(result.stderr).toContain("me/absent");
    expect(complaints(result)).toHaveLength(1);
  });

  test.each([
    ["a text", () => Buffer.from("this is no model\n")],
    ["half a file", (whole: Buffer) => whole.subarray(0, whole.length / 2)],
    // Well-formed, but of an architecture that no engine knows.
    ["an engine's refusal", (whole: Buffer) => replace(whole, "llama", "xlama")],
  ])("%s is one sentence, and the runner lives on", async (_, damage) => {
    await using directory = await tempDir();
    const file = join(directory.path, "broken.gguf");
    await writeFile(file, damage(Buffer.from(await Bun.file(PEBBLE).bytes())));
    await home().tug(["run", "pebble", "hi"]);
    const before = await pidOf(home());

    const broken = await home().tug(["run", file, "hi"]);
    const fine = await home().tug(["run", "pebble", "hi"]);

    expect(broken).toMatchObject({ exitCode: 1, stdout: "" });
    expect(complaints(broken)).toHaveLength(1);
    expect(broken.stderr).not.toMatch(/^\s+at /m);
    expect(fine).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("Pebble") });
    expect(await pidOf(home())).toBe(before);
  });

  test("a file that is no model is not packaged, and the store stays as it was", async () => {
    await using directory = await tempDir();
    const file = join(directory.path, "notes.gguf");
    await writeFile(file, "this is no model\n");
    const before = await home().tug(["list", "--json"]);

    const result = await home().tug(["package", "--gguf", file, "me/notes"]);

    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("notes.gguf");
    expect((await home().tug(["list", "--json"])).stdout).toBe(before.stdout);
  });
});

/** Lines that say what went wrong; a hint may follow. */
function complaints({ stderr }: CliResult): string[] {
  return stderr.split("\n").filter((line) => line.startsWith("error: "));
}

async function pidOf(home: TugHome): Promise<unknown> {
  return (JSON.parse((await home.tug(["status", "--json"])).stdout) as { pid: unknown }).pid;
}

/** Every `from`, in the key names too, by a `to` of the same length. */
function replace(bytes: Buffer, from: string, to: string): Buffer {
  return Buffer.from(bytes.toString("latin1").replaceAll(from, to), "latin1");
}
