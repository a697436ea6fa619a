/** SGLang's stand-in behind the launcher of Python engines, under the real supervisor. */
import { describe, expect } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { sglang } from "../../../backends/sglang/index.ts";
import type { Installation } from "../../../src/runtime/backend.ts";
import { failureOf, setUp, socketOf, type Supervised } from "../../fakes/supervised.ts";
import { tinyModel } from "../../fakes/tiny-safetensors.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { testIf } from "../../helpers/test-if.ts";

const PYTHON = Bun.which("python3");
const LAUNCHER = join(import.meta.dir, "../../../backends/python/launch.py");
const python = testIf(PYTHON !== null, "there is no python3");

/** A module of SGLang's name that becomes the stand-in. */
async function install(directory: string): Promise<Installation> {
  const module = join(directory, "sglang");
  const command = [process.execPath, join(import.meta.dir, "stand-in.ts")];
  await mkdir(module);
  await writeFile(join(module, "__init__.py"), "");
  await writeFile(
    join(module, "launch_server.py"),
    `import os, sys\ncommand = ${JSON.stringify(command)}\nos.execv(command[0], [*command, *sys.argv[1:]])\n`,
  );
  const start = `PYTHONPATH='${directory}' exec "$@"`;
  return {
    backend: "sglang",
    version: "0.5.23",
    variant: "cuda",
    source: "pypi",
    directory,
    command: ["/bin/sh", "-c", start, "x", PYTHON ?? "", LAUNCHER],
    installedAt: "2026-01-01T00:00:00Z",
  };
}

async function setUpSglang(directory: string): Promise<Supervised> {
  const installation = await install(directory);
  const ready = (): Promise<Installation> => Promise.resolve(installation);
  return setUp({}, { backends: [sglang], installer: { ensure: ready, active: ready } });
}

const plan = { backend: "sglang", settings: { contextTokens: 64, parallel: 2, runtimeFlags: [] } };

describe("Supervisor with SGLang's stand-in", () => {
  python("sglang: it is ready, reports its context, and answers through its socket", async () => {
    await using directory = await tempDir();
    await using at = await setUpSglang(directory.path);
    using lease = await at.acquire(await tinyModel(directory.path), plan);

    const response = await fetch("http://engine/v1/chat/completions", {
      method: "POST",
      unix: socketOf(lease),
      keepalive: false,
      body: JSON.stringify({ model: sglang.servedModel, messages: [] }),
    });

    expect(await response.text()).toContain("Paris");
    expect(lease.report).toEqual({ context_size: 64 });
  });

  python("sglang: a context beyond the model's own is told by its cause", async () => {
    await using directory = await tempDir();
    await using at = await setUpSglang(directory.path);
    const model = await tinyModel(directory.path, { max_position_embeddings: 32 });

    expect((await failureOf(at.acquire(model, plan))).message).toBe(
      "cannot load `me/tiny`: a context of 64 tokens is more than the model's own, which is 32",
    );
  });
});
