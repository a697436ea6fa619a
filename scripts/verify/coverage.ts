/** The coverage gate: which source files fall short, by an lcov report. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

export interface Shortfall {
  /** Relative to the root, with forward slashes. */
  readonly file: string;
  /** Covered lines, 0 to 100; null if no test loads the file. */
  readonly percent: number | null;
}

/** Per cent of lines that every gated file must reach by itself: an average hides the one that nobody tests. */
export const REQUIRED_PERCENT = 90;

const GATED_FOLDERS = ["src/oci", "src/store"];
/** The pure ones of the runtime; what supervises processes is judged by what it does to them. */
const GATED_FILES = [
  "src/runtime/scheduler.ts",
  "src/runtime/eviction.ts",
  "src/runtime/lease.ts",
  "src/runtime/memory.ts",
];

/** File → per cent of lines hit. */
export function parseLcov(lcov: string): Map<string, number> {
  const percents = new Map<string, number>();
  for (const record of lcov.split("end_of_record")) {
    const file = /^SF:(.+)$/m.exec(record)?.[1];
    if (file === undefined) continue;
    const found = Number(/^LF:(\d+)$/m.exec(record)?.[1] ?? 0);
    const hit = Number(/^LH:(\d+)$/m.exec(record)?.[1] ?? 0);
    percents.set(file.replaceAll("\\", "/"), found === 0 ? 100 : (hit / found) * 100);
  }
  return percents;
}

/** What the gate covers: every module with code. Files of types only have no lines to hit. */
export async function gatedFiles(root: string): Promise<string[]> {
  const files: string[] = [];
  for (const folder of GATED_FOLDERS) {
    const names = await readdir(join(root, folder), { recursive: true }).catch(() => []);
    const paths = names.map((name) => `${folder}/${name.replaceAll("\\", "/")}`);
    files.push(...paths.filter((path) => path.endsWith(".ts")));
  }
  const withCode: string[] = [];
  for (const file of [...files.toSorted(), ...GATED_FILES]) {
    if (await hasCode(join(root, file))) withCode.push(file);
  }
  return withCode;
}

export function findShortfalls(
  files: readonly string[],
  percents: ReadonlyMap<string, number>,
): Shortfall[] {
  return files
    .map((file) => ({ file, percent: percents.get(file) ?? null }))
    .filter(({ percent }) => percent === null || percent < REQUIRED_PERCENT);
}

// --- internal ---

async function hasCode(path: string): Promise<boolean> {
  const source = await readFile(path, "utf8").catch(() => undefined);
  // A gated file that is not there counts: it fails the gate by name.
  if (source === undefined) return true;
  return new Bun.Transpiler({ loader: "ts" }).transformSync(source).trim() !== "";
}
