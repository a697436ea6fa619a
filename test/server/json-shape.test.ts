import { describe, expect, test } from "bun:test";
import { checkJsonShape, MAX_JSON_DEPTH, MAX_JSON_VALUES } from "../../src/server/json-shape.ts";

function check(text: string): void {
  checkJsonShape(new TextEncoder().encode(text));
}

function nested(depth: number, [open, close] = ["[", "]"]): string {
  return open.repeat(depth) + close.repeat(depth);
}

describe("checkJsonShape", () => {
  test.each([
    ["lists", ["[", "]"]],
    ["objects", ['{"a":', "}"]],
  ])("shape: %s may be as deep as the limit, and no deeper", (_, [open = "", close = ""]) => {
    check(nested(MAX_JSON_DEPTH, [open, close]));

    expect(() => check(nested(MAX_JSON_DEPTH + 1, [open, close]))).toThrow(
      expect.objectContaining({
        code: "invalid_request",
        message: expect.stringContaining(`${MAX_JSON_DEPTH} levels`),
      }),
    );
  });

  test("shape: what is beside one another is not deep", () => {
    check(`[${"[[]],".repeat(10_000)}[]]`);
  });

  test.each([
    ["short", `"${"[".repeat(10)}"`],
    ["long", `"${"[".repeat(1000)}"`],
    ["with quotes in it", JSON.stringify(`a"${"[".repeat(1000)}`)],
    ["with quotes far in it", JSON.stringify(`${"a".repeat(100)}"${"[".repeat(1000)}`)],
    [
      "that ends with backslashes",
      `[${JSON.stringify(`${"x".repeat(100)}\\\\`)},"${"[".repeat(600)}"]`,
    ],
    ["that never ends", `"${"[".repeat(1000)}`],
  ])("shape: brackets in a string count for nothing: one %s", (_, text) => {
    expect(() => check(text)).not.toThrow();
  });

  test.each([
    ["a short string", '"x"'],
    ["a long string", JSON.stringify("x".repeat(100))],
    ["an escaped quote at its end", JSON.stringify(`${"x".repeat(100)}\\"`)],
    ["backslashes at its end", JSON.stringify(`${"x".repeat(100)}\\\\`)],
  ])("shape: what follows %s is looked at again", (_, text) => {
    expect(() => check(`[${text},${nested(MAX_JSON_DEPTH)}]`)).toThrow("levels");
  });

  test("shape: more values than the limit are refused", () => {
    check(`[${"1,".repeat(MAX_JSON_VALUES)}1]`);

    expect(() => check(`[${"1,".repeat(MAX_JSON_VALUES + 1)}1]`)).toThrow("values");
  });
});
