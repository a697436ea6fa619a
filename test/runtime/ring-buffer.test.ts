import { describe, expect, test } from "bun:test";

import fc from "fast-check";

import { RingBuffer } from "../../src/runtime/ring-buffer.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("RingBuffer", () => {
  test("ring buffer: it holds the end of what was appended, however it was cut", () => {
    const ascii = fc.string({ unit: fc.constantFrom("a", "b", "c", "d", "e"), maxLength: 40 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 16 }), fc.array(ascii), (capacity, chunks) => {
        const ring = new RingBuffer(capacity);

        for (const chunk of chunks) ring.append(utf8(chunk));

        expect(ring.text()).toBe(chunks.join("").slice(-capacity));
      }),
    );
  });

  test("ring buffer: a character cut in two at the start is left out", () => {
    const ring = new RingBuffer(6);

    ring.append(utf8("日本語"));

    expect(ring.text()).toBe("本語");
    ring.append(utf8("!"));
    expect(ring.text()).toBe("語!");
  });

  test("ring buffer: it is empty at first", () => {
    expect(new RingBuffer(8).text()).toBe("");
  });
});
