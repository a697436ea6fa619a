import { describe, expect, test } from "bun:test";
import {
  checkAnnotations,
  checkContext,
  requireOneSource,
} from "../../src/models/package-request.ts";

const code = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return "none";
};

describe("a request to package", () => {
  test.each([
    [{}, "usage"],
    [{ gguf: "/a", dduf: "/b" }, "usage"],
    [{ safetensors_dir: "/a", from: "b" }, "usage"],
    [{ gguf: "/a" }, "none"],
    [{ from: "a" }, "none"],
    [{ gguf: "/a", link: true, push: true }, "usage"],
    [{ gguf: "/a", link: true, push: true, keep: true }, "none"],
  ])("package request: the sources of %j: %s", (request, expected) => {
    expect(code(() => requireOneSource({ model: "m", ...request }))).toBe(expected);
  });

  test("package request: the message names the flags that exclude each other", () => {
    const request = { model: "m", gguf: "/a", from: "b", dduf: "/c" };
    expect(() => requireOneSource(request)).toThrow("`--gguf` and `--dduf` and `--from` exclude");
  });

  test("package request: a context is an int32, in Docker's format", () => {
    expect([undefined, -1, 1, 2 ** 31 - 1].map((n) => checkContext(n, "docker"))).toEqual([
      undefined,
      -1,
      1,
      2 ** 31 - 1,
    ]);
    for (const tokens of [0, -2, 0.5, 2 ** 31, Number.NaN])
      expect(code(() => checkContext(tokens, "docker"))).toBe("usage");
    expect(checkContext(undefined, "cncf")).toBeUndefined();
    expect(code(() => checkContext(1, "cncf"))).toBe("usage");
  });

  test.each<[string, Record<string, string>, string]>([
    ["none", {}, "none"],
    ["an empty value", { a: "" }, "none"],
    ["text with lines", { "org.example": "a\nb = c" }, "none"],
    ["an empty key", { "": "a" }, "usage"],
    ["a key with a space", { "a b": "c" }, "usage"],
    ["a key that clears the screen", { "a\u001B[2J": "c" }, "usage"],
    ["a key without end", { ["a".repeat(300)]: "c" }, "usage"],
    ["a value without end", { a: "c".repeat(20_000) }, "usage"],
    ["the creation time", { "org.opencontainers.image.created": "now" }, "usage"],
    [
      "too many",
      Object.fromEntries(Array.from({ length: 257 }, (_, index) => [`k${index}`, ""])),
      "usage",
    ],
  ])("package request: annotations: %s", (_, annotations, expected) => {
    expect(code(() => checkAnnotations(annotations))).toBe(expected);
  });

  test("package request: what is refused is shown without control characters", () => {
    expect(() => checkAnnotations({ "\u001B[2J": "c" })).toThrow(/"\\u001b\[2J"/);
  });
});
