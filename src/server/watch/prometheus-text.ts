/**
 * Prometheus's text format 0.0.4: parsed strictly, relabelled, merged, written. Pure.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 */
import { AppError } from "../../errors.ts";

export interface Sample {
  /** The family's, or with `_bucket`, `_sum` or `_count` behind it. */
  readonly name: string;
  readonly labels: readonly Label[];
  /** As written, a Go float. */
  readonly value: string;
  /** Milliseconds since 1970, as written. */
  readonly timestamp?: string;
}

export type Label = readonly [name: string, value: string];

export type FamilyType = "counter" | "gauge" | "histogram" | "summary" | "untyped";

export interface Family {
  readonly name: string;
  readonly help: string | undefined;
  readonly type: FamilyType;
  readonly samples: readonly Sample[];
}

/** The name of a metric; llama.cpp's have a colon. */
const METRIC_NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const FLOAT = /^[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf(?:inity)?|nan)$/i;
const TYPES: readonly FamilyType[] = ["counter", "gauge", "histogram", "summary", "untyped"];
/** What is shown of a line that is wrong. Characters. */
const MAX_SHOWN = 80;

/** @throws worker_failed (a line that is none, a family in two places, a series twice; the message names the line) */
export function parseMetrics(text: string): Family[] {
  const parser = new Parser();
  text.split("\n").forEach((line, index) => {
    try {
      parser.line(line);
    } catch (cause) {
      const where = `line ${index + 1} \`${line.slice(0, MAX_SHOWN)}\``;
      const reason = (cause as Error).message;
      throw new AppError("worker_failed", `cannot read metrics: ${where}: ${reason}`, { cause });
    }
  });
  return parser.families();
}

/** A label that is there already keeps its value as `exported_NAME`, as Prometheus itself does it. */
export function relabel(families: readonly Family[], labels: readonly Label[]): Family[] {
  const names = new Set(labels.map(([name]) => name));
  return families.map((family) => ({
    ...family,
    samples: family.samples.map((sample) => ({
      ...sample,
      labels: [
        ...labels,
        ...sample.labels.map(([name, value]): Label => [
          names.has(name) ? `exported_${name}` : name,
          value,
        ]),
      ],
    })),
  }));
}

/** One family a name; the first help and type hold. A family of another type is left out: its samples mean other things. */
export function mergeFamilies(all: Iterable<readonly Family[]>): Family[] {
  const merged = new Map<string, Family>();
  for (const families of all) {
    for (const family of families) {
      const known = merged.get(family.name);
      if (known !== undefined && known.type !== family.type) continue;
      const samples = [...(known?.samples ?? []), ...family.samples];
      merged.set(family.name, { ...family, help: known?.help ?? family.help, samples });
    }
  }
  return [...merged.values()].filter(({ samples }) => samples.length > 0);
}

export function renderMetrics(families: readonly Family[]): string {
  return families.map(renderFamily).join("");
}

// --- internal ---

/** What a family of a type calls its samples. */
const SUFFIXES: Readonly<Record<FamilyType, readonly string[]>> = {
  counter: [""],
  gauge: [""],
  untyped: [""],
  summary: ["", "_sum", "_count"],
  histogram: ["_bucket", "_sum", "_count"],
};

interface OpenFamily {
  readonly name: string;
  help: string | undefined;
  type: FamilyType | undefined;
  readonly samples: Sample[];
}

class Parser {
  readonly #families = new Map<string, OpenFamily>();
  readonly #series = new Set<string>();
  #current: OpenFamily | undefined;

  line(line: string): void {
    const text = line.endsWith("\r") ? line.slice(0, -1) : line;
    if (text.trim() === "") return;
    if (text.startsWith("#")) this.#comment(text);
    else this.#sample(parseSample(text));
  }

  families(): Family[] {
    return [...this.#families.values()].map(({ type, ...family }) => ({
      ...family,
      type: type ?? "untyped",
    }));
  }

  // --- internal ---

  /** What is neither is a remark. */
  #comment(text: string): void {
    const match = /^#[ \t]+(HELP|TYPE)[ \t]+(\S+)(?:[ \t]+(.*))?$/.exec(text);
    if (match === null) return;
    const [, word, name = "", rest = ""] = match;
    if (!METRIC_NAME.test(name)) throw new Error("the name is not valid");
    const family = this.#open(name);
    if (word === "HELP") {
      if (family.help !== undefined) throw new Error("HELP comes twice");
      family.help = unescape(rest, /\\([\\n])/g);
      return;
    }
    const type = TYPES.find((known) => known === rest.trim());
    if (type === undefined) throw new Error("the type is not known");
    if (family.type !== undefined) throw new Error("TYPE comes twice");
    if (family.samples.length > 0) throw new Error("TYPE comes behind samples");
    family.type = type;
  }

  #sample(sample: Sample): void {
    const current = this.#current;
    const isOfCurrent = current !== undefined && belongs(sample.name, current);
    const family = isOfCurrent ? current : this.#open(sample.name);
    if (!belongs(sample.name, family)) throw new Error(`no sample of a ${family.type ?? "family"}`);
    const series = JSON.stringify([sample.name, sample.labels.map(String).toSorted()]);
    if (this.#series.has(series)) throw new Error("the series comes twice");
    this.#series.add(series);
    family.samples.push(sample);
  }

  /** Lines of one family stand together. */
  #open(name: string): OpenFamily {
    if (this.#current?.name === name) return this.#current;
    if (this.#families.has(name)) throw new Error("the family stands in two places");
    this.#current = { name, help: undefined, type: undefined, samples: [] };
    this.#families.set(name, this.#current);
    return this.#current;
  }
}

function belongs(name: string, family: OpenFamily): boolean {
  return SUFFIXES[family.type ?? "untyped"].some((suffix) => name === family.name + suffix);
}

function parseSample(text: string): Sample {
  const brace = text.indexOf("{");
  const nameEnd = brace >= 0 ? brace : text.search(/[ \t]/);
  const name = text.slice(0, nameEnd < 0 ? undefined : nameEnd).trimEnd();
  if (!METRIC_NAME.test(name)) throw new Error("the name is not valid");
  const { labels, end } = brace >= 0 ? parseLabels(text, brace + 1) : { labels: [], end: nameEnd };
  const [value = "", timestamp, ...more] = text
    .slice(end < 0 ? text.length : end)
    .trim()
    .split(/[ \t]+/);
  if (!FLOAT.test(value)) throw new Error("the value is no number");
  if (timestamp !== undefined && !/^-?\d+$/.test(timestamp)) throw new Error("no timestamp");
  if (more.length > 0) throw new Error("there is something behind the timestamp");
  return { name, labels, value, ...(timestamp === undefined ? {} : { timestamp }) };
}

/** `name="value",…}` with `\\`, `\"` and `\n` in values; a comma may stand behind the last. */
function parseLabels(text: string, from: number): { labels: Label[]; end: number } {
  const labels: Label[] = [];
  const pattern = /[ \t]*([^=,"{}\s]+)[ \t]*=[ \t]*"((?:[^"\\]|\\[\\"n])*)"[ \t]*(,|(?=\}))/y;
  pattern.lastIndex = from;
  for (;;) {
    const at = pattern.lastIndex;
    const close = /[ \t]*\}/y;
    close.lastIndex = at;
    if (close.test(text)) return { labels, end: close.lastIndex };
    const [, name = "", value = ""] = pattern.exec(text) ?? [];
    if (!LABEL_NAME.test(name)) throw new Error("the labels are not valid");
    if (labels.some(([known]) => known === name)) throw new Error(`label ${name} comes twice`);
    labels.push([name, unescape(value, /\\([\\"n])/g)]);
  }
}

function unescape(text: string, pattern: RegExp): string {
  return text.replaceAll(pattern, (_, char: string) => (char === "n" ? "\n" : char));
}

function renderFamily({ name, help, type, samples }: Family): string {
  const head = help === undefined ? "" : `# HELP ${name} ${escapeHelp(help)}\n`;
  return `${head}# TYPE ${name} ${type}\n${samples.map(renderSample).join("")}`;
}

function renderSample({ name, labels, value, timestamp }: Sample): string {
  const inner = labels.map(([label, text]) => `${label}="${escapeLabel(text)}"`).join(",");
  const when = timestamp === undefined ? "" : ` ${timestamp}`;
  return `${name}${inner === "" ? "" : `{${inner}}`} ${value}${when}\n`;
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
