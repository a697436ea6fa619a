import { describe, expect, test } from "bun:test";

import { type KeyFacts, workerKey } from "../../src/runtime/worker-key.ts";

const base: KeyFacts = {
  backend: "fake",
  modelId: "sha256:1",
  mode: "completion",
  settings: {
    runtimeFlags: ["--a", "1"],
    contextTokens: 4096,
    draft: { model: "/d", maxTokens: 4 },
  },
};
const { settings } = base;

describe("workerKey", () => {
  test("worker key: the same facts give the same key in whatever order they were written", () => {
    const reordered = {
      draft: { maxTokens: 4, model: "/d" },
      contextTokens: 4096,
      runtimeFlags: ["--a", "1"],
    };

    expect(workerKey({ ...base, settings: reordered })).toBe(workerKey(base));
  });

  test.each<[string, KeyFacts]>([
    ["backend", { ...base, backend: "other" }],
    ["model", { ...base, modelId: "sha256:2" }],
    ["mode", { ...base, mode: "embedding" }],
    ["context", { ...base, settings: { ...settings, contextTokens: 8192 } }],
    ["no context", { ...base, settings: { ...settings, contextTokens: undefined } }],
    ["reasoning budget", { ...base, settings: { ...settings, reasoningBudget: 0 } }],
    ["flags", { ...base, settings: { ...settings, runtimeFlags: ["--a 1"] } }],
    ["draft", { ...base, settings: { ...settings, draft: { model: "/e", maxTokens: 4 } } }],
    ["draft model", { ...base, draftId: "sha256:3" }],
    ["gpu layers", { ...base, settings: { ...settings, gpuLayers: 0 } }],
    ["parallel", { ...base, settings: { ...settings, parallel: 4 } }],
    ["cache type of keys", { ...base, settings: { ...settings, cacheTypeK: "q8_0" } }],
    ["cache type of values", { ...base, settings: { ...settings, cacheTypeV: "q8_0" } }],
    ["adapters", { ...base, settings: { ...settings, adapters: ["/a"] } }],
    ["devices", { ...base, settings: { ...settings, devices: ["cuda:0"] } }],
    ["draft tokens", { ...base, settings: { ...settings, draft: { model: "/d" } } }],
  ])("worker key: another %s is another worker", (_name, facts) => {
    expect(workerKey(facts)).not.toBe(workerKey(base));
  });
});
