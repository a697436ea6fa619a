import { describe, expect, test } from "bun:test";

import { parseDuration } from "../../src/config.ts";
import {
  checkPatch,
  checkSettings,
  formatKeepAlive,
  mergeLayers,
  SETTING_NAMES,
} from "../../src/runtime/settings.ts";

describe("checkSettings", () => {
  test("settings: what is right stays as it is; null and undefined are not there", () => {
    const settings = {
      context_size: -1,
      keep_alive: "1h30m",
      pinned: true,
      think: false,
      reasoning_budget: -1,
      gpu_layers: -1,
      parallel: 256,
      cache_type_k: "q8_0",
      lora: ["/a.gguf", String.raw`C:\b.gguf`],
      draft_model: "me/small",
      draft_min_probability: 0.75,
      runtime_flags: ["--no-warmup"],
      system: "Be brief.",
      temperature: 0,
      seed: -1,
    };

    expect(checkSettings({ ...settings, top_k: null, top_p: undefined })).toEqual(settings);
  });

  test.each([
    ["context_size", 0],
    ["context_size", -2],
    ["context_size", 1.5],
    ["context_size", 2 ** 31],
    ["context_size", "4096"],
    ["context_size", Number.NaN],
    ["keep_alive", "soon"],
    ["keep_alive", 300],
    ["keep_alive", "9".repeat(100)],
    ["keep_alive", "99999999999h"],
    ["pinned", "yes"],
    ["think", 1],
    ["reasoning_budget", -2],
    ["gpu_layers", -2],
    ["parallel", 0],
    ["parallel", 257],
    ["cache_type_k", "Q8 0"],
    ["cache_type_v", "--host"],
    ["lora", "/a.gguf"],
    ["lora", ["a.gguf"]],
    ["lora", ["/a\0b"]],
    ["lora", Array(33).fill("/a")],
    ["draft_model", ""],
    ["draft_max_tokens", 0],
    ["draft_min_probability", 1.1],
    ["runtime_flags", "--x"],
    ["runtime_flags", [1]],
    ["runtime_flags", Array(513).fill("-v")],
    ["system", ""],
    ["system", "x".repeat(1024 * 1024 + 1)],
    ["temperature", -0.1],
    ["temperature", Number.POSITIVE_INFINITY],
    ["top_p", 1.1],
    ["top_k", -1],
    ["seed", 2 ** 32],
    ["max_tokens", 0],
  ])("settings: %s cannot be just anything (%#)", (name, value) => {
    expect(() => checkSettings({ [name]: value }, "cannot configure `m`")).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: expect.stringMatching(
          new RegExp(`^cannot configure \`m\`: .{0,90} is not a value of \`${name}\`$`),
        ),
        hint: expect.stringMatching(/^Give it /),
      }),
    );
  });

  test.each([
    ["contxt_size", "Did you mean `context_size`?"],
    ["constructor", "Settings are: context_size,"],
    ["__proto__x", "Settings are:"],
    ["x".repeat(10_000), "Settings are:"],
  ])("settings: an unknown one is named (%#)", (name, hint) => {
    expect(() => checkSettings({ [name]: 1 })).toThrow(
      expect.objectContaining({
        message: expect.stringMatching(/there is no setting `.{1,90}`$/),
        hint: expect.stringContaining(hint),
      }),
    );
  });

  test("settings: in a patch null stays: it unsets", () => {
    expect(checkPatch({ parallel: null, top_k: 5 }, "w")).toEqual({ parallel: null, top_k: 5 });
    expect(() => checkPatch({ nothing: null }, "w")).toThrow(/there is no setting `nothing`/);
  });

  test("settings: each has a place in what is shown", () => {
    expect(new Set(SETTING_NAMES).size).toBe(SETTING_NAMES.length);
    expect(SETTING_NAMES).toContain("frequency_penalty");
  });
});

describe("mergeLayers", () => {
  test("merge: each key is the strongest layer's that has it", () => {
    const merged = mergeLayers([
      { source: "request", settings: { context_size: 1024 } },
      { source: "stored", settings: { context_size: 2048, keep_alive: "1h" } },
      { source: "packaged", settings: { keep_alive: "0", temperature: 0 } },
    ]);

    expect(merged).toEqual({
      context_size: { value: 1024, source: "request" },
      keep_alive: { value: "1h", source: "stored" },
      temperature: { value: 0, source: "packaged" },
    });
  });

  test("merge: false, 0 and an empty list are said", () => {
    const merged = mergeLayers([
      { source: "a", settings: { think: false, temperature: 0, runtime_flags: [] } },
      { source: "b", settings: { think: true, temperature: 1, runtime_flags: ["-v"] } },
    ]);

    expect(Object.values(merged).map(({ source }) => source)).toEqual(["a", "a", "a"]);
  });
});

test.each([
  [-1, "-1"],
  [0, "0"],
  [300_000, "5m"],
  [5_400_000, "1h30m"],
  [1500, "1s500ms"],
])("a keep-alive of %d ms is written %s", (ms, text) => {
  expect(formatKeepAlive(ms)).toBe(text);
  expect(parseDuration(text)).toBe(ms);
});
