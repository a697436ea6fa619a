import { describe, expect, test } from "bun:test";
import { type BenchResult, renderResult, replaceSection } from "../../../scripts/bench/report.ts";

const RESULT: BenchResult = {
  name: "start",
  title: "Starting",
  table: [
    ["program", "median"],
    ["`tug`", "4.0 ms"],
  ],
  bars: [
    { text: "fast", isKept: true },
    { text: "small", isKept: false },
  ],
};

describe("renderResult", () => {
  test("names the command and the machine, and says which bars were missed", () => {
    expect(renderResult(RESULT, "a machine")).toBe(`## Starting

\`bun run bench start\` on a machine

| program | median |
| --- | --- |
| \`tug\` | 4.0 ms |

- kept: fast
- **missed**: small`);
  });
});

describe("replaceSection", () => {
  const first = replaceSection("# Title\n", { name: "start", content: "one" });

  test("a new section goes to the end", () => {
    const both = replaceSection(first, { name: "idle", content: "two" });

    expect(both).toBe(
      "# Title\n\n<!-- bench:start -->\n\none\n\n<!-- /bench:start -->\n\n<!-- bench:idle -->\n\ntwo\n\n<!-- /bench:idle -->\n",
    );
  });

  test("an old one is replaced in place, and the rest stays", () => {
    const document = `${first}\nwritten by hand\n`;

    const replaced = replaceSection(document, { name: "start", content: "three" });

    expect(replaced).toBe(document.replace("one", "three"));
  });
});
