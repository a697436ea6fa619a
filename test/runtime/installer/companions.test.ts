import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { llamacpp } from "../../../backends/llamacpp/index.ts";
import type { Installation } from "../../../src/runtime/backend.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { type FakeAsset, fakeGithub } from "./fake-github.ts";
import { loopbackRemotes } from "./remotes.ts";
import { storedZip } from "./stored-zip.ts";

const MAIN = "llama-b1-bin-win-cuda-12.4-x64.zip";
const RUNTIME = "cudart-llama-bin-win-cuda-12.4-x64.zip";

const main = { name: MAIN, content: storedZip({ "bin/llama-server.exe": "MZ" }) };
const runtime = { name: RUNTIME, content: storedZip({ "cudart64_12.dll": "library" }) };

/** On a Windows with an NVIDIA GPU, from a small GitHub. @returns the installation, and what is beside its program */
async function install(
  assets: readonly FakeAsset[],
): Promise<{ installation: Installation; beside: readonly string[] }> {
  await using directory = await tempDir();
  using github = fakeGithub("b1", assets);
  const installer = new Installer({
    directory: join(directory.path, "backends"),
    cacheDirectory: join(directory.path, "cache"),
    backends: [llamacpp],
    machine: { platform: "win32", arch: "x64" },
    env: { PATH: "", TUG_GPU: "cuda" },
    offline: false,
    remotes: loopbackRemotes(),
    smokeModel: () => Promise.resolve(""),
    verifyEngine: () => Promise.resolve(),
    githubApi: github.url,
  });
  const request = { backend: "llama.cpp", gpu: "cuda", source: "github", version: "b1" } as const;
  const signal = AbortSignal.timeout(20_000);
  const installation = await installer.install(request, { signal, onProgress: () => undefined });
  return { installation, beside: await readdir(join(installation.directory, "bin")) };
}

describe("an engine that comes in two archives", () => {
  test("has both in one directory, and keeps why it was chosen", async () => {
    const { installation, beside } = await install([main, runtime]);

    expect(installation).toMatchObject({ variant: "cuda", reason: "cuda: TUG_GPU says so" });
    expect(beside.toSorted()).toEqual(["cudart64_12.dll", "llama-server.exe"]);
  });

  test("is not installed without the second one", async () => {
    const failed = await install([main]).catch((error: unknown) => error);

    expect(String(failed)).toContain(RUNTIME);
  });

  test("is not installed with a second one that was tampered with", async () => {
    const failed = await install([main, { ...runtime, digest: `sha256:${"0".repeat(64)}` }]).catch(
      (error: unknown) => error,
    );

    expect(String(failed)).toContain(RUNTIME);
  });
});
