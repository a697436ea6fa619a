import { expect, test } from "bun:test";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { engineStamp } from "../../src/runtime/engine-stamp.ts";
import { pointerPath } from "../../src/runtime/installer/layout.ts";
import { tempDir } from "../helpers/temp-dir.ts";

test("engine stamp: differs when an engine is chosen, replaced or removed, and not else", async () => {
  await using directory = await tempDir();
  const { path } = directory;
  const stamp = (): string => engineStamp(path, ["llama.cpp", "other"]);
  const seen = [stamp()];

  await mkdir(join(path, "llama.cpp"));
  await writeFile(pointerPath(path, "llama.cpp"), "{}");
  seen.push(stamp());
  expect(stamp()).toBe(seen[1] ?? "");
  await rm(pointerPath(path, "llama.cpp"));
  await writeFile(pointerPath(path, "llama.cpp"), '{"active":1}');
  seen.push(stamp());

  expect(new Set(seen).size).toBe(3);
});
