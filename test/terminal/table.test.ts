import { describe, expect, test } from "bun:test";
import { renderTable } from "../../src/terminal/table.ts";

describe("renderTable", () => {
  test("table: columns are left aligned with two spaces between and nothing behind", () => {
    expect(
      renderTable(
        ["NAME", "SIZE"],
        [
          ["pebble", "3.00MB"],
          ["a", null],
          ["longer-name", 7],
        ],
      ),
    ).toBe("NAME         SIZE\npebble       3.00MB\na\nlonger-name  7\n");
  });

  test("table: wide characters take two cells", () => {
    expect(
      renderTable(
        ["A", "B"],
        [
          ["日本", "x"],
          ["a", "y"],
        ],
      ),
    ).toBe("A     B\n日本  x\na     y\n");
  });

  test("table: a cell is one line and cannot steer the terminal", () => {
    expect(renderTable(["A"], [["x\ny\u001B[2Jz"], ["\u001B[31mred\u001B[39m"]])).toBe(
      "A\nx y [2Jz\n\u001B[31mred\u001B[39m\n",
    );
  });

  test("table: without rows there are the headers, long cells are not cut", () => {
    expect(renderTable(["A", "B"], [])).toBe("A  B\n");
    expect(renderTable(["A"], [["x".repeat(300)]])).toBe(`A\n${"x".repeat(300)}\n`);
  });
});
