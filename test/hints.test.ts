import { expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");

/** Words that follow `tug` in quoted commands of a source. */
function namedCommands(source: string): string[] {
  return [...source.matchAll(/`tug ([a-z][a-z-]*)/g)].map(([, name = ""]) => name);
}

test("every command that a message names exists", async () => {
  const cli = await readFile(join(ROOT, "src/cli.ts"), "utf8");
  const known = new Set(
    [...cli.matchAll(/import\("\.\/commands\/([a-z-]+)\.ts"\)/g)].map(([, name]) => name),
  );
  const unknown: string[] = [];

  for await (const path of new Bun.Glob("{src,backends}/**/*.ts").scan(ROOT)) {
    const named = namedCommands(await readFile(join(ROOT, path), "utf8"));
    unknown.push(...named.filter((name) => !known.has(name)).map((name) => `${path}: tug ${name}`));
  }

  expect(known.size).toBeGreaterThan(20);
  expect(unknown).toEqual([]);
});
