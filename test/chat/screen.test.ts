import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { layOut, redraw, reflow, type Layout } from "../../src/chat/screen.ts";
import { Emulator } from "../terminal/emulator.ts";

const OPTIONS = { columns: 10, rows: 5, prompt: "> ", continuation: ". " };

describe("layOut", () => {
  test("screen: a line begins with the prompt and the next with the continuation", () => {
    expect(layOut("ab\nc", 4, OPTIONS)).toEqual({ rows: ["> ab", ". c"], row: 1, column: 3 });
  });

  test("screen: wide characters wrap as a whole", () => {
    expect(layOut("abc日日日", 6, OPTIONS)).toEqual({
      rows: ["> abc日日", "日"],
      row: 1,
      column: 2,
    });
  });

  test("screen: behind a full row the cursor stands on the next", () => {
    expect(layOut("12345678", 8, OPTIONS)).toEqual({ rows: ["> 12345678", ""], row: 1, column: 0 });
  });

  test("screen: more than the screen holds is shown around the cursor", () => {
    const text = Array.from({ length: 20 }, (_, index) => `l${index}`).join("\n");

    expect(layOut(text, text.length, OPTIONS)).toEqual({
      rows: [". l15", ". l16", ". l17", ". l18", ". l19"],
      row: 4,
      column: 5,
    });
    expect(layOut(text, 0, OPTIONS)).toMatchObject({ row: 0, column: 2 });
    expect(layOut(text, 0, OPTIONS).rows[0]).toBe("> l0");
  });

  test("screen: a tab takes four cells", () => {
    expect(layOut("é\tb", 3, OPTIONS)).toEqual({ rows: ["> é    b"], row: 0, column: 8 });
  });

  test("screen: a redraw leaves exactly the new text and cursor", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "日", "👍", "\n"), maxLength: 30 });
    const steps = fc.array(fc.tuple(text, fc.nat(30)), { minLength: 1, maxLength: 6 });

    fc.assert(
      fc.property(steps, (all) => {
        const emulator = new Emulator(OPTIONS.columns).write("before\r\n");
        let layout: Layout | undefined;
        for (const [value, offset] of all) {
          const cursor = Array.from(value).slice(0, offset).join("").length;
          const next = layOut(value, cursor, { ...OPTIONS, rows: 20 });
          emulator.write(redraw(layout, next));
          layout = next;
        }
        const expected = ["before", ...(layout?.rows ?? []).map((row) => row.trimEnd())];
        while (expected.at(-1) === "") expected.pop();
        expect(emulator.lines).toEqual(expected);
        expect(emulator.cursor).toEqual({ row: 1 + layout!.row, column: layout!.column });
      }),
    );
  });
});

describe("reflow", () => {
  const drawn: Layout = { rows: ["x".repeat(10), "y".repeat(4)], row: 1, column: 4 };

  test.each([
    [20, 1, 4],
    [10, 1, 4],
    [5, 2, 4],
    [4, 4, 0],
    [3, 5, 1],
  ])("screen: at %d columns the cursor is in row %d, column %d", (columns, row, column) => {
    expect(reflow(drawn, columns)).toMatchObject({ row, column });
  });

  test("screen: an empty row stays one", () => {
    expect(reflow({ rows: ["", "ab"], row: 1, column: 2 }, 10).row).toBe(1);
  });
});
