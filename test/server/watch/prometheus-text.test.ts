import { describe, expect, test } from "bun:test";
import {
  mergeFamilies,
  parseMetrics,
  relabel,
  renderMetrics,
} from "../../../src/server/watch/prometheus-text.ts";
import { checkMetrics } from "../../helpers/strict-metrics.ts";

/** As llama-server writes it. */
const LLAMA = `# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 12
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
`;

const HISTOGRAM = `# TYPE h histogram
h_bucket{le="1"} 1
h_bucket{le="+Inf"} 2
h_sum 3.5
h_count 2
`;

describe("parseMetrics", () => {
  test("reads what llama-server writes, colons and all", () => {
    const families = parseMetrics(LLAMA);

    expect(families.map(({ name, type }) => [name, type])).toEqual([
      ["llamacpp:prompt_tokens_total", "counter"],
      ["llamacpp:requests_processing", "gauge"],
    ]);
    expect(families[0]?.samples).toEqual([
      { name: "llamacpp:prompt_tokens_total", labels: [], value: "12" },
    ]);
  });

  test("keeps the parts of a histogram in their family", () => {
    const [family, ...others] = parseMetrics(HISTOGRAM);

    expect(others).toEqual([]);
    expect(family?.samples).toHaveLength(4);
  });

  test.each([
    ["escapes", 'a{b="x\\\\y\\"z\\n"} 1', [["b", 'x\\y"z\n']]],
    ["a comma behind the last label", 'a{b="1",} 1', [["b", "1"]]],
    [
      "braces and commas in a value",
      'a{b="},{",c=""} 1',
      [
        ["b", "},{"],
        ["c", ""],
      ],
    ],
    [
      "space around labels",
      'a { b = "1" , c="2" } 1',
      [
        ["b", "1"],
        ["c", "2"],
      ],
    ],
    ["no labels in braces", "a{} 1", []],
  ])("reads %s", (_, line, labels) => {
    expect(parseMetrics(line)[0]?.samples[0]?.labels).toEqual(labels as never);
  });

  test.each(["1", "-1.5e+3", "+Inf", "-Inf", "NaN", ".5", "2.", "1e9"])("takes %s", (value) => {
    expect(parseMetrics(`a ${value}`)[0]?.samples[0]?.value).toBe(value);
  });

  test("takes timestamps, remarks, empty lines and carriage returns", () => {
    const families = parseMetrics("# a remark\r\n\r\na 1 1700000000000\r\n# EOF\n");

    expect(families[0]?.samples).toEqual([
      { name: "a", labels: [], value: "1", timestamp: "1700000000000" },
    ]);
  });

  test.each([
    ["no value", "a"],
    ["a value that is no number", "a one"],
    ["a name that begins with a digit", "1a 1"],
    ["a label that is not closed", 'a{b="1 1'],
    ["a label without quotes", "a{b=1} 1"],
    ["a wrong escape", String.raw`a{b="\t"} 1`],
    ["a label with a colon", 'a{b:c="1"} 1'],
    ["a label twice", 'a{b="1",b="2"} 1'],
    ["two labels without a comma", 'a{b="1" c="2"} 1'],
    ["a series twice", 'a{b="1",c="2"} 1\na{c="2",b="1"} 1'],
    ["a family in two places", 'a 1\nb 1\na{c="1"} 1'],
    ["a second TYPE", "# TYPE a gauge\n# TYPE a gauge"],
    ["a second HELP", "# HELP a x\n# HELP a y"],
    ["a TYPE behind samples", "a 1\n# TYPE a gauge"],
    ["an unknown TYPE", "# TYPE a thing"],
    ["a bare sample of a histogram", "# TYPE h histogram\nh 1"],
    ["more behind the timestamp", "a 1 2 3"],
    ["HTML", "<html>"],
  ])("refuses %s", (_, text) => {
    expect(() => parseMetrics(text)).toThrow("cannot read metrics: line");
  });

  test("bounds what it says of a line", () => {
    expect(() => parseMetrics("x".repeat(100_000))).toThrow(/^.{1,200}$/);
  });

  test("takes a label named like a member of every object for a label", () => {
    const text = '__proto__{constructor="1"} 1\n';

    expect(renderMetrics(parseMetrics(text))).toContain(text);
  });
});

describe("mergeFamilies", () => {
  test("puts the series of several engines into one family, told apart by labels", () => {
    const merged = mergeFamilies([
      relabel(parseMetrics(LLAMA), [["worker", "1"]]),
      relabel(parseMetrics(LLAMA), [["worker", "2"]]),
    ]);

    const samples = checkMetrics(renderMetrics(merged));

    expect(samples.map(({ name, labels }) => [name, labels["worker"]])).toEqual([
      ["llamacpp:prompt_tokens_total", "1"],
      ["llamacpp:prompt_tokens_total", "2"],
      ["llamacpp:requests_processing", "1"],
      ["llamacpp:requests_processing", "2"],
    ]);
  });

  test("leaves out a family that is of another type elsewhere", () => {
    const merged = mergeFamilies([
      parseMetrics("# TYPE a counter\na 1\n"),
      relabel(parseMetrics("# TYPE a gauge\na 2\n# TYPE b gauge\nb 3\n"), [["worker", "2"]]),
    ]);

    expect(renderMetrics(merged)).toBe('# TYPE a counter\na 1\n# TYPE b gauge\nb{worker="2"} 3\n');
  });

  test("keeps a label that is there already under another name", () => {
    const families = relabel(parseMetrics('a{model="x",b="1"} 1\n'), [["model", "m"]]);

    expect(families[0]?.samples[0]?.labels).toEqual([
      ["model", "m"],
      ["exported_model", "x"],
      ["b", "1"],
    ]);
  });

  test("writes what it reads, whatever stands in labels and help", () => {
    const text = '# HELP a back\\\\slash\\nline\n# TYPE a untyped\na{b="q\\"\\\\\\n"} +Inf 5\n';

    expect(renderMetrics(parseMetrics(text))).toBe(text);
    expect(() => checkMetrics(text)).not.toThrow();
  });
});

describe("the checker of these tests", () => {
  test.each([
    ["buckets that are not cumulative", HISTOGRAM.replace('"1"} 1', '"1"} 3')],
    ["a histogram without +Inf", HISTOGRAM.replace('h_bucket{le="+Inf"} 2\n', "")],
    ["a count that is not the last bucket", HISTOGRAM.replace("h_count 2", "h_count 3")],
    ["a family in two places", 'a 1\nb 1\na{c="1"} 1\n'],
    ["a series twice", "a 1\na 1\n"],
    ["a counter below 0", "# TYPE a counter\na -1\n"],
    ["no newline at the end", "a 1"],
    ["an empty line", "a 1\n\n"],
  ])("finds %s", (_, text) => {
    expect(() => checkMetrics(text)).toThrow();
  });

  test("takes what is right", () => {
    expect(checkMetrics(LLAMA + HISTOGRAM)).toHaveLength(6);
  });
});
