/**
 * What promtool would find wrong with a text of metrics, written from the format's specification and without Tug's own
 * parser.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 */

export interface CheckedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = String.raw`[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"`;
const SAMPLE = new RegExp(
  String.raw`^(${NAME})(?:\{(${LABEL}(?:,${LABEL})*)?\})? (\S+)(?: (-?\d+))?$`,
);
const FLOAT = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?Inf|NaN)$/;
const TYPES = new Set(["counter", "gauge", "histogram", "summary", "untyped"]);

/** @throws Error naming the first line that is wrong, and why */
export function checkMetrics(text: string): CheckedSample[] {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const families = new Map<string, { type?: string; help?: true; samples: CheckedSample[] }>();
  const seen = new Set<string>();
  let current = "";
  text
    .slice(0, -1)
    .split("\n")
    .forEach((line, index) => {
      const fail = (why: string): never => {
        throw new Error(`line ${index + 1} (${line}): ${why}`);
      };
      const enter = (name: string) => {
        if (name !== current && families.has(name)) fail("its family stands in two places");
        current = name;
        let family = families.get(name);
        if (family === undefined) families.set(name, (family = { samples: [] }));
        return family;
      };
      const meta = new RegExp(`^# (HELP|TYPE) (${NAME}) (.*)$`).exec(line);
      if (meta !== null) {
        const [, word, name = "", rest = ""] = meta;
        const family = enter(name);
        if (family.samples.length > 0) fail("it stands behind samples");
        if (word === "HELP") {
          if (family.help) fail("a second HELP");
          if (/\\(?![\\n])/.test(rest.replaceAll("\\\\", ""))) fail("a wrong escape");
          family.help = true;
          return;
        }
        if (family.type !== undefined) fail("a second TYPE");
        if (!TYPES.has(rest)) fail("an unknown TYPE");
        family.type = rest;
        return;
      }
      const match = SAMPLE.exec(line);
      if (match === null) fail("no sample");
      const [, name = "", inner = "", value = ""] = match ?? [];
      if (!FLOAT.test(value)) fail("no number");
      const labels: Record<string, string> = {};
      for (const [, label = "", text_ = ""] of inner.matchAll(
        /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g,
      )) {
        if (label in labels) fail("a label twice");
        labels[label] = text_;
      }
      const key = name + keyOf(labels);
      if (seen.has(key)) fail("a series twice");
      seen.add(key);
      const base = name.replace(/_(?:bucket|sum|count)$/, "");
      const isPart = ["histogram", "summary"].includes(families.get(base)?.type ?? "");
      const number = Number(value.replace("Inf", "Infinity"));
      enter(isPart ? base : name).samples.push({ name, labels, value: number });
    });
  for (const [name, { type, samples }] of families) {
    if (type === "counter" && samples.some(({ value }) => value < 0))
      throw new Error(`${name} < 0`);
    if (type === "histogram") checkHistogram(name, samples);
  }
  return [...families.values()].flatMap(({ samples }) => samples);
}

// --- internal ---

function checkHistogram(name: string, samples: readonly CheckedSample[]): void {
  const groups = Map.groupBy(samples, ({ labels: { le: _le, ...labels } }) => keyOf(labels));
  for (const [labels, group] of groups) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels: { le } }) => Number(le?.replace("+Inf", "Infinity")));
    const values = buckets.map(({ value }) => value);
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    if (!isSorted(bounds) || !isSorted(values)) throw new Error(`${name}${labels}: not cumulative`);
    if (bounds.at(-1) !== Infinity) throw new Error(`${name}${labels}: no +Inf`);
    if (values.at(-1) !== count) throw new Error(`${name}${labels}: +Inf is not the count`);
    if (!group.some((sample) => sample.name === `${name}_sum`)) throw new Error(`${name}: no sum`);
  }
}

function isSorted(numbers: readonly number[]): boolean {
  return numbers.every((number, index) => index === 0 || number >= (numbers[index - 1] ?? 0));
}

/** The same for the same labels in any order. */
function keyOf(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map((pair) => JSON.stringify(pair));
  return pairs.toSorted((one, other) => one.localeCompare(other)).join();
}
