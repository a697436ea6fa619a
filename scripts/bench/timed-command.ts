/** A command with its time and its largest memory. Linux only: it reads /proc. */
import { median } from "./median.ts";
import { readFileSync } from "node:fs";

export interface Timed {
  readonly seconds: number;
  /** VmHWM of the command's own process as last seen. Bytes. */
  readonly peakBytes: number;
  readonly stdout: string;
}

/** The high-water mark never falls; between the last look and the end it can only have grown by this much time. */
const LOOK_EVERY_MS = 10;

/** @throws Error if it fails */
export async function timedCommand(
  words: readonly string[],
  options: { readonly env?: Readonly<Record<string, string | undefined>> } = {},
): Promise<Timed> {
  const startedAt = performance.now();
  const child = Bun.spawn([...words], {
    env: options.env ?? process.env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let peakBytes = 0;
  const timer = setInterval(() => {
    peakBytes = Math.max(peakBytes, highWater(child.pid));
  }, LOOK_EVERY_MS);
  try {
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    const exitCode = await child.exited;
    if (exitCode !== 0)
      throw new Error(`\`${words.join(" ")}\` left with ${exitCode}: ${stderr || stdout}`);
    return { seconds: (performance.now() - startedAt) / 1000, peakBytes, stdout };
  } finally {
    clearInterval(timer);
  }
}

/** A row of a table: what was run, its median time, its largest memory, and a ratio. */
export function timingRow(name: string, timed: readonly Timed[], ratio: string): string[] {
  const seconds = median(timed.map((it) => it.seconds));
  const memory = Math.max(...timed.map((it) => it.peakBytes));
  return [name, `${seconds.toFixed(2)} s`, `${(memory / 1e6).toFixed(0)} MB`, ratio];
}

/** For such a row. */
export function times(ratio: number): string {
  return `× ${ratio.toFixed(2)}`;
}

// --- internal ---

/** 0 once it is gone. */
function highWater(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/status`, "utf8");
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
