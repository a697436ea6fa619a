import { expect, test } from "bun:test";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findContainerPrograms, removeContainers } from "../../src/runtime/container-leftovers.ts";
import { reapLeftovers } from "../../src/runtime/leftovers.ts";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";

const ID = "0123456789ab";
const ENGINE = `#!/bin/sh
echo "$@" >> "$(dirname "$0")/log"
[ "$1" = ps ] && printf '%s\\n' '${ID} old' '--all --all' '${ID}99 tug-new-w1-7'
exit 0
`;

async function withEngine() {
  const directory = await tempDir();
  const program = join(directory.path, "podman");
  await writeFile(program, ENGINE);
  await chmod(program, 0o755);
  const log = (): Promise<string> => readFile(join(directory.path, "log"), "utf8").catch(() => "");
  return { ...directory, program, log };
}

async function mark(directory: string, place: string, text: string): Promise<void> {
  await mkdir(join(directory, place));
  await writeFile(join(directory, place, "container"), text);
}

test("removes what the label finds, and nothing that is no id", async () => {
  await using it = await withEngine();
  const ask = "ps -a --filter label=tug.run=/run/of/mine --format {{.ID}} {{.Names}}";

  expect(await removeContainers(it.program, "/run/of/mine")).toBe(2);
  expect(await it.log()).toBe(`${ask}\nkill ${ID}\nrm -f ${ID}\nkill ${ID}99\nrm -f ${ID}99\n`);
});

test("leaves what a new worker has started meanwhile", async () => {
  await using it = await withEngine();
  await mark(it.path, "w1", `${it.program}\ntug-new-w1-7\n`);

  expect(await removeContainers(it.program, it.path)).toBe(1);
  expect(await it.log()).not.toContain(`${ID}99`);
});

test("a runner that starts removes them once the directories of old workers are gone", async () => {
  await using it = await withEngine();
  await mark(it.path, "w1", `${it.program}\ntug-new-w1-7\n`);
  const records = { list: () => [], add: () => {}, remove: () => {} };

  await reapLeftovers(records, it.path);

  await eventually(async () => (await it.log()).includes(`rm -f ${ID}99`));
});

test("asks only where a worker with a container was left", async () => {
  await using it = await withEngine();
  await mark(it.path, "w1", `${it.program}\nname\n`);
  await mark(it.path, "w2", "relative\n");
  await mark(it.path, "w3", "\n");

  expect([...(await findContainerPrograms(it.path, ["w2", "w3", "w4"]))]).toEqual([]);
  expect([...(await findContainerPrograms(it.path, ["w1", "w2"]))]).toEqual([it.program]);
});

test("is quiet about a program that is gone", async () => {
  expect(await removeContainers("/nowhere/podman", "/run")).toBe(0);
});
