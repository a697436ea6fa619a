/** What a benchmark found, on the terminal and between its markers in docs/benchmarks.md. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { cpus, release, type } from "node:os";
import { dirname, join } from "node:path";
import { ROOT } from "../compile/freshness.ts";

export interface BenchResult {
  readonly name: string;
  /** One line: what was measured. */
  readonly title: string;
  /** The first row is the header. */
  readonly table: readonly (readonly string[])[];
  readonly bars: readonly Bar[];
  readonly notes?: readonly string[];
}

/** A promise and whether it was kept. */
export interface Bar {
  readonly text: string;
  readonly isKept: boolean;
}

export const BENCHMARKS_FILE = join(ROOT, "docs", "benchmarks.md");

const HEADER = `# Benchmarks

Each table is written by the command above it. Absolute numbers belong to the machine named; the ratios travel.
`;

/** Markdown, without a date: a table that did not change leaves the file as it was. */
export function renderResult(result: BenchResult, machine: string): string {
  const [head = [], ...rows] = result.table;
  const bars = result.bars.map(
    ({ text, isKept }) => `- ${isKept ? "kept" : "**missed**"}: ${text}`,
  );
  return [
    `## ${result.title}`,
    `\`bun run bench ${result.name}\` on ${machine}`,
    [toRow(head), toRow(head.map(() => "---")), ...rows.map(toRow)].join("\n"),
    bars.join("\n"),
    (result.notes ?? []).join("\n"),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** Replaces the section of `name`, or adds it at the end. */
export function replaceSection(
  document: string,
  { name, content }: { name: string; content: string },
): string {
  const begin = `<!-- bench:${name} -->`;
  const end = `<!-- /bench:${name} -->`;
  const section = `${begin}\n\n${content}\n\n${end}`;
  const from = document.indexOf(begin);
  const to = document.indexOf(end);
  if (from === -1 || to < from) return `${document.trimEnd()}\n\n${section}\n`;
  return document.slice(0, from) + section + document.slice(to + end.length);
}

/** Prints the result and writes it into the document. */
export async function publish(result: BenchResult): Promise<void> {
  const content = renderResult(result, await describeMachine());
  console.log(`${content}\n`);
  const document = await readFile(BENCHMARKS_FILE, "utf8").catch(() => HEADER);
  await mkdir(dirname(BENCHMARKS_FILE), { recursive: true });
  await writeFile(BENCHMARKS_FILE, replaceSection(document, { name: result.name, content }));
}

// --- internal ---

function toRow(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

async function describeMachine(): Promise<string> {
  const processors = cpus();
  const model = processors[0]?.model.trim() || "an unknown processor";
  const distribution = await readFile("/etc/os-release", "utf8").catch(() => "");
  const system = /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(distribution)?.[1] ?? `${type()} ${release()}`;
  return `${model}, ${processors.length} cores, ${system}`;
}
