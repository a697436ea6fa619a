import { describe, expect, test } from "bun:test";
import { isAbsolute } from "node:path";
import { parseArguments } from "../../src/commands/arguments.ts";
import { command, parseSettings, toModelName } from "../../src/commands/run.ts";
import { filterModels } from "../../src/commands/list.ts";
import type { Model } from "../../src/api/models.ts";

function settings(...words: string[]): ReturnType<typeof parseSettings> {
  return parseSettings(parseArguments(command.args, ["m", ...words]));
}

describe("run", () => {
  test("turns its flags into settings", () => {
    const parsed = settings(
      "--temperature",
      "0",
      "--seed",
      "-1",
      "--ctx-size",
      "4096",
      "--no-reasoning",
      "--keep-alive",
      "5m",
    );

    expect(parsed).toMatchObject({
      parameters: { temperature: 0, seed: -1 },
      contextSize: 4096,
      think: false,
      showReasoning: false,
      keepAlive: "5m",
    });
    expect(parsed.parameters).not.toHaveProperty("top_p");
  });

  test.each([
    [["--temperature", "warm"], "`warm` is not a value of `--temperature`"],
    [["--temperature", ""], "is not a value of `--temperature`"],
    [["--top-p", "2"], "`2` is not a value of `--top-p`"],
    [["--max-tokens", "1.5"], "`1.5` is not a value of `--max-tokens`"],
    [["--max-tokens", "0"], "`0` is not a value of `--max-tokens`"],
    [["--ctx-size", "99999999999"], "is not a context size"],
    [["--keep-alive", "soon"], "`soon` is not a duration"],
  ])("refuses %p", (words, message) => {
    expect(() => settings(...words)).toThrow(message);
  });

  test.each(["./m.gguf", "../m.GGUF", "m.gguf", "/a b/ü.gguf", "dir/m.gguf"])(
    "takes %p for a file",
    (typed) => {
      expect(isAbsolute(toModelName(typed, false))).toBe(true);
    },
  );

  test.each(["pebble", "me/pebble:v1", "hf.co/org/m-gguf", "hf.co/org/m.gguf", "gguf"])(
    "takes %p for a name",
    (typed) => {
      expect(toModelName(typed, false)).toBe(typed);
    },
  );

  test("does not send the path of a file to another machine", () => {
    expect(() => toModelName("./m.gguf", true)).toThrow("another machine's runner");
  });
});

/** A model whose id is the given hex digit over and over. */
function model(digit: string, ...tags: string[]): Model {
  const config = {} as Model["config"];
  return { id: `sha256:${digit.repeat(64)}`, tags, created: 0, config, size_bytes: 0 };
}

describe("list", () => {
  const models = [
    model("a", "docker.io/ai/pebble:latest", "docker.io/ai/pebble:v1"),
    model("b", "docker.io/me/pebble:latest"),
    model("c"),
    model("d", "localhost:5000/me/x:v1"),
  ];
  const names = (name: string): (readonly string[])[] =>
    filterModels(models, name).map(({ tags }) => tags);

  test.each([
    ["pebble", [["docker.io/ai/pebble:latest", "docker.io/ai/pebble:v1"]]],
    ["pebble:v1", [["docker.io/ai/pebble:v1"]]],
    ["Pebble:latest", [["docker.io/ai/pebble:latest"]]],
    ["ai/pebble:latest", [["docker.io/ai/pebble:latest"]]],
    ["me/pebble", [["docker.io/me/pebble:latest"]]],
    ["localhost:5000/me/x", [["localhost:5000/me/x:v1"]]],
    ["cccccccccccc", [[]]],
    ["peb", []],
    ["me/x", [["localhost:5000/me/x:v1"]]],
    ["x:v1", [["localhost:5000/me/x:v1"]]],
    ["x:v2", []],
    [`x@sha256:${"c".repeat(64)}`, [[]]],
  ])("filters by %p", (name, expected) => {
    expect(names(name)).toEqual(expected);
  });
});
