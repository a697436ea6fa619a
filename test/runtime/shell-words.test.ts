import { expect, test } from "bun:test";

import { splitShellWords } from "../../src/runtime/shell-words.ts";

test.each([
  ["", []],
  ["  \n\t ", []],
  ["--a 1  --b=2", ["--a", "1", "--b=2"]],
  [`--system 'two words' "and three more"`, ["--system", "two words", "and three more"]],
  [`a'b'"c"d`, ["abcd"]],
  [`''`, [""]],
  [String.raw`a\ b "\"\\\$\n" '\'`, ["a b", String.raw`"\$\n`, "\\"]],
  ["$HOME `ls` $(ls) * ~", ["$HOME", "`ls`", "$(ls)", "*", "~"]],
])("shell words: %j", (text, words) => {
  expect(splitShellWords(text)).toEqual(words);
});

test.each([
  ["'open", /a quote has no end/],
  ['a "open', /a quote has no end/],
  ["end\\", /it ends in a backslash/],
  ["x".repeat(70_000), /longer than 65536/],
])("shell words: refuses %#", (text, reason) => {
  expect(() => splitShellWords(text)).toThrow(reason);
});

test("shell words: long hostile text is read in no time", () => {
  const text = `${"'a'\"b\"\\c".repeat(5000)} end`;

  expect(splitShellWords(text)).toHaveLength(2);
});
