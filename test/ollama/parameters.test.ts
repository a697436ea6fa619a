import { describe, expect, test } from "bun:test";
import {
  ignoredWarning,
  readMessages,
  readObject,
  readParameters,
  readSystem,
} from "../../src/ollama/parameters.ts";

function bytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
}

const NOT_UTF8 = new Uint8Array([0x7b, 0xff, 0x7d]);

describe("readParameters", () => {
  test("says everything in the words of our requests", () => {
    const read = readParameters(
      bytes({
        num_ctx: 8192,
        temperature: 0.7,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.05,
        typical_p: 1,
        repeat_penalty: 1.1,
        repeat_last_n: -1,
        presence_penalty: 1.5,
        frequency_penalty: -0.5,
        mirostat: 2,
        mirostat_tau: 5,
        mirostat_eta: 0.1,
        num_keep: 24,
        num_predict: 256,
        seed: 42,
        stop: ["<|eot_id|>", "<|end|>"],
      }),
    );

    expect(read).toEqual({
      contextTokens: 8192,
      parameters: {
        temperature: 0.7,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.05,
        typical_p: 1,
        repeat_penalty: 1.1,
        repeat_last_n: -1,
        presence_penalty: 1.5,
        frequency_penalty: -0.5,
        mirostat: 2,
        mirostat_tau: 5,
        mirostat_eta: 0.1,
        n_keep: 24,
        max_tokens: 256,
        seed: 42,
        stop: ["<|eot_id|>", "<|end|>"],
      },
      ignored: [],
    });
  });

  test("a single stop text is a list of one", () => {
    expect(readParameters(bytes({ stop: "<|end|>" })).parameters).toEqual({ stop: ["<|end|>"] });
  });

  test.each([[-1], [-2]])("a limit of %d is none", (limit) => {
    expect(readParameters(bytes({ num_predict: limit }))).toEqual({
      contextTokens: undefined,
      parameters: {},
      ignored: [],
    });
  });

  test.each([
    ["num_gpu", 99],
    ["use_mmap", true],
    ["tfs_z", 1],
    ["__proto__x", 1],
    ["constructor", 1],
    ["temperature", "0.7"],
    ["temperature", -1],
    ["temperature", null],
    ["top_p", 1.5],
    ["top_k", 1.5],
    ["seed", 0.5],
    ["num_ctx", 0],
    ["num_ctx", -1],
    ["num_ctx", 2 ** 31],
    ["num_ctx", "4096"],
    ["num_predict", 0],
    ["num_predict", -3],
    ["stop", 7],
    ["stop", ["a", 7]],
    ["stop", [""]],
    ["stop", Array.from({ length: 65 }, () => "x")],
  ])("%s = %j is left out, and named", (name, value) => {
    const read = readParameters(bytes({ [name]: value, min_p: 0.1 }));

    expect(read).toEqual({ contextTokens: undefined, parameters: { min_p: 0.1 }, ignored: [name] });
  });

  test("a member called __proto__ is one like others", () => {
    const read = readParameters(bytes('{"__proto__": {"temperature": 1}, "top_k": 1}'));

    expect(read).toEqual({
      contextTokens: undefined,
      parameters: { top_k: 1 },
      ignored: ["__proto__"],
    });
  });

  test.each([["[]"], ["null"], ["7"], ["{"], [""]])("%j is no parameters", (text) => {
    expect(() => readParameters(bytes(text))).toThrow(
      expect.objectContaining({ code: "invalid_model_file" }),
    );
  });

  test("text that is not UTF-8 is refused", () => {
    expect(() => readParameters(NOT_UTF8)).toThrow("not UTF-8");
  });
});

describe("ignoredWarning", () => {
  test("is silent about nothing", () => {
    expect(ignoredWarning([])).toEqual([]);
  });

  test("names ten and counts the others", () => {
    const names = Array.from({ length: 12 }, (_, index) => `p${index}`);

    const [warning] = ignoredWarning(names);

    expect(warning).toEndWith("`p9` and 2 more");
  });

  test("shows no control characters", () => {
    expect(ignoredWarning(["a\u001B[2Jb"])[0]).not.toMatch(/\p{Cc}/u);
  });
});

describe("readSystem", () => {
  test("keeps the text as it is", () => {
    expect(readSystem(bytes(" Say „hi“.\n"))).toBe(" Say „hi“.\n");
  });

  test("an empty one says nothing", () => {
    expect(readSystem(bytes(" \n"))).toBeUndefined();
  });

  test("what is not UTF-8 is refused", () => {
    expect(() => readSystem(NOT_UTF8)).toThrow("cannot read the model's system prompt");
  });
});

describe("readMessages", () => {
  test("keeps role and text", () => {
    const turns = [
      { role: "user", content: "Hi", images: [] },
      { role: "assistant", content: "" },
    ];

    expect(readMessages(bytes(turns))).toEqual([
      { role: "user", content: "Hi" },
      { role: "assistant", content: "" },
    ]);
  });

  test("null is none, as Go writes it", () => {
    expect(readMessages(bytes("null"))).toEqual([]);
  });

  test.each([
    ["{}", "not a list"],
    ["[7]", "number 1 is not an object"],
    ['[{"role":"user","content":"a"},{"role":"root","content":"b"}]', "number 2 has no known role"],
    ['[{"role":"user"}]', "number 1 has no known role or no text"],
    ['[{"role":"user","content":["a"]}]', "number 1"],
    ["[", "not JSON"],
  ])("%s is refused", (text, reason) => {
    expect(() => readMessages(bytes(text))).toThrow(reason);
  });
});

test("readObject refuses everything but objects", () => {
  expect(readObject(bytes({ a: 1 }), "config")).toEqual({ a: 1 });
  expect(() => readObject(bytes([]), "config")).toThrow("cannot read the model's config");
});
