/** What a runner costs that does nothing. Linux only: it reads /proc. */
import { readFile } from "node:fs/promises";
import { cpuByThread, cpuMsSince, cpuTicks } from "../load/processes.ts";
import type { BenchResult } from "./report.ts";
import { startServe } from "./serve.ts";

/** What starting left to be done, the JavaScript engine's clearing up above all, is done by then. */
const SETTLING_MS = 60_000;
const WATCHED_MS = 60_000;
/** Bytes. The executable itself is shared with every other process of it; this is what only the runner has. */
const ANONYMOUS_LIMIT = 40_000_000;

export async function benchIdle(): Promise<BenchResult> {
  if (process.platform !== "linux") throw new Error("the idle benchmark reads /proc: Linux only");
  await using runner = await startServe();
  await Bun.sleep(SETTLING_MS);
  const [before, threads] = [cpuTicks(runner.pid), cpuByThread(runner.pid)];
  await Bun.sleep(WATCHED_MS);
  const ticks = cpuTicks(runner.pid) - before;
  const usedMs = cpuMsSince(threads, runner.pid);
  const anonymous = await statusBytes(runner.pid, "RssAnon");
  const resident = await statusBytes(runner.pid, "VmRSS");
  const seconds = WATCHED_MS / 1000;
  return {
    name: "idle",
    title: "Idling",
    table: [
      ["`tug serve`, nothing loaded", `over ${seconds} s, ${SETTLING_MS / 1000} s after its start`],
      ["processor time", `${ticks} ticks`],
      ["the same, counted by the scheduler", `${usedMs.toFixed(2)} ms`],
      ["memory of its own (RssAnon)", megabytes(anonymous)],
      ["memory, shared included (VmRSS)", megabytes(resident)],
    ],
    bars: [
      { text: `an idle runner uses no processor time in ${seconds} s`, isKept: ticks === 0 },
      {
        text: `an idle runner has less than ${megabytes(ANONYMOUS_LIMIT)} of its own`,
        isKept: anonymous < ANONYMOUS_LIMIT,
      },
    ],
  };
}

// --- internal ---

async function statusBytes(pid: number, key: string): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  const kibibytes = new RegExp(`^${key}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
  if (kibibytes === undefined) throw new Error(`/proc/${pid}/status has no ${key}`);
  return Number(kibibytes) * 1024;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
