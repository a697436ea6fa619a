/** What the engines of a runner hold, read from /proc. Linux only. */
import { readFileSync } from "node:fs";

/** All that descend from a process, through whatever sandbox. */
export function descendants(pid: number): readonly number[] {
  const found = [...childrenOfAllThreads(pid)];
  // The list grows while it is walked.
  for (const next of found) found.push(...childrenOfAllThreads(next));
  return found;
}

export function enginePids(runnerPid: number): readonly number[] {
  return descendants(runnerPid)
    .filter((pid) => readOr(`/proc/${pid}/cmdline`).includes("llama-server"))
    .filter((pid) => !/^\(?(?:sh|dash|bwrap)\b/.test(readOr(`/proc/${pid}/comm`)));
}

/** VmRSS, mapped files included. Bytes; 0 for one that is gone. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readOr(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

export function openFiles(pid: number): number {
  return listOr(`/proc/${pid}/fd`, "*").length;
}

/** Pages that only this process has: neither its program's nor other mapped files. Bytes; 0 for one that is gone. */
export function anonymousBytes(pid: number): number {
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(readOr(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

/** Ticks of 10 ms that all threads have run, those that have ended too; fields 14 and 15 of proc(5) stat. */
export function cpuTicks(pid: number): number {
  const text = readOr(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/**
 * Milliseconds that each thread alive has run, to the nanosecond. Ticks add up since the start, so that one may fall due in
 * a window in which next to nothing ran.
 */
export function cpuByThread(pid: number): ReadonlyMap<string, number> {
  const threads = listOr(`/proc/${pid}/task`, "*");
  const times = threads.map((thread): [string, number] => {
    const [ran = ""] = readOr(`/proc/${pid}/task/${thread}/schedstat`).split(" ");
    return [thread, Number(ran) / 1e6];
  });
  return new Map(times);
}

/** Milliseconds that the threads alive now have run since. */
export function cpuMsSince(before: ReadonlyMap<string, number>, pid: number): number {
  let total = 0;
  for (const [thread, ms] of cpuByThread(pid)) total += ms - (before.get(thread) ?? 0);
  return total;
}

export function isRunning(pid: number): boolean {
  const text = readOr(`/proc/${pid}/stat`);
  return text !== "" && text.slice(text.lastIndexOf(")") + 2, text.lastIndexOf(")") + 3) !== "Z";
}

// --- internal ---

/** Children are listed for the thread that made them: of a process with many, all threads are asked. */
function childrenOfAllThreads(pid: number): readonly number[] {
  return listOr(`/proc/${pid}/task`, "*/children").flatMap((file) =>
    readOr(`/proc/${pid}/task/${file}`)
      .split(" ")
      .filter((word) => word.trim() !== "")
      .map(Number),
  );
}

/** Empty for a process that has just gone. */
function listOr(directory: string, pattern: string): readonly string[] {
  try {
    return [...new Bun.Glob(pattern).scanSync({ cwd: directory, onlyFiles: false })];
  } catch {
    return [];
  }
}

function readOr(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
