import { describe, expect, test } from "bun:test";
import { machineProblem, requirementsOf } from "../../../backends/python/machine.ts";
import { ownTemplate, trustArgs } from "../../../backends/python/settings.ts";
import { needsAutoMap, unreadableOnGpus } from "../../../backends/python/traits.ts";

const TRAITS = { hasAutoMap: false, hasModelFile: false };
const BUNDLE = { directory: "/b", format: "safetensors", model: "/b/m", weightBytes: 1 } as const;

describe("settings of Python engines", () => {
  test("python: code is trusted where it is said, and once", () => {
    expect(trustArgs({ runtimeFlags: [] })).toEqual([]);
    expect(trustArgs({ runtimeFlags: [], trustsCode: false })).toEqual([]);
    expect(trustArgs({ runtimeFlags: [], trustsCode: true })).toEqual(["--trust-remote-code"]);
    const said = ["--trust-remote-code"];
    expect(trustArgs({ runtimeFlags: said, trustsCode: true }, said)).toEqual([]);
  });

  test("python: the template by the usual name is found by engines themselves", () => {
    expect(ownTemplate(BUNDLE)).toBeUndefined();
    expect(ownTemplate({ ...BUNDLE, chatTemplate: "/b/chat_template.jinja" })).toBeUndefined();
    expect(ownTemplate({ ...BUNDLE, chatTemplate: "/b/x/chat_template.jinja" })).toBeDefined();
  });

  test("python: a lock is for a machine and what computes there", () => {
    const lockOf = requirementsOf({ none: "n", cuda: "c", metal: "m" });
    const linux = { platform: "linux", arch: "x64" } as const;
    const mac = { platform: "darwin", arch: "arm64" } as const;
    expect([lockOf(linux, "none"), lockOf(linux, "cuda")]).toEqual(["n", "c"]);
    expect([lockOf(linux, "rocm"), lockOf(linux, "metal")]).toEqual([undefined, undefined]);
    expect([lockOf(mac, "metal"), lockOf(mac, "none")]).toEqual(["m", undefined]);
    const windows = { platform: "win32", arch: "x64" } as const;
    expect(lockOf(windows, "none")).toBeUndefined();
    expect(machineProblem(windows)).toContain("it needs");
  });

  test("python: what engines on GPUs do not read is other engines' own", () => {
    for (const quantization of ["mlx", "exl2", "exl3"])
      expect(unreadableOnGpus({ ...TRAITS, quantization })).toContain("quantised");
    for (const quantization of ["awq", "gptq", "fp8", "anything"])
      expect(unreadableOnGpus({ ...TRAITS, quantization })).toBeUndefined();
    expect(unreadableOnGpus(TRAITS)).toBeUndefined();
  });

  test("python: code is needed of what transformers does not know", () => {
    expect(needsAutoMap({ ...TRAITS, architecture: "nobodys" })).toBe(false);
    expect(needsAutoMap({ ...TRAITS, hasAutoMap: true, architecture: "nobodys" })).toBe(true);
    for (const architecture of ["llama", "qwen3", "phi3", "gpt2", "bert", "gpt-sw3"])
      expect(needsAutoMap({ ...TRAITS, hasAutoMap: true, architecture })).toBe(false);
  });
});
