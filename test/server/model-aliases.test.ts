import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { findAlias, withAliases } from "../../src/server/model-aliases.ts";
import { rejection } from "./fake-deps.ts";

const ALIASES = {
  "claude-sonnet-4": "ai/qwen3",
  "claude-*": "ai/pebble",
  "claude-haiku-*": "ai/smol",
};

describe("findAlias", () => {
  test.each([
    ["claude-sonnet-4", "ai/qwen3"],
    ["claude-sonnet-4-5", "ai/pebble"],
    ["claude-haiku-4", "ai/smol"],
    ["claude-", "ai/pebble"],
    ["claude", undefined],
    ["gpt-4o", undefined],
    ["claude-*", "ai/pebble"],
    ["toString", undefined],
    ["__proto__", undefined],
  ])("%p is %p", (name, expected) => {
    expect(findAlias(ALIASES, name)).toBe(expected);
  });

  test("a star alone is every name", () => {
    expect(findAlias({ "*": "ai/pebble" }, "anything")).toBe("ai/pebble");
  });
});

describe("withAliases", () => {
  const asked: string[] = [];
  const resolve = withAliases(ALIASES, async (name: string): Promise<string> => {
    asked.push(name);
    await Promise.resolve();
    if (name === "claude-3@20240620") throw new AppError("invalid_reference", "no reference");
    if (name === "claude-broken") throw new AppError("invalid_model_file", "cannot read it");
    if (name === "ai/pebble" || name === "claude-own") return name;
    throw new AppError("model_not_found", `cannot find \`${name}\`: no such model`, {
      hint: "See `tug list`.",
    });
  });

  test.each([
    ["claude-own", "claude-own"],
    ["claude-other", "ai/pebble"],
    ["claude-3@20240620", "ai/pebble"],
  ])("%p is %p", async (name, expected) => {
    expect(await resolve(name)).toBe(expected);
  });

  test("names both where there is no such model either", async () => {
    expect(await rejection(resolve("claude-sonnet-4"))).toMatchObject({
      code: "model_not_found",
      message: "cannot find `ai/qwen3`: no such model (`[aliases]` gives it for `claude-sonnet-4`)",
      hint: "See `tug list`.",
    });
  });

  test.each([
    ["claude-broken", "invalid_model_file"],
    ["gpt-4o", "model_not_found"],
  ])("%p fails as %p, and nothing else is asked for", async (name, code) => {
    asked.length = 0;

    expect(await rejection(resolve(name))).toMatchObject({ code });
    expect(asked).toEqual([name]);
  });

  test("an alias is not looked up as another one", async () => {
    const chain = withAliases({ a: "b", b: "c" }, (name: string) =>
      Promise.reject<string>(new AppError("model_not_found", `cannot find \`${name}\``)),
    );

    expect(await rejection(chain("a"))).toMatchObject({
      message: expect.stringContaining("cannot find `b`"),
    });
  });
});
