import { expect, test } from "bun:test";
import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

import { makeSmokeDirectory } from "../../../src/runtime/installer/smoke-directory.ts";
import { tempDir } from "../../helpers/temp-dir.ts";

const LONG_AGO = new Date("2026-01-01T00:00:00Z");

test("smoke: what killed ones left goes, what is in use and what is others' stays", async () => {
  await using directory = await tempDir();
  const { path } = directory;
  for (const name of ["tug-smoke-old", "tug-smoke-new", "others"]) {
    await mkdir(join(path, name, "model"), { recursive: true });
  }
  await writeFile(join(path, "tug-smoke-file"), "");
  for (const name of ["tug-smoke-old", "others", "tug-smoke-file"]) {
    await utimes(join(path, name), LONG_AGO, LONG_AGO);
  }

  const made = await makeSmokeDirectory(path);

  expect((await readdir(path)).toSorted()).toEqual(
    ["others", "tug-smoke-file", "tug-smoke-new", basename(made)].toSorted(),
  );
});
