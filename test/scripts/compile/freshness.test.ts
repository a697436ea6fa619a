import { describe, expect, test } from "bun:test";
import { mkdir, rm, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isFresh } from "../../../scripts/compile/freshness.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const BUILT = new Date("2026-01-02T00:00:00Z");
const BEFORE = new Date("2026-01-01T00:00:00Z");
const AFTER = new Date("2026-01-03T00:00:00Z");

describe("isFresh", () => {
  test("a binary younger than everything it is made of is fresh", async () => {
    await using tree = await project();

    expect(await isFresh(tree.binary, tree.path)).toBe(true);
  });

  test.each([
    ["a changed source", (path: string) => touch(join(path, "src/deep/a.ts"))],
    ["a changed lockfile", (path: string) => touch(join(path, "bun.lock"))],
    ["a removed source", (path: string) => rm(join(path, "src/deep/a.ts"))],
    ["a missing binary", (path: string) => rm(join(path, "tug"))],
  ])("%s makes it stale", async (_, change) => {
    await using tree = await project();

    await change(tree.path);

    expect(await isFresh(tree.binary, tree.path)).toBe(false);
  });

  test("what the executable is not made of does not matter", async () => {
    await using tree = await project();

    await writeFile(join(tree.path, "README.md"), "new");

    expect(await isFresh(tree.binary, tree.path)).toBe(true);
  });
});

async function project(): Promise<AsyncDisposable & { path: string; binary: string }> {
  const directory = await tempDir();
  const binary = join(directory.path, "tug");
  for (const file of ["src/deep/a.ts", "backends/x/index.ts", "package.json", "bun.lock", "tug"]) {
    await mkdir(dirname(join(directory.path, file)), { recursive: true });
    await writeFile(join(directory.path, file), file);
  }
  const aged = [
    "src/deep/a.ts",
    "src/deep",
    "src",
    "backends/x/index.ts",
    "backends/x",
    "backends",
  ];
  for (const path of [...aged, "package.json", "bun.lock"])
    await utimes(join(directory.path, path), BEFORE, BEFORE);
  await utimes(binary, BUILT, BUILT);
  return {
    path: directory.path,
    binary,
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

function touch(path: string): Promise<void> {
  return utimes(path, AFTER, AFTER);
}
