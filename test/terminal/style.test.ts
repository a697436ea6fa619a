import { describe, expect, test } from "bun:test";
import { createStyle, hasColor, isInteractive, stripControls } from "../../src/terminal/style.ts";

const TERMINAL = { isTTY: true };
const PIPE = {};

describe("hasColor", () => {
  test.each([
    ["a terminal", TERMINAL, {}, true],
    ["a pipe", PIPE, {}, false],
    ["a dumb terminal", TERMINAL, { TERM: "dumb" }, false],
    ["NO_COLOR", TERMINAL, { NO_COLOR: "0" }, false],
    ["an empty NO_COLOR", TERMINAL, { NO_COLOR: "" }, true],
    ["FORCE_COLOR on a pipe", PIPE, { FORCE_COLOR: "1" }, true],
    ["FORCE_COLOR=0", TERMINAL, { FORCE_COLOR: "0" }, false],
    ["NO_COLOR over FORCE_COLOR", TERMINAL, { NO_COLOR: "1", FORCE_COLOR: "1" }, false],
  ])("style: %s", (...[, stream, env, expected]) => {
    expect(hasColor(stream, env)).toBe(expected);
  });

  test("style: a dumb terminal is not interactive", () => {
    expect(isInteractive(TERMINAL, {})).toBe(true);
    expect(isInteractive(TERMINAL, { TERM: "dumb" })).toBe(false);
    expect(isInteractive(PIPE, {})).toBe(false);
  });
});

describe("createStyle", () => {
  test("style: text is wrapped only when enabled and not empty", () => {
    expect(createStyle(true).red("a")).toBe("\u001B[31ma\u001B[39m");
    expect(createStyle(true).red("")).toBe("");
    expect(createStyle(false).bold("a")).toBe("a");
  });
});

describe("stripControls", () => {
  test("style: tabs and newlines stay, escapes and C1 controls go", () => {
    expect(stripControls("a\tb\nc\u001B[31m\u009B31m\u0007\r日")).toBe("a\tb\nc[31m31m日");
  });
});
