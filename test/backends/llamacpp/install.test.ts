import { describe, expect, test } from "bun:test";

import type { Gpu } from "../../../src/runtime/backend.ts";
import { githubAssets, recipe } from "../../../backends/llamacpp/install.ts";

function packages(gpu: Gpu): readonly string[] {
  return recipe.apt?.packages(gpu) ?? [];
}

describe("llama.cpp's install recipe", () => {
  test.each([
    [{ platform: "linux", arch: "x64" }, "none", "llama-b1-bin-ubuntu-x64.tar.gz"],
    [{ platform: "linux", arch: "arm64" }, "none", "llama-b1-bin-ubuntu-arm64.tar.gz"],
    [{ platform: "linux", arch: "x64" }, "vulkan", "llama-b1-bin-ubuntu-vulkan-x64.tar.gz"],
    [{ platform: "linux", arch: "x64" }, "rocm", "llama-b1-bin-ubuntu-rocm-7.2-x64.tar.gz"],
    [{ platform: "linux", arch: "x64" }, "cuda", undefined],
    [{ platform: "linux", arch: "riscv64" }, "none", undefined],
    [{ platform: "darwin", arch: "arm64" }, "metal", "llama-b1-bin-macos-arm64.tar.gz"],
    [{ platform: "darwin", arch: "x64" }, "none", "llama-b1-bin-macos-x64.tar.gz"],
    [{ platform: "win32", arch: "x64" }, "none", "llama-b1-bin-win-cpu-x64.zip"],
    [{ platform: "win32", arch: "arm64" }, "none", "llama-b1-bin-win-cpu-arm64.zip"],
    [{ platform: "win32", arch: "x64" }, "vulkan", "llama-b1-bin-win-vulkan-x64.zip"],
    [{ platform: "linux", arch: "x64" }, "sycl", "llama-b1-bin-ubuntu-sycl-fp16-x64.tar.gz"],
    [{ platform: "linux", arch: "arm64" }, "sycl", undefined],
    [{ platform: "linux", arch: "x64" }, "musa", undefined],
    [
      { platform: "linux", arch: "arm64" },
      "cann",
      "llama-b1-bin-910b-openEuler-aarch64-aclgraph.tar.gz",
    ],
    [{ platform: "linux", arch: "x64" }, "cann", "llama-b1-bin-910b-openEuler-x86-aclgraph.tar.gz"],
    [{ platform: "win32", arch: "x64" }, "sycl", "llama-b1-bin-win-sycl-x64.zip"],
    [{ platform: "win32", arch: "x64" }, "cuda", "llama-b1-bin-win-cuda-12.4-x64.zip"],
    [{ platform: "win32", arch: "arm64" }, "cuda", undefined],
    [{ platform: "win32", arch: "arm64" }, "opencl", "llama-b1-bin-win-opencl-adreno-arm64.zip"],
    [{ platform: "win32", arch: "arm64" }, "vulkan", undefined],
    [{ platform: "freebsd", arch: "x64" }, "none", undefined],
  ] as const)("recipe: on %j with %s the asset is %p", (machine, gpu, expected) => {
    expect(githubAssets(machine, gpu, "b1")[0]).toBe(expected);
  });

  test.each([
    [{ platform: "linux", arch: "x64" }, "none", "v1-cpu"],
    [{ platform: "linux", arch: "x64" }, "cuda", "v1-cuda"],
    [{ platform: "linux", arch: "x64" }, "musa", "v1-musa"],
    [{ platform: "linux", arch: "arm64" }, "musa", null],
    [{ platform: "linux", arch: "arm64" }, "cann", "v1-cann"],
    [{ platform: "win32", arch: "x64" }, "cann", null],
    [{ platform: "darwin", arch: "arm64" }, "metal", "v1-metal"],
    [{ platform: "linux", arch: "x64" }, "metal", null],
    [{ platform: "linux", arch: "x64" }, "sycl", null],
    [{ platform: "win32", arch: "arm64" }, "opencl", null],
    [{ platform: "linux", arch: "riscv64" }, "none", null],
  ] as const)("recipe: on %j with %s the image's tag is %p", (machine, gpu, expected) => {
    expect(recipe.oci?.tag(machine, gpu, "v1")).toBe(expected);
  });

  test("recipe: Windows' CUDA build needs NVIDIA's libraries besides, no other build needs any", () => {
    expect(recipe.github?.companions?.("llama-b1-bin-win-cuda-12.4-x64.zip")).toEqual([
      "cudart-llama-bin-win-cuda-12.4-x64.zip",
    ]);
    expect(recipe.github?.companions?.("llama-b1-bin-win-vulkan-x64.zip")).toEqual([]);
    expect(recipe.github?.companions?.("llama-b1-bin-ubuntu-x64.tar.gz")).toEqual([]);
  });

  test("recipe: Vulkan adds packages to those of the processor build, CUDA has none", () => {
    expect(packages("vulkan")).toEqual([
      ...packages("none"),
      "libggml0-backend-vulkan",
      "libvulkan1",
    ]);
    expect(packages("cuda")).toEqual([]);
  });
});
