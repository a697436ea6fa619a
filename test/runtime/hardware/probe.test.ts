import { expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { askTool, probe } from "../../../src/runtime/hardware/probe.ts";
import { eventually } from "../../helpers/eventually.ts";
import { isAlive } from "../../helpers/processes.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { describeIf, isWindows } from "../../helpers/test-if.ts";

/** A tool called `tool`, as a shell script. */
async function toolIn(directory: string, script: string): Promise<{ env: { PATH: string } }> {
  await writeFile(join(directory, "tool"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return { env: { PATH: `${directory}:/usr/bin:/bin` } };
}

describeIf(!isWindows, "tools are shell scripts")("probe", () => {
  test("gives what the tool prints, in no language but C", async () => {
    await using directory = await tempDir();
    const { env } = await toolIn(directory.path, 'echo "$1 $LC_ALL ${TUG_API_KEY:-kept}"');

    const output = await probe(["tool", "-L"], { env: { ...env, TUG_API_KEY: "secret" } });

    expect(output).toBe("-L C kept\n");
  });

  test.each([
    ["fails", "echo half; exit 9"],
    ["is killed", "echo half; kill -9 $$"],
    ["prints without end", "yes 0123456789"],
  ])("gives nothing if the tool %s", async (_, script) => {
    await using directory = await tempDir();

    expect(await probe(["tool"], await toolIn(directory.path, script))).toBe("");
  });

  test("gives nothing if the tool is missing, or is no program", async () => {
    await using directory = await tempDir();
    const { env } = await toolIn(directory.path, "");
    await writeFile(join(directory.path, "broken"), "\u0000", { mode: 0o755 });

    expect(await probe(["absent"], { env })).toBe("");
    expect(await probe(["broken"], { env })).toBe("");
    expect(await probe(["tool"], { env: {} })).toBe("");
  });

  test("a tool that hangs is ended in time, with the children that hold its output open", async () => {
    await using directory = await tempDir();
    const pids = join(directory.path, "pids");
    const { env } = await toolIn(
      directory.path,
      `trap "" TERM; echo $$ > ${pids}; sleep 300 & echo $! >> ${pids}; wait`,
    );
    const startedAt = performance.now();

    const output = await probe(["tool"], { env, timeoutMs: 200 });

    expect(output).toBe("");
    expect(performance.now() - startedAt).toBeLessThan(4000);
    const [shell, child] = (await Bun.file(pids).text()).trim().split("\n").map(Number);
    await eventually(async () => !(await isAlive(shell ?? 0)) && !(await isAlive(child ?? 0)));
  });

  test("a child that outlives its tool does not keep us waiting, and does not stay", async () => {
    await using directory = await tempDir();
    const pids = join(directory.path, "pids");
    const { env } = await toolIn(directory.path, `sleep 300 & echo $! > ${pids}`);
    const startedAt = performance.now();

    expect(await probe(["tool"], { env, timeoutMs: 200 })).toBe("");

    expect(performance.now() - startedAt).toBeLessThan(4000);
    const child = Number(await Bun.file(pids).text());
    await eventually(async () => !(await isAlive(child)));
  });

  test("the signal ends it with its reason, before and during", async () => {
    await using directory = await tempDir();
    const { env } = await toolIn(directory.path, "sleep 300");
    const controller = new AbortController();
    const running = probe(["tool"], { env, signal: controller.signal });

    controller.abort(new Error("gone"));

    expect(running).rejects.toThrow("gone");
    expect(probe(["tool"], { env, signal: controller.signal })).rejects.toThrow("gone");
  });
});

describeIf(!isWindows, "tools are shell scripts")("askTool", () => {
  test.each([
    ["answers", "echo yes", { kind: "answered", output: "yes\n" }],
    ["fails", "echo no driver; exit 9", { kind: "failed", output: "no driver\n" }],
    ["prints without end", "yes 0123456789", { kind: "silent" }],
    ["takes too long", "sleep 300", { kind: "silent" }],
  ] as const)("says that a tool %s", async (_, script, expected) => {
    await using directory = await tempDir();
    const { env } = await toolIn(directory.path, script);
    const timeoutMs = script.startsWith("sleep") ? 100 : 5000;

    expect(await askTool(["tool"], { env, timeoutMs })).toEqual(expected);
  });

  test("says that a tool is missing, and finds one by its path", async () => {
    await using directory = await tempDir();
    const { env } = await toolIn(directory.path, "echo yes");

    expect(await askTool(["absent"], { env })).toEqual({ kind: "missing" });
    expect(await askTool([join(directory.path, "absent")], { env })).toEqual({ kind: "missing" });
    expect(await askTool([join(directory.path, "tool")], { env: {} })).toMatchObject({
      kind: "answered",
    });
  });
});
