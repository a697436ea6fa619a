import { describe, expect, test } from "bun:test";
import { formatBinaryBytes, formatParameters } from "../../src/models/amounts.ts";

describe("formatParameters", () => {
  test.each([
    [0, "0"],
    [999, "999"],
    [1000, "1K"],
    [361_821_120, "361.82M"],
    [7_000_000_000, "7B"],
    [1_100_000_000, "1.10B"],
    [999_999, "1M"],
    [1.2e15, "1.20Q"],
    [5e20, "500000Q"],
  ])("amounts: %d elements read %s", (count, text) => {
    expect(formatParameters(count)).toBe(text);
  });
});

describe("formatBinaryBytes", () => {
  test.each([
    [0, "0B"],
    [1023, "1023B"],
    [1024, "1KiB"],
    [268_802_458, "256.35MiB"],
    [1024 ** 3, "1GiB"],
    [1024 ** 2 - 1, "1MiB"],
  ])("amounts: %d bytes read %s", (bytes, text) => {
    expect(formatBinaryBytes(bytes)).toBe(text);
  });
});
