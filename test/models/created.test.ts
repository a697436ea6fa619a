import { describe, expect, test } from "bun:test";
import { AppError } from "../../src/errors.ts";
import { resolveCreated, toUnixSeconds } from "../../src/models/created.ts";

describe("resolveCreated", () => {
  test("created: is the epoch unless something else is said", () => {
    expect(resolveCreated(undefined, undefined)).toBe("1970-01-01T00:00:00Z");
    expect(resolveCreated(undefined, "")).toBe("1970-01-01T00:00:00Z");
  });

  test("created: SOURCE_DATE_EPOCH is taken, and a given time wins over it", () => {
    expect(resolveCreated(undefined, "1700000000")).toBe("2023-11-14T22:13:20Z");
    expect(resolveCreated("2026-01-02T03:04:05Z", "1700000000")).toBe("2026-01-02T03:04:05Z");
  });

  test.each([
    ["2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"],
    ["2026-01-02T03:04:05.999Z", "2026-01-02T03:04:05Z"],
    ["2026-01-02t03:04:05z", "2026-01-02T03:04:05Z"],
    ["2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"],
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"],
  ])("created: %s is written as %s", (given, written) => {
    expect(resolveCreated(given, undefined)).toBe(written);
  });

  test.each([
    "",
    "yesterday",
    "2026-01-02",
    "2026-01-02T03:04:05",
    "2026-13-02T03:04:05Z",
    "2026-02-30T03:04:05Z",
    "2026-01-02T25:04:05Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-01:00",
  ])("created: %j is refused", (given) => {
    expect(() => resolveCreated(given, undefined)).toThrow(AppError);
  });

  test.each(["-1", "1.5", "soon", "9999999999999", "253402300800"])(
    "created: SOURCE_DATE_EPOCH %j is refused",
    (epoch) => {
      expect(() => resolveCreated(undefined, epoch)).toThrow("SOURCE_DATE_EPOCH");
    },
  );
});

describe("toUnixSeconds", () => {
  test.each([
    ["1970-01-01T00:00:01.9Z", 1],
    ["nonsense", 0],
    [undefined, 0],
    [12, 0],
  ])("created: %p is %d seconds", (text, seconds) => {
    expect(toUnixSeconds(text)).toBe(seconds);
  });
});
