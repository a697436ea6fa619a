import { expect, test } from "bun:test";
import { isLoopback, printable, shownUrl, withoutPort } from "../../src/http/host.ts";

test.each([
  ["localhost", true],
  ["LOCALHOST:5000", true],
  ["registry.localhost:80", true],
  ["127.0.0.1", true],
  ["127.9.8.7:1", true],
  ["[::1]:5000", true],
  ["[::2]", false],
  ["127.0.0.1.example.com", false],
  ["localhost.example.com", false],
  ["mylocalhost", false],
  ["10.0.0.1", false],
])("isLoopback: %s is %p", (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});

test("withoutPort: an IPv6 address keeps its brackets", () => {
  expect(withoutPort("[FE80::1]:5000")).toBe("[fe80::1]");
});

test("printable: controls, reordering marks and line breaks do not reach a terminal", () => {
  expect(printable("a\u001B[31mb\r\nc\u202Ed\u0000")).toBe("a [31mb c d");
});

test("printable: long text is cut", () => {
  expect(printable("x".repeat(500))).toBe(`${"x".repeat(200)}…`);
});

test.each([
  ["https://user:secret@host:1/path?token=secret#secret", "https://host:1/path"],
  ["secret", "an unreadable address"],
])("shownUrl: %s is shown as %s", (url, shown) => {
  expect(shownUrl(url)).toBe(shown);
});
