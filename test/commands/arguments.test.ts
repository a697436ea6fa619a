import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseArguments } from "../../src/commands/arguments.ts";
import type { AppError } from "../../src/errors.ts";

const DEFINITIONS = {
  model: { type: "positional", description: "model" },
  prompt: { type: "positional", required: false, rest: true, description: "prompt" },
  license: { type: "string", alias: "l", multiple: true, description: "licence" },
  seed: { type: "string", description: "seed" },
  format: { type: "string", options: ["docker", "cncf"], description: "format" },
  force: { type: "boolean", alias: "f", description: "force" },
  reasoning: { type: "boolean", negatable: true, description: "reasoning" },
} as const;

function parse(...words: string[]): ReturnType<typeof parseArguments<typeof DEFINITIONS>> {
  return parseArguments(DEFINITIONS, words);
}

function failure(...words: string[]): AppError {
  try {
    parse(...words);
  } catch (error) {
    return error as AppError;
  }
  throw new Error(`accepted: ${words.join(" ")}`);
}

describe("parseArguments", () => {
  test("takes flags and words in any order", () => {
    const args = parse("-f", "m", "--seed", "7", "two", "words");

    expect(args).toMatchObject({ model: "m", prompt: ["two", "words"], seed: "7", force: true });
  });

  test("keeps every value of a repeatable flag, in all three spellings", () => {
    expect(parse("m", "-l", "a", "--license", "b", "--license=c").license).toEqual(["a", "b", "c"]);
  });

  test("takes a negative number as the value of a flag", () => {
    expect(parse("m", "--seed", "-1").seed).toBe("-1");
  });

  test("leaves what was not given undefined, lists empty", () => {
    expect(parse("m")).toMatchObject({
      seed: undefined,
      force: undefined,
      license: [],
      prompt: [],
    });
  });

  test("takes words that begin with a dash behind `--`", () => {
    expect(parse("m", "--", "--seed", "-x").prompt).toEqual(["--seed", "-x"]);
  });

  test.each([
    ["--reasoning", true],
    ["--no-reasoning", false],
    ["--reasoning=false", false],
    ["--no-reasoning=false", true],
  ] as const)("reads %p as %p", (word, value) => {
    expect(parse("m", word).reasoning).toBe(value);
  });

  test.each([
    [["m", "--forse"], "unknown flag `--forse`", "Did you mean `--force`?"],
    [["m", "--no-force"], "unknown flag `--no-force`", undefined],
    [["m", "--model", "x"], "unknown flag `--model`", undefined],
    [["m", "-x"], "unknown flag `-x`", undefined],
    [["m", "--seed"], "`--seed` needs a value", undefined],
    [["m", "--seed", "1", "--seed", "2"], "`--seed` is given twice", undefined],
    [["m", "--constructor", "x"], "unknown flag `--constructor`", undefined],
    [["m", "--toString=5"], "unknown flag `--toString`", undefined],
    [["m", "--force=yes"], "`--force` takes no value", undefined],
    [["m", "--format", "zip"], "`zip` is not a value of `--format`", "Use one of docker, cncf."],
    [[], "MODEL is missing", undefined],
  ] as const)("refuses %p", (words, message, hint) => {
    const error = failure(...words);

    expect(error).toMatchObject({ code: "usage", exitCode: 2, message });
    if (hint !== undefined) expect(error.hint).toBe(hint);
  });

  test("refuses a surplus word where there is no rest", () => {
    const only = { model: { type: "positional", description: "model" } } as const;

    expect(() => parseArguments(only, ["a", "b"])).toThrow("unexpected argument `b`");
  });

  test("never loses a word that follows `--`", () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (words) => {
        expect(parse("m", "--", ...words).prompt).toEqual(words);
      }),
    );
  });
});
