/** How much memory an engine holds: its process and all that descend from it, for a sandbox stands between them. */
import { readdirSync, readFileSync } from "node:fs";
import type { Demand } from "./demand.ts";
import { parseComputeApps } from "./hardware/gpu-parse.ts";
import type { Device } from "./hardware/devices.ts";
import { type Env, probe } from "./hardware/probe.ts";

export interface ProcessMemory {
  /** Pages in memory, those of mapped files included: an engine reads its weights for each token. */
  readonly residentBytes: number;
  /** The most it ever was; where no system counts it, what it is now. */
  readonly peakBytes: number;
}

/** How to look at processes; tests answer from recorded texts. */
export interface ProcessReader {
  /** A file's text. @throws if there is none */
  read(path: string): string;
  list(path: string): readonly string[];
}

const KIB = 1024;
/** An engine is one process, a sandbox two more, a watcher one. What has more is cut, not followed for ever. */
const MAX_PROCESSES = 256;
/** One call of `ps`, some milliseconds; a machine that swaps takes longer. */
const PS_TIMEOUT_MS = 1000;

const SYSTEM: ProcessReader = {
  read: (path) => readFileSync(path, "utf8"),
  list: (path) => readdirSync(path),
};

/**
 * Under Linux 10 to 20 µs a process; on macOS a call of `ps`.
 *
 * A peak is the sum of each process's own, thus never too small.
 *
 * @returns undefined if the process is gone (or a zombie), or the system does not tell
 * @see proc_pid_status(5), proc_tid_children(5)
 */
export function measureProcess(
  pid: number,
  { platform = process.platform, reader = SYSTEM }: MeasureOptions = {},
): ProcessMemory | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  if (platform === "linux") return measureLinux(pid, reader);
  return platform === "darwin" ? measureTable(pid, readPs()) : undefined;
}

export interface MeasureOptions {
  readonly platform?: NodeJS.Platform;
  readonly reader?: ProcessReader;
}

/** A process and all that descend from it, itself first; empty if it is gone. Linux only. */
export function listDescendants(pid: number, reader: ProcessReader = SYSTEM): readonly number[] {
  const found = [pid];
  // The list grows while it is walked.
  for (const next of found) {
    for (const child of childrenOf(next, reader)) {
      if (found.length >= MAX_PROCESSES) return found;
      if (!found.includes(child)) found.push(child);
    }
  }
  return found;
}

/** `ps -axo pid=,ppid=,rss=` in KiB: the process and its descendants. Pure. */
export function measureTable(pid: number, table: string): ProcessMemory | undefined {
  const rows = table.split("\n").flatMap((line) => {
    const found = /^\s*(\d{1,10})\s+(\d{1,10})\s+(\d{1,15})\s*$/.exec(line);
    return found === null ? [] : [found.slice(1).map(Number) as [number, number, number]];
  });
  const family = new Set([pid]);
  let residentBytes = 0;
  let isThere = false;
  // Parents may stand behind their children when numbers have come round.
  for (let size = 0; size !== family.size;) {
    size = family.size;
    for (const [id, parent] of rows) if (family.has(parent) && id > 1) family.add(id);
  }
  for (const [id, , kib] of rows) {
    if (!family.has(id)) continue;
    isThere ||= id === pid;
    residentBytes += kib * KIB;
  }
  return isThere && residentBytes > 0 ? { residentBytes, peakBytes: residentBytes } : undefined;
}

export interface MeasureGpuOptions {
  readonly env: Env;
  /** As `readDevices` gave them: they say which GPU is which. */
  readonly devices: readonly Device[];
  readonly signal?: AbortSignal | undefined;
  /** For tests: what a tool prints. */
  readonly run?: (argv: readonly string[]) => Promise<string>;
}

/**
 * What a process and its descendants hold on NVIDIA's GPUs now. Asks `nvidia-smi`: 5 s at most.
 *
 * @returns undefined if nobody tells: no such GPU, another vendor's, or a container that has process numbers of its own
 * @throws the signal's reason
 */
export async function measureGpu(
  pid: number,
  { env, devices, signal, run }: MeasureGpuOptions,
): Promise<Demand | undefined> {
  const ids = new Map(devices.flatMap(({ id, uuid }) => (uuid === undefined ? [] : [[uuid, id]])));
  if (ids.size === 0) return undefined;
  const query = "--query-compute-apps=pid,gpu_uuid,used_memory";
  const argv = ["nvidia-smi", query, "--format=csv,noheader,nounits"];
  const output = await (run === undefined ? probe(argv, { env, signal }) : run(argv));
  const family = new Set(listDescendants(pid));
  const held: Record<string, number> = {};
  for (const app of parseComputeApps(output)) {
    const id = ids.get(app.uuid);
    if (id !== undefined && family.has(app.pid)) held[id] = (held[id] ?? 0) + app.usedBytes;
  }
  return Object.keys(held).length === 0 ? undefined : held;
}

// --- internal ---

function measureLinux(pid: number, reader: ProcessReader): ProcessMemory | undefined {
  const own = readStatus(pid, reader);
  if (own === undefined) return undefined;
  let { residentBytes, peakBytes } = own;
  for (const child of listDescendants(pid, reader).slice(1)) {
    const status = readStatus(child, reader);
    residentBytes += status?.residentBytes ?? 0;
    peakBytes += status?.peakBytes ?? 0;
  }
  return { residentBytes, peakBytes };
}

/** A zombie and a kernel thread have no such lines. */
function readStatus(pid: number, reader: ProcessReader): ProcessMemory | undefined {
  try {
    const status = reader.read(`/proc/${pid}/status`);
    const resident = /^VmRSS:\s+(\d{1,15}) kB/m.exec(status)?.[1];
    if (resident === undefined) return undefined;
    const residentBytes = Number(resident) * KIB;
    const peak = /^VmHWM:\s+(\d{1,15}) kB/m.exec(status)?.[1] ?? "0";
    return { residentBytes, peakBytes: Math.max(residentBytes, Number(peak) * KIB) };
  } catch {
    return undefined;
  }
}

/** Each thread has its own children. */
function childrenOf(pid: number, reader: ProcessReader): readonly number[] {
  try {
    const threads = reader.list(`/proc/${pid}/task`);
    return threads.flatMap((thread) =>
      readChildren(`/proc/${pid}/task/${thread}/children`, reader),
    );
  } catch {
    return [];
  }
}

function readChildren(path: string, reader: ProcessReader): readonly number[] {
  try {
    return (reader.read(path).match(/\d+/g) ?? []).map(Number);
  } catch {
    // The thread has gone, or the kernel was built without CONFIG_PROC_CHILDREN.
    return [];
  }
}

function readPs(): string {
  const ps = Bun.spawnSync(["/bin/ps", "-axo", "pid=,ppid=,rss="], {
    env: { LC_ALL: "C" },
    stderr: "ignore",
    timeout: PS_TIMEOUT_MS,
  });
  return ps.success ? ps.stdout.toString() : "";
}
