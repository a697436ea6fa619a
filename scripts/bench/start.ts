/** How long the executable takes to start, against a static C program that prints one word. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BINARY } from "../compile/freshness.ts";
import { median } from "./median.ts";
import type { BenchResult } from "./report.ts";

const WARM_UPS = 5;
const RUNS = 60;
/** What any program may cost on this machine, and what a runtime may add. */
const BASE_FACTOR = 3;
const RUNTIME_MS = 10;
/** `tug list` opens the store on top. */
const LIST_FACTOR = 2;

interface Subject {
  readonly label: string;
  readonly command: readonly string[];
}

export async function benchStart(): Promise<BenchResult> {
  const directory = await mkdtemp(join(tmpdir(), "tug-bench-"));
  try {
    const base = await buildHello(directory);
    const subjects = [base.subject, tug("--version"), tug("list"), tug("--help")];
    const medians = measure(subjects, directory);
    return toResult(subjects, medians, base.note);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

// --- internal ---

function tug(argument: string): Subject {
  return { label: `\`tug ${argument}\``, command: [BINARY, argument] };
}

/** Where there is no C compiler, the smallest program at hand has to do. */
async function buildHello(directory: string): Promise<{ subject: Subject; note: string }> {
  const source = join(directory, "hello.c");
  const program = join(directory, "hello");
  await writeFile(source, '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n');
  const compiler = Bun.which("cc");
  if (compiler !== null) {
    const { exitCode } = Bun.spawnSync([compiler, "-O2", "-static", "-o", program, source]);
    if (exitCode === 0)
      return { subject: { label: "static C hello", command: [program] }, note: "" };
  }
  const fallback = Bun.which("true");
  if (fallback === null) throw new Error("neither a C compiler nor `true` to compare with");
  const note =
    "There is no C compiler that links statically here: compared with `true`, which is linked dynamically and therefore slower to start.";
  return { subject: { label: "`true`", command: [fallback] }, note };
}

/** Median milliseconds of each, taken in turns so that a busy moment hits all alike. */
function measure(subjects: readonly Subject[], directory: string): number[] {
  const samples = subjects.map((): number[] => []);
  for (let round = 0; round < WARM_UPS + RUNS; round += 1) {
    for (const [index, { command }] of subjects.entries()) {
      const startedAt = performance.now();
      const { exitCode } = Bun.spawnSync([...command], {
        env: { PATH: process.env["PATH"], TUG_HOME: join(directory, "home") },
        stdio: ["ignore", "ignore", "ignore"],
      });
      const elapsedMs = performance.now() - startedAt;
      if (exitCode !== 0) throw new Error(`\`${command.join(" ")}\` left with ${exitCode}`);
      if (round >= WARM_UPS) samples[index]?.push(elapsedMs);
    }
  }
  return samples.map(median);
}

function toResult(
  subjects: readonly Subject[],
  medians: readonly number[],
  note: string,
): BenchResult {
  const [base = 0, version = 0, list = 0] = medians;
  const versionBar = BASE_FACTOR * base + RUNTIME_MS;
  const listBar = LIST_FACTOR * versionBar;
  const rows = subjects.map(({ label }, index) => {
    const ms = medians[index] ?? 0;
    return [label, `${ms.toFixed(1)} ms`, (ms / base).toFixed(1)];
  });
  return {
    name: "start",
    title: "Starting",
    table: [["program", `median of ${RUNS}`, "ratio"], ...rows],
    bars: [
      {
        text: `\`tug --version\` takes at most ${BASE_FACTOR} × the first line + ${RUNTIME_MS} ms (${versionBar.toFixed(1)} ms)`,
        isKept: version <= versionBar,
      },
      {
        text: `\`tug list\` takes at most twice that (${listBar.toFixed(1)} ms)`,
        isKept: list <= listBar,
      },
    ],
    notes: note === "" ? [] : [note],
  };
}
