import { expect, test } from "bun:test";
import { parseWarnings, warnOnce } from "../../src/oci/warnings.ts";

test.each([
  ['299 - "this registry closes"', ["this registry closes"]],
  ['299 - "one", 299 - "two"', ["one", "two"]],
  ['299 - "with \\"quotes\\", and a comma"', ['with "quotes", and a comma']],
  ['299 - "a\u001B[31mb"', ["a [31mb"]],
  ['110 - "another code"', []],
  ['299 - "not closed', []],
  ['299 - ""', []],
  [null, []],
])("parseWarnings: %p", (header, expected) => {
  expect(parseWarnings(header)).toEqual(expected);
});

test("warnOnce: each text is passed on once, and at most 32", () => {
  const heard: string[] = [];
  const warn = warnOnce((text) => heard.push(text));

  warn('299 - "a"');
  warn('299 - "a", 299 - "b"');
  for (let at = 0; at < 100; at += 1) warn(`299 - "c${at}"`);

  expect(heard.slice(0, 3)).toEqual(["a", "b", "c0"]);
  expect(heard).toHaveLength(32);
});

test("warnOnce: without anybody to tell it is silent", () => {
  expect(() => warnOnce(undefined)('299 - "a"')).not.toThrow();
});
