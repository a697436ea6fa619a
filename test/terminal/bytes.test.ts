import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatAge, formatBytes, formatDuration } from "../../src/terminal/bytes.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

describe("formatBytes", () => {
  test.each<[number | null, string]>([
    [0, "0B"],
    [999, "999B"],
    [1000, "1.00kB"],
    [1500, "1.50kB"],
    [3_000_000, "3.00MB"],
    [999_999, "1.00MB"],
    [2_860_000_000, "2.86GB"],
    [1e21, "1000.00EB"],
    [null, "-"],
    [-1, "-"],
    [Number.NaN, "-"],
  ])("bytes: %d is %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  test("bytes: below an exabyte no number has four digits before the point", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e18, noNaN: true }), (bytes) => {
        expect(formatBytes(bytes)).toMatch(/^\d{1,3}(\.\d\d[kMGTPE])?B$|^1000B$/);
      }),
    );
  });
});

describe("formatDuration", () => {
  test.each([
    [0, "0ms"],
    [850.4, "850ms"],
    [999.9, "1.0s"],
    [3210, "3.2s"],
    [59_960, "1m 00s"],
    [65_000, "1m 05s"],
    [HOUR - 1, "1h 00m"],
    [2 * HOUR + 3 * MINUTE, "2h 03m"],
    [3 * DAY + 4 * HOUR, "3d 04h"],
    [-1, "-"],
    [Number.POSITIVE_INFINITY, "-"],
  ])("duration: %d ms is %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe("formatAge", () => {
  test.each([
    [500, "Less than a second ago"],
    [SECOND, "1 second ago"],
    [59 * SECOND, "59 seconds ago"],
    [MINUTE, "About a minute ago"],
    [5 * MINUTE, "5 minutes ago"],
    [HOUR, "About an hour ago"],
    [47 * HOUR, "47 hours ago"],
    [2 * DAY, "2 days ago"],
    [21 * DAY, "3 weeks ago"],
    [70 * DAY, "2 months ago"],
    [800 * DAY, "2 years ago"],
    [-4 * MINUTE, "4 minutes from now"],
  ])("age: %d ms before is %s", (distance, text) => {
    expect(formatAge(1e12 - distance, 1e12)).toBe(text);
  });

  test("age: RFC 3339 is read, nonsense is a dash", () => {
    expect(formatAge("2026-01-01T00:00:00Z", Date.UTC(2026, 0, 4))).toBe("3 days ago");
    expect(formatAge("never")).toBe("-");
  });
});
