import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EventFramer } from "../../src/server/event-framer.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function push(framer: EventFramer, text: string): string {
  return decoder.decode(framer.push(encoder.encode(text)));
}

describe("EventFramer", () => {
  test("framer: whole events pass as the bytes they came in", () => {
    const bytes = encoder.encode("data: 1\n\ndata: 2\n\n");

    expect(new EventFramer().push(bytes)).toBe(bytes);
  });

  test.each([
    ["data: 1\n\n", "data: "],
    ["", "data: 1\ndata: 2\n"],
    ["data: 1\r\n\r\n", "data: 2\r\n"],
    ["data: 1\r\n\r\n", "data: 2\r\n\r"],
    [": ping\n\n", ""],
    ["", ""],
    ["", "\n"],
  ])("framer: %j passes, the unfinished %j is held", (passed, held) => {
    const framer = new EventFramer();

    expect(push(framer, passed + held)).toBe(passed);
    expect(decoder.decode(framer.rest())).toBe(held);
    expect(framer.rest().byteLength).toBe(0);
  });

  test("framer: a stream cut anywhere comes out whole, and every piece ends an event", () => {
    const event = fc.array(fc.constantFrom("data: é", ": c", "event: x", "data:"), {
      minLength: 1,
    });
    const stream = fc.tuple(fc.array(event, { minLength: 1 }), fc.constantFrom("\n", "\r\n"));

    fc.assert(
      fc.property(stream, fc.array(fc.nat(200)), ([events, newline], cuts) => {
        const text = events
          .map((lines) => lines.map((line) => line + newline).join("") + newline)
          .join("");
        const bytes = encoder.encode(text);
        const ends = [...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length];
        const framer = new EventFramer();
        const pieces: string[] = [];
        let start = 0;
        for (const end of ends.toSorted((a, b) => a - b)) {
          pieces.push(decoder.decode(framer.push(bytes.slice(start, end))));
          start = end;
        }

        const sent = pieces.filter((piece) => piece !== "");
        expect(sent.join("")).toBe(text);
        expect(sent.every((piece) => piece.endsWith(newline + newline))).toBe(true);
        expect(framer.rest().byteLength).toBe(0);
      }),
    );
  });

  test("framer: an event longer than the bound is passed on in pieces", () => {
    const framer = new EventFramer();
    const half = `data: ${"x".repeat(700_000)}`;

    expect(push(framer, half)).toBe("");
    expect(push(framer, half).length).toBe(2 * half.length);
    expect(framer.rest().byteLength).toBe(0);
  });
});
