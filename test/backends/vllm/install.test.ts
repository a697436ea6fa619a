/** What vLLM and SGLang are installed from: both are alike. */
import { describe, expect, test } from "bun:test";

import { sglang } from "../../../backends/sglang/index.ts";
import { vllm } from "../../../backends/vllm/index.ts";
import type { Backend, Gpu, Machine } from "../../../src/runtime/backend.ts";

const LINUX: Machine = { platform: "linux", arch: "x64" };
const LINUX_ARM: Machine = { platform: "linux", arch: "arm64" };
const MAC: Machine = { platform: "darwin", arch: "arm64" };
const WINDOWS: Machine = { platform: "win32", arch: "x64" };

function lockOf({ recipe }: Backend, machine: Machine, gpu: Gpu): string | undefined {
  return recipe.pypi?.requirements(machine, gpu);
}

describe.each([vllm, sglang])("install", (backend) => {
  test(`install: ${backend.name} has packages for NVIDIA under Linux only`, () => {
    const gpus: readonly Gpu[] = ["none", "rocm", "vulkan", "metal", "musa"];

    expect(lockOf(backend, LINUX, "cuda")).toBeString();
    expect(lockOf(backend, LINUX_ARM, "cuda")).toBe(lockOf(backend, LINUX, "cuda"));
    expect(gpus.map((gpu) => lockOf(backend, LINUX, gpu))).toEqual(gpus.map(() => undefined));
    expect(lockOf(backend, MAC, "metal")).toBeUndefined();
    expect([LINUX, LINUX_ARM, MAC, WINDOWS].map((machine) => backend.problem?.(machine))).toEqual([
      undefined,
      undefined,
      "it needs Linux",
      "it needs Linux",
    ]);
  });

  test(`install: what is locked of ${backend.name} is itself, at one version, all with hashes`, () => {
    const lock = lockOf(backend, LINUX, "cuda") ?? "";
    const entries = lock.trim().split(/\n(?=\S)/);

    expect(backend.recipe.pypi?.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(entries.length).toBeGreaterThan(100);
    expect(entries.filter((entry) => !/^[\w.-]+==\S+/.test(entry))).toEqual([]);
    expect(entries.filter((entry) => !/--hash=sha256:[0-9a-f]{64}/.test(entry))).toEqual([]);
    expect(entries.filter((entry) => entry.startsWith("torch=="))).toHaveLength(1);
  });
});
