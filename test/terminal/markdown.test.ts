import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MarkdownStream } from "../../src/terminal/markdown.ts";

const OPTIONS = { columns: () => 40, colors: false };

function render(chunks: readonly string[]): string {
  const stream = new MarkdownStream(OPTIONS);
  return chunks.map((chunk) => stream.push(chunk)).join("") + stream.end();
}

const DOCUMENT = `# Title

Some **bold** text
over two lines.
- one
- two
  continued

  more of two
3. three

\`\`\`
plain fence
\`\`\`
\`\`\`ts
const a = 1;

const b = 2;
\`\`\`
After.

| a | b |
|---|---|
| 1 | 2 |

> quote
`;

describe("MarkdownStream", () => {
  test("markdown: the document is rendered block by block", () => {
    expect(render([DOCUMENT])).toBe(`Title
=====

Some bold text over two lines.

  * one
  * two continued

    more of two
   3. three

+-
| plain fence
+-
+- ts
| const a = 1;
| 
| const b = 2;
+-

After.

+-----+-----+
| a   | b   |
+-----+-----+
| 1   | 2   |
+-----+-----+

| quote
`);
  });

  test("markdown: a stream cut at any place gives the same", () => {
    const whole = render([DOCUMENT]);

    fc.assert(
      fc.property(fc.array(fc.nat(DOCUMENT.length), { maxLength: 12 }), (cuts) => {
        const edges = [0, ...cuts.toSorted((a, b) => a - b), DOCUMENT.length];
        const chunks = edges.slice(1).map((edge, index) => DOCUMENT.slice(edges[index], edge));
        expect(render(chunks)).toBe(whole);
      }),
    );
  });

  test("markdown: a block comes out as soon as it is whole", () => {
    const stream = new MarkdownStream(OPTIONS);

    expect(stream.push("para")).toBe("");
    expect(stream.push("graph\n\n")).toBe("paragraph\n");
    expect(stream.push("# H\n")).toBe("\nH\n===\n");
    expect(stream.push("- a\n- b")).toBe("");
    expect(stream.push("\n- c\n")).toContain("* b");
    expect(stream.end()).toBe("  * c\n");
  });

  test("markdown: a fence without a language ends at its own end", () => {
    const stream = new MarkdownStream(OPTIONS);

    expect(stream.push("```\ncode\n")).toBe("");
    expect(stream.push("```\n")).toBe("+-\n| code\n+-\n");
    expect(stream.push("````\n```\nx\n````\n")).toContain("| ```");
  });

  test("markdown: a fence that never ends is shown at the end", () => {
    expect(render(["```py\nx = 1"])).toBe("+- py\n| x = 1\n+-\n");
  });

  test("markdown: a fence within an item belongs to it", () => {
    expect(render(["1. do\n   ```sh\n   ls\n   ```\n\n2. done\n"])).toContain("| ls");
  });

  test("markdown: no control character of the text survives", () => {
    expect(render(["a\u001B[2Jb\u0007 `\u009Bx`\n"])).toBe("a[2Jb x\n");
  });

  test("markdown: a paragraph without end is rendered piece by piece", () => {
    const stream = new MarkdownStream(OPTIONS);

    expect(stream.push("word word\n".repeat(30_000)).length).toBeGreaterThan(200_000);
  });
});
