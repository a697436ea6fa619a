import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { digestOf, hexOf, parseDigest, tryParseDigest } from "../../src/oci/digest.ts";

const HEX = "a".repeat(64);

describe("parseDigest", () => {
  test("digest: a SHA-256 in lower case is taken as it is", () => {
    expect<string>(parseDigest(`sha256:${HEX}`)).toBe(`sha256:${HEX}`);
  });

  test.each([
    ["", "it names no algorithm"],
    [HEX, "it names no algorithm"],
    [`sha512:${HEX}${HEX}`, "`sha512` is not a supported algorithm"],
    [`sha256:${HEX.slice(1)}`, "it has not 64 digits"],
    [`sha256:${HEX}0`, "it has not 64 digits"],
    [`sha256:${HEX.toUpperCase()}`, "not lower-case hexadecimal"],
    [`sha256:${HEX}\n`, "it has not 64 digits"],
  ])("digest: %p is refused because %s", (text, reason) => {
    expect(() => parseDigest(text)).toThrow(reason);
    expect(tryParseDigest(text)).toBeUndefined();
  });
});

describe("digestOf", () => {
  test("digest: the empty input has the known SHA-256", () => {
    const digest = digestOf(new Uint8Array());

    expect(hexOf(digest)).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  });

  test("digest: of any bytes can be parsed again", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const digest = digestOf(bytes);
        return parseDigest(digest) === digest && digest === `sha256:${hexOf(digest)}`;
      }),
    );
  });
});
