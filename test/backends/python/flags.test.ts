import { describe, expect, test } from "bun:test";
import { array, assert, constantFrom, oneof, property, string } from "fast-check";

import { parseSize, readPythonFlags } from "../../../backends/python/flags.ts";
import { FLAGS } from "../../../backends/vllm/flag-table.ts";
import { AppError } from "../../../src/errors.ts";
import { parseVllm } from "../vllm/stand-in.ts";

describe("parseSize", () => {
  test.each([
    ["8192", 8192],
    ["8k", 8000],
    ["8K", 8192],
    ["1.5k", 1500],
    ["1.5K", undefined],
    ["1.5", undefined],
    ["-1", undefined],
    ["", undefined],
    ["k", undefined],
    ["8Ki", undefined],
    ["9".repeat(20), undefined],
  ])("parseSize: %s is %p", (text, expected) => {
    expect(parseSize(text)).toBe(expected);
  });
});

describe("readPythonFlags", () => {
  test("flags: whatever is said, it is refused in our words, or the engine takes what is left", () => {
    const words = oneof(
      constantFrom(...FLAGS.rules.keys(), ...Object.keys(FLAGS.owned)),
      constantFrom("1", "0.5", "-1", "auto", "fp8", "{}", "/etc/hostname", "--", "-", "x=y"),
      string({ maxLength: 12 }),
    );

    assert(
      property(array(words, { maxLength: 6 }), (flags) => {
        try {
          const read = readPythonFlags(flags, FLAGS, { allowPaths: true });
          // What names no file of this machine, and what asks for a parser, is judged later.
          if (read.flags.some((word) => /chat-template|auto-tool/.test(word))) return;
          parseVllm(["serve", "/b", ...read.flags]);
        } catch (thrown) {
          if (!(thrown instanceof AppError)) throw thrown;
          expect(["invalid_request", "forbidden"]).toContain(thrown.code);
        }
      }),
      { numRuns: 300, seed: 1 },
    );
  });
});
