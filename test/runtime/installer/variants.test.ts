import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { llamacpp } from "../../../backends/llamacpp/index.ts";
import type { Backend, Gpu, Installation } from "../../../src/runtime/backend.ts";
import type { VariantChoice } from "../../../src/runtime/hardware/index.ts";
import { Installer } from "../../../src/runtime/installer/installer.ts";
import type { InstallSource } from "../../../src/runtime/installer/source.ts";
import { availableVariants, noteFallback, tries } from "../../../src/runtime/installer/variants.ts";
import { tempDir } from "../../helpers/temp-dir.ts";
import { engineArchive } from "./archives.ts";
import { failureOf } from "./failure-of.ts";
import { fakeGithub } from "./fake-github.ts";
import { loopbackRemotes } from "./remotes.ts";

const LINUX = { platform: "linux", arch: "x64" } as const;
const RELEASE = llamacpp.recipe.github?.version ?? "";
const CONTEXT = { backend: llamacpp, env: {} };

function source(name: string, variants: boolean, isAsked = false): InstallSource {
  return {
    name,
    network: true,
    variants,
    isAskedFor: () => isAsked,
    resolve: () => Promise.reject(new Error("it is not asked here")),
  };
}

const PATH = source("path", false);
const GITHUB = source("github", true);
const OCI = source("oci", true);
const APT = source("apt", true);

function choice(...order: readonly Gpu[]): VariantChoice {
  return { gpu: order[0] ?? "none", reason: "a reason", warnings: [], order };
}

function named(all: ReturnType<typeof tries>): readonly string[] {
  return all.map((one) => `${one.source.name} ${one.gpus.join(" ")}`);
}

describe("tries", () => {
  test("each source is asked for all that would run, before the next one is", () => {
    const all = tries([PATH, GITHUB, OCI], choice("cuda", "vulkan", "none"), CONTEXT);

    expect(named(all)).toEqual(["path cuda", "github cuda vulkan none", "oci cuda vulkan none"]);
  });

  test("what one source alone builds is asked for everywhere, before anything less", () => {
    const all = tries([PATH, GITHUB, OCI], choice("musa", "vulkan", "none"), CONTEXT);

    expect(named(all)).toEqual([
      "path musa",
      "github musa",
      "oci musa",
      "github vulkan none",
      "oci vulkan none",
    ]);
    expect(named(tries([GITHUB, OCI], choice("musa"), CONTEXT))).toEqual([
      "github musa",
      "oci musa",
    ]);
  });

  test("an image that the user named is asked once", () => {
    const all = tries([source("oci", true, true)], choice("cuda", "vulkan", "none"), CONTEXT);

    expect(named(all)).toEqual(["oci cuda"]);
  });
});

describe("availableVariants", () => {
  test.each([
    [LINUX, [GITHUB], ["none", "rocm", "vulkan", "sycl", "cann"]],
    [LINUX, [OCI], ["none", "cuda", "rocm", "vulkan", "musa", "cann"]],
    [LINUX, [PATH, APT], ["none", "vulkan"]],
    [{ platform: "win32", arch: "x64" }, [GITHUB, APT], ["none", "cuda", "rocm", "vulkan", "sycl"]],
    [{ platform: "win32", arch: "arm64" }, [GITHUB], ["none", "opencl"]],
    [{ platform: "darwin", arch: "arm64" }, [GITHUB], ["metal"]],
    [{ platform: "darwin", arch: "x64" }, [GITHUB], ["none"]],
    [LINUX, [PATH], undefined],
    [LINUX, [], undefined],
  ] as const)("on %j, of %p", (machine, sources, expected) => {
    const available = availableVariants(llamacpp, machine, sources);

    expect(available === undefined ? undefined : [...available]).toEqual(
      expected === undefined ? undefined : [...expected],
    );
  });

  test("a lock of Python packages says for what it was made", () => {
    const lock = { requirements: (_: unknown, gpu: Gpu) => (gpu === "cuda" ? "x" : undefined) };
    const backend = { ...llamacpp, recipe: { pypi: lock } } as unknown as Backend;

    expect(availableVariants(backend, LINUX, [source("pypi", true)])).toEqual(["cuda"]);
  });
});

function told(variant: string, chosen: VariantChoice): readonly string[] {
  const messages: string[] = [];
  const installation = { backend: "llama.cpp", variant } as Installation;
  noteFallback(installation, {
    choice: chosen,
    reasons: ["it has no cuda build"],
    onWarning: (message) => void messages.push(message),
  });
  return messages;
}

describe("noteFallback", () => {
  test("a GPU that is left unused is told of, with the reason", () => {
    expect(told("cpu", choice("cuda", "vulkan", "none"))).toEqual([
      "llama.cpp runs on the processor alone: no cuda build could be installed (it has no cuda build); the choice was a reason",
    ]);
  });

  test("nothing is told of what was chosen, of another build for the GPU, and of engines in place", () => {
    expect(told("cpu", choice("none"))).toEqual([]);
    expect(told("vulkan", choice("cuda", "vulkan", "none"))).toEqual([]);
    expect(told("host", choice("cuda", "vulkan", "none"))).toEqual([]);
  });
});

async function bench(env: Record<string, string>) {
  const directory = await tempDir();
  const name = `llama-${RELEASE}-bin-ubuntu-x64.tar.gz`;
  const github = fakeGithub(RELEASE, [{ name, content: engineArchive() }]);
  const warnings: string[] = [];
  return {
    github,
    warnings,
    options: {
      signal: AbortSignal.timeout(20_000),
      onProgress: () => {},
      onWarning: (message: string) => void warnings.push(message),
    },
    installer: new Installer({
      directory: join(directory.path, "backends"),
      cacheDirectory: join(directory.path, "cache"),
      backends: [llamacpp],
      machine: LINUX,
      env: { PATH: "", ...env },
      offline: false,
      remotes: loopbackRemotes(),
      smokeModel: () => Promise.resolve(""),
      verifyEngine: () => Promise.resolve(),
      githubApi: github.url,
    }),
    [Symbol.asyncDispose]: async () => {
      github[Symbol.dispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

describe("Installer: variants", () => {
  test("a GPU that was asked for and is not there is refused before anything is fetched", async () => {
    await using it = await bench({});

    const error = await failureOf(
      it.installer.install({ backend: "llama.cpp", gpu: "cuda" }, it.options),
    );

    expect(error).toMatchObject({
      code: "install_failed",
      message: expect.stringMatching(
        /^cannot install llama\.cpp for cuda: .*`nvidia-smi` is not on PATH/,
      ),
      hint: expect.stringContaining("TUG_GPU=cuda"),
    });
    expect(it.github.requests).toEqual([]);
  });

  test("a wrong TUG_GPU is refused, not passed over", async () => {
    await using it = await bench({ TUG_GPU: "gtx" });

    expect(await failureOf(it.installer.ensure("llama.cpp", it.options))).toMatchObject({
      code: "usage",
      message: "cannot use TUG_GPU: there is no `gtx`",
    });
  });

  test("whoever waits for an engine hears that it leaves the GPU unused", async () => {
    await using it = await bench({ TUG_GPU: "vulkan" });

    const installation = await it.installer.ensure("llama.cpp", it.options);

    expect(installation.variant).toBe("cpu");
    expect(it.warnings).toEqual([
      expect.stringMatching(
        /^llama\.cpp runs on the processor alone: no vulkan build could be installed \(.*\); the choice was vulkan: TUG_GPU says so$/,
      ),
    ]);
  });
});
