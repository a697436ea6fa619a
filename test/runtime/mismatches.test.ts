import { describe, expect, test } from "bun:test";

import type { WorkerSettings } from "../../src/runtime/backend.ts";
import { findMismatches } from "../../src/runtime/mismatches.ts";

const settings: WorkerSettings = { runtimeFlags: [], contextTokens: 1000, parallel: 4 };
const wanted = { settings, modelPath: "/m.gguf" };

describe("findMismatches", () => {
  test("mismatches: none where all is as it was told, a context that was rounded up included", () => {
    const report = { context_size: 1024, parallel: 4, model_path: "/m.gguf", build: "b1" };

    expect(findMismatches(wanted, report)).toEqual([]);
  });

  test.each<[string, number]>([
    ["less", 999],
    ["a whole cell more", 1256],
    ["divided among the slots", 250],
    ["nonsense", Number.NaN],
  ])("mismatches: a context that is %s", (_what, actual) => {
    expect(findMismatches(wanted, { context_size: actual })).toEqual([
      { name: "context_size", wanted: 1000, actual },
    ]);
  });

  test("mismatches: all that differ, in one order", () => {
    const report = {
      model_path: "/other",
      parallel: 1,
      cache_type_k: "f16",
      cache_type_v: "f16",
      gpu_layers: 0,
    };
    const more = { ...settings, cacheTypeK: "q8_0", cacheTypeV: "q8_0", gpuLayers: 10 };

    const found = findMismatches({ ...wanted, settings: more }, report);

    expect(found.map(({ name }) => name)).toEqual([
      "parallel",
      "cache_type_k",
      "cache_type_v",
      "gpu_layers",
      "model_path",
    ]);
  });

  test("mismatches: what was left to the engine and what it does not tell is none", () => {
    const open: WorkerSettings = { runtimeFlags: [], contextTokens: -1, gpuLayers: -1 };

    expect(
      findMismatches(
        { ...wanted, settings: open },
        { context_size: 5, gpu_layers: 3, parallel: 9 },
      ),
    ).toEqual([]);
    expect(findMismatches(wanted, {})).toEqual([]);
  });
});
