/** What the engines of a runner hold, read from /proc. Linux only. */
import { readFileSync } from "node:fs";

/** A process and all that descend from it, through whatever sandbox. */
export function descendants(pid: number): readonly number[] {
  const found: number[] = [];
  const waiting = [pid];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const children = readOr(`/proc/${next}/task/${next}/children`).trim();
    const pids = children === "" ? [] : children.split(" ").map(Number);
    found.push(...pids);
    waiting.push(...pids);
  }
  return found;
}

/** Children are listed for the thread that made them: of a process with many, all threads are asked. */
export function enginePids(runnerPid: number): readonly number[] {
  return childrenOfAllThreads(runnerPid)
    .flatMap((pid) => [pid, ...descendants(pid)])
    .filter((pid) => readOr(`/proc/${pid}/cmdline`).includes("llama-server"))
    .filter((pid) => !/^\(?(?:sh|dash|bwrap)\b/.test(readOr(`/proc/${pid}/comm`)));
}

/** VmRSS, mapped files included. Bytes; 0 for one that is gone. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readOr(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

/** Time that all threads have run. Milliseconds. */
export function cpuMs(pid: number): number {
  const text = readOr(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

export function isRunning(pid: number): boolean {
  const text = readOr(`/proc/${pid}/stat`);
  return text !== "" && text.slice(text.lastIndexOf(")") + 2, text.lastIndexOf(")") + 3) !== "Z";
}

// --- internal ---

function childrenOfAllThreads(pid: number): readonly number[] {
  const glob = new Bun.Glob("*/children");
  const files = [...glob.scanSync({ cwd: `/proc/${pid}/task`, onlyFiles: false })];
  return files.flatMap((file) =>
    readOr(`/proc/${pid}/task/${file}`)
      .split(" ")
      .filter((word) => word.trim() !== "")
      .map(Number),
  );
}

function readOr(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
