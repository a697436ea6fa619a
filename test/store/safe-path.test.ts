import { describe, expect, test } from "bun:test";
import { join, posix, win32 } from "node:path";
import fc from "fast-check";
import { AppError } from "../../src/errors.ts";
import { safePath } from "../../src/store/safe-path.ts";

describe("safePath", () => {
  test.each([
    ["model.gguf", "model.gguf"],
    ["a/b c/模型.gguf", "a/b c/模型.gguf"],
    ["./a/./b", "a/b"],
    [".hidden", ".hidden"],
    ["..a/b..c", "..a/b..c"],
    ["console.txt", "console.txt"],
  ])("safe path: %p is %p", (path, expected) => {
    expect(safePath(path)).toBe(expected);
  });

  test.each([
    ["", "is empty"],
    [".", "is empty"],
    ["./", "is empty"],
    ["/etc/passwd", "is absolute"],
    ["..", "leaves"],
    ["../a", "leaves"],
    ["a/../b", "leaves"],
    ["a/..", "leaves"],
    ["a//b", "an empty name"],
    ["a/", "an empty name"],
    ["a\0b", "characters"],
    ["a\nb", "characters"],
    ["a\ud800", "characters"],
    ["C:\\a", "characters"],
    ["C:a", "characters"],
    ["a\\..\\..\\b", "characters"],
    ["a?", "characters"],
    ["CON", "device"],
    ["a/nul.txt", "device"],
    ["a/nul .txt", "device"],
    ["com1", "device"],
    ["a.", "ends in a dot"],
    ["a /b", "ends in a dot or a space"],
    ["x".repeat(256), "too long a name"],
    ["é".repeat(128), "too long a name"],
    ["a/".repeat(600), "is too long"],
    [`${"a/".repeat(64)}b`, "is too deep"],
  ])("safe path: %p is refused because it %s", (path, reason) => {
    expect(() => safePath(path)).toThrow(reason);
    expect(() => safePath(path)).toThrow(expect.objectContaining({ code: "invalid_model_file" }));
  });

  test.each([
    ["../../a/b", "a/b"],
    ["../a", "a"],
  ])("safe path: %p is repaired to %p where that is wanted", (path, expected) => {
    expect(safePath(path, { repair: true })).toBe(expected);
  });

  test.each(["..", "../..", "../a/../../b", "..//etc/passwd"])(
    "safe path: %p is beyond repair",
    (path) => {
      expect(() => safePath(path, { repair: true })).toThrow(AppError);
    },
  );

  test("safe path: whatever is accepted stays below the root, on every system", () => {
    const name = fc.constantFrom("a", "..", ".", "", "/", "\\", "C:", "con", "b c", "\0");
    const path = fc.oneof(
      fc.string(),
      fc.array(name).map((names) => names.join("/")),
    );
    fc.assert(
      fc.property(path, fc.boolean(), (text, repair) => {
        try {
          const safe = safePath(text, { repair });
          const isBelow = [posix, win32].every((system) =>
            system.join("root", safe).startsWith(`root${system.sep}`),
          );
          return isBelow && join("root", safe).length > "root/".length;
        } catch (error) {
          return error instanceof AppError;
        }
      }),
    );
  });
});
