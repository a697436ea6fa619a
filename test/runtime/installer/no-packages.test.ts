/** Engines of which PyPI has no packages for a machine: what is said, which is not that the network is down. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { sglang } from "../../../backends/sglang/index.ts";
import { vllm } from "../../../backends/vllm/index.ts";
import { Installer, type InstallerDeps } from "../../../src/runtime/installer/installer.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { failureOf } from "./failure-of.ts";
import { loopbackRemotes } from "./remotes.ts";

function installerIn(directory: string, env: InstallerDeps["env"] = {}): Installer {
  return new Installer({
    directory: join(directory, "backends"),
    cacheDirectory: join(directory, "cache"),
    backends: [vllm, sglang],
    machine: { platform: "linux", arch: "x64" },
    env,
    offline: false,
    remotes: loopbackRemotes(),
    smokeModel: () => Promise.reject(new Error("nothing is tried")),
  });
}

const options = { signal: AbortSignal.timeout(20_000), onProgress: () => undefined };

describe("an engine without packages", () => {
  test.each([
    ["vllm", "TUG_VLLM_PYTHON"],
    ["sglang", "TUG_SGLANG_PYTHON"],
  ])("packages: of %s for processors there are none on PyPI", async (backend, variable) => {
    await using at = await tempDir();

    const failure = await failureOf(
      installerIn(at.path).install({ backend, gpu: "none" }, options),
    );

    expect(failure).toMatchObject({
      code: "install_failed",
      message: `cannot install ${backend}: from pypi: its cpu packages for linux x64 are not on PyPI: install it yourself, and name its Python with \`--python PATH\``,
      hint: `Choose another build with \`--gpu\`, or set ${variable} to a Python that has it; \`tug engines\` shows other engines.`,
    });
    expect(await readdir(join(at.path, "cache")).catch(() => [])).toEqual([]);
  });

  test("packages: a Python that is not there has nothing to do with the network", async () => {
    await using at = await tempDir();
    const python = join(at.path, "nowhere");

    const named = await failureOf(
      installerIn(at.path).install({ backend: "vllm", gpu: "auto", python }, options),
    );
    const set = await failureOf(
      installerIn(at.path, { TUG_VLLM_PYTHON: python }).ensure("vllm", options),
    );

    for (const failure of [named, set]) {
      expect(failure).toMatchObject({ code: "install_failed" });
      expect((failure as Error).message).toContain(`there is no Python at \`${python}\``);
      expect((failure as { hint?: string }).hint).not.toContain("network");
    }
  });
});
