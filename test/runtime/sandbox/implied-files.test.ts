import { describe, expect, test } from "bun:test";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { Bundle, Installation } from "../../../src/runtime/backend.ts";
import { impliedFiles } from "../../../src/runtime/sandbox/implied-files.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { isWindows, testIf } from "../../helpers/test-if.ts";

const posix = testIf(!isWindows, "paths and links are others there");
const INSTALLED: Installation = {
  backend: "llama.cpp",
  version: "1",
  variant: "cpu",
  source: "apt",
  directory: "/e",
  command: ["/e/llama-server"],
  installedAt: "2026-01-01T00:00:00Z",
};
const NOTHING = { bundles: [], settings: { runtimeFlags: [] }, home: "/home/u" };

describe("files that an engine opens unnamed", () => {
  test("are none for an engine of ours and a model that is a file", async () => {
    const bundle: Bundle = { directory: "/m", format: "gguf", model: "/m/a.gguf", weightBytes: 1 };

    const files = await impliedFiles({ ...NOTHING, installation: INSTALLED, bundles: [bundle] });

    expect(files).toEqual([]);
  });

  posix(
    "are what links of a model's directory point to, also below and dangling ones",
    async () => {
      await using directory = await tempDir();
      const model = join(directory.path, "model");
      await mkdir(join(model, "sub"), { recursive: true });
      await writeFile(join(model, "plain"), "");
      await symlink("../blob", join(model, "relative"));
      await symlink("plain", join(model, "within"));
      await symlink("/gone/blob", join(model, "sub", "absolute"));
      const bundle: Bundle = { directory: model, format: "safetensors", model, weightBytes: 1 };

      const files = await impliedFiles({ ...NOTHING, installation: INSTALLED, bundles: [bundle] });

      expect(files.toSorted()).toEqual(["/gone/blob", join(directory.path, "blob")].toSorted());
    },
  );

  posix("are what libraries of an engine of ours are links to, elsewhere", async () => {
    await using directory = await tempDir();
    await symlink("/elsewhere/libstdc++.so.6.0.1", join(directory.path, "libstdc++.so.6"));
    await symlink("libggml.so.0.1", join(directory.path, "libggml.so.0"));
    const installation = { ...INSTALLED, directory: directory.path };

    const files = await impliedFiles({ ...NOTHING, installation });

    expect(files).toEqual(["/elsewhere/libstdc++.so.6.0.1"]);
  });

  posix(
    "are the libraries around an engine of the user's own, where it is and where it is linked to",
    async () => {
      await using directory = await tempDir();
      const home = join(directory.path, "home");
      const build = join(directory.path, "build", "bin");
      await mkdir(join(home, "bin"), { recursive: true });
      await mkdir(build, { recursive: true });
      for (const name of ["llama-server", "libllama.so.0.1", "libggml-cpu.so", "notes.txt", ".so"])
        await writeFile(join(build, name), "");
      const program = join(home, "llama-server");
      await symlink(join(build, "llama-server"), program);
      const installation = { ...INSTALLED, source: "path", directory: home, command: [program] };

      const files = await impliedFiles({ ...NOTHING, installation, home });

      expect(files.toSorted()).toEqual(
        [
          join(build, ".so"),
          join(build, "libggml-cpu.so"),
          join(build, "libllama.so.0.1"),
          join(build, "..", "lib"),
        ].toSorted(),
      );
    },
  );

  posix("are never a directory that holds the home", async () => {
    const installation = { ...INSTALLED, source: "path", command: ["/srv/bin/llama-server"] };

    const inLib = await impliedFiles({ ...NOTHING, installation, home: "/srv/lib/u" });
    const elsewhere = await impliedFiles({ ...NOTHING, installation, home: "/home/u" });

    expect(inLib).toEqual([]);
    expect(elsewhere).toEqual(["/srv/lib"]);
  });

  posix("are the paths of engine flags, in all their forms", async () => {
    const runtimeFlags = [
      "--grammar-file",
      "/g",
      "--lora=/a,/b",
      "-x",
      '"/q",rel',
      "--y",
      "/",
      "-1",
    ];

    const files = await impliedFiles({
      ...NOTHING,
      installation: INSTALLED,
      settings: { runtimeFlags },
    });

    expect(files).toEqual(["/g", "/a", "/b", "/q"]);
  });
});
