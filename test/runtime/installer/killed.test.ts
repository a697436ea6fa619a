import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { isUsable } from "../../../src/runtime/installer/layout.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { debrisOf, ENGINE, STAND_INS, startSource, type StandIn } from "./killed-install.ts";

const PHASES = ["resolving", "downloading", "unpacking", "testing"] as const;
const CASES = STAND_INS.flatMap((source) =>
  PHASES.map((phase): [StandIn, string] => [source, phase]),
);

/** With SIGKILL, as soon as it says that it has come so far. */
async function killAt(phase: string, argv: readonly string[]): Promise<void> {
  const child = Bun.spawn([...argv], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const decoder = new TextDecoder();
  let said = "";
  for await (const chunk of child.stderr) {
    said += decoder.decode(chunk, { stream: true });
    if (said.split("\n").includes(phase)) break;
  }
  child.kill("SIGKILL");
  await child.exited;
  expect(said).toContain(phase);
}

describe("an installation that is killed", () => {
  test.each(CASES)(
    "killed: from %s, while %s, it leaves nothing or a whole engine, and the next one is not disturbed",
    async (name, phase) => {
      await using source = await startSource(name);
      await using directory = await tempDir();
      const root = directory.path;

      await killAt(phase, source.argv(root));
      const left = await source.installer(root).active(ENGINE);
      const listed = await source.installer(root).list();
      const installed = await source
        .installer(root)
        .ensure(ENGINE, { signal: AbortSignal.timeout(20_000), onProgress: () => undefined });

      expect(left === undefined || (await isUsable(left))).toBe(true);
      for (const one of listed) expect(await isUsable(one)).toBe(true);
      expect(installed).toMatchObject({ source: name });
      expect(await isUsable(installed)).toBe(true);
      // What an installation was killed after has been done leaves its traces until something changes.
      await source.installer(root).use(ENGINE, installed.version);
      expect(await debrisOf(root)).toEqual([]);
      expect(await readdir(join(root, "cache", "downloads"))).toEqual([]);
    },
  );
});
