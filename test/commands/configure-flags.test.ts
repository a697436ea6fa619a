import { describe, expect, test } from "bun:test";
import { resolve } from "node:path";

import { parseArguments } from "../../src/commands/arguments.ts";
import { command } from "../../src/commands/configure.ts";
import { toPatch } from "../../src/commands/configure-flags.ts";
import { formatSetting, toWord } from "../../src/commands/setting-text.ts";

function patchOf(...words: readonly string[]): unknown {
  const args = parseArguments(command.args, ["m", ...words]);
  return toPatch(args, args.words);
}

describe("configure's flags", () => {
  test.each([
    [["--context-size", "4096"], { context_size: 4096 }],
    [["--ctx-size=-1"], { context_size: -1 }],
    [["--keep-alive", "-1"], { keep_alive: "-1" }],
    [["--think"], { think: true }],
    [["--no-think"], { think: false }],
    [["--no-pin"], { pinned: false }],
    [
      ["--trust-remote-code", "--no-allow-pickle"],
      { trust_remote_code: true, allow_pickle: false },
    ],
    [["--unset", "allow-pickle"], { allow_pickle: null }],
    [["--gpu-layers=-1", "--parallel", "2"], { gpu_layers: -1, parallel: 2 }],
    [["--temperature", "0", "--top-k", "5"], { temperature: 0, top_k: 5 }],
    [["--seed=-1"], { seed: -1 }],
    [["--presence-penalty=-1.5"], { presence_penalty: -1.5 }],
    [["--lora", "/a.gguf", "--lora", "b.gguf"], { lora: ["/a.gguf", resolve("b.gguf")] }],
    [["--speculative-draft-model", "s"], { draft_model: "s" }],
    [
      ["--speculative-num-tokens", "4", "--speculative-min-acceptance-rate", "0.5"],
      { draft_max_tokens: 4, draft_min_probability: 0.5 },
    ],
    [
      ["--unset", "context-size", "--unset", "keep_alive", "--unset", "--lora"],
      { context_size: null, keep_alive: null, lora: null },
    ],
    [["--unset", "ctx-size"], { context_size: null }],
    [["--", "--no-warmup", "-c", "5"], { runtime_flags: ["--no-warmup", "-c", "5"] }],
    [["--system", "-"], { system: "-" }],
    [[], {}],
  ])("%j", (words, patch) => {
    expect(patchOf(...words)).toEqual(patch);
  });

  test.each([
    [["--context-size", "0"], /not a context size/],
    [["--keep-alive", "soon"], /not a duration/],
    [["--parallel", "two"], /`two` is not a value of `--parallel`/],
    [["--parallel", "1.5"], /`1.5` is not a value of `--parallel`/],
    [["--temperature", ""], /`` is not a value of `--temperature`/],
    [["--temperature", "1e999x"], /is not a value of `--temperature`/],
    [["--ctx-size", "5", "--context-size", "6"], /`context_size` is given twice/],
    [["--unset", "top-k", "--top-k", "6"], /`top_k` is given twice/],
    [["--unset", "contxt-size"], /no setting `contxt-size`/],
    [["--unset", "constructor"], /no setting `constructor`/],
    [["--contextsize", "5"], /unknown flag/],
    [["--mode", "chat"], /not a value of `--mode`/],
  ])("%j is refused", (words, message) => {
    expect(() => patchOf(...words)).toThrow(
      expect.objectContaining({ code: "usage", message: expect.stringMatching(message) }),
    );
  });
});

test.each([
  [["--no-warmup", "a b"], "--no-warmup 'a b'"],
  ["line\nline", "line line"],
  [true, "true"],
  [-1, "-1"],
  [{ a: 1 }, '{"a":1}'],
  ["x".repeat(200), `${"x".repeat(100)}…`],
])("a value is shown on one line (%#)", (value, text) => {
  expect(formatSetting(value)).toBe(text);
});

test("a word is written as a shell takes it", () => {
  expect(["plain", "", "it's", "$HOME", "/a/b:c"].map(toWord)).toEqual([
    "plain",
    "''",
    String.raw`'it'\''s'`,
    "'$HOME'",
    "/a/b:c",
  ]);
});
