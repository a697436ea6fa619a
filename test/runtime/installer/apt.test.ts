import { describe, expect, test } from "bun:test";
import { testIf } from "../../helpers/test-if.ts";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { llamacpp } from "../../../backends/llamacpp/index.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { loopbackRemotes } from "./remotes.ts";
import { failureOf } from "./failure-of.ts";

const model = join(import.meta.dir, "../../../src/models/pebble.gguf");
const apt = Bun.which("apt-get") !== null && Bun.which("dpkg-deb") !== null;
const signal = AbortSignal.timeout(100_000);
const request = { backend: "llama.cpp", gpu: "none", source: "apt" } as const;

/** @param path PATH, to hide or replace programs */
function installerIn(root: string, path = process.env["PATH"]): Installer {
  return new Installer({
    directory: join(root, "engines"),
    cacheDirectory: join(root, "cache"),
    backends: [llamacpp],
    machine: { platform: process.platform, arch: process.arch },
    env: { ...process.env, PATH: path, TUG_GPU: "cuda" },
    offline: false,
    remotes: loopbackRemotes(),
    smokeModel: () => Promise.resolve(model),
  });
}

describe("the apt source", () => {
  // Needs the mirror that the host's apt is configured with.
  testIf(apt, "there is no apt here")(
    "apt: an engine is installed from nothing without root's help, works, and leaves no downloads",
    async () => {
      await using root = await tempDir();
      const installer = installerIn(join(root.path, "with späce"));
      const phases = new Set<string>();

      const installation = await installer.install(request, {
        signal,
        onProgress: ({ phase }) => void phases.add(phase),
      });

      expect(installation).toMatchObject({ source: "apt", variant: "cpu" });
      expect([...phases]).toEqual(["resolving", "downloading", "unpacking", "testing"]);
      expect(await installer.active("llama.cpp")).toEqual(installation);
      const names = await readdir(installation.directory);
      expect(names).toContain("llama-server");
      expect(names).toEqual(expect.arrayContaining(["ggml-rpc-server", "libggml-rpc.so"]));
      expect(names).not.toContain(".tree");
      expect(await readdir(join(root.path, "with späce", "cache", "apt"))).not.toContain(
        "packages",
      );
    },
    120_000,
  );

  test("apt: another version than the repository's cannot be had, nor any without apt", async () => {
    await using root = await tempDir();
    const installer = installerIn(root.path);
    const options = { signal, onProgress: () => {} };

    expect(await failureOf(installer.install({ ...request, gpu: "cuda" }, options))).toHaveProperty(
      "message",
      expect.stringMatching(/from apt: (Debian has no cuda build|it serves Debian)/),
    );
  });
});
