/** How much main memory there is for us, and how much of it could be taken now. */
import type { HardwareIo } from "./io.ts";
import {
  findCgroups,
  type MemoryAmounts,
  metalShare,
  parseAddressSpaceLimit,
  parseCgroupLimit,
  parseCgroupUsed,
  parseMeminfo,
  parseSysctl,
  parseVmStat,
} from "./memory-parse.ts";

/** What of each control group decides, by version. `memory.high` is no hard limit, but beyond it everything crawls. */
const CGROUP_FILES = {
  1: { limits: ["memory.limit_in_bytes"], usage: "memory.usage_in_bytes" },
  2: { limits: ["memory.max", "memory.high"], usage: "memory.current" },
} as const;

/** The tightest limit counts: of the machine, of the control groups this process is in, of `ulimit -v`. */
export function readRam(platform: NodeJS.Platform, io: HardwareIo): Promise<MemoryAmounts> {
  if (platform === "linux") return readLinux(io);
  return platform === "darwin" ? readDarwin(io) : Promise.resolve(io.memory());
}

/** Of an Apple chip's unified memory, what its GPU may use. */
export async function readMetalShare(totalBytes: number, io: HardwareIo): Promise<number> {
  const name = "iogpu.wired_limit_mb";
  return metalShare(totalBytes, parseSysctl(await io.run(["sysctl", name]), name));
}

// --- internal ---

async function readLinux(io: HardwareIo): Promise<MemoryAmounts> {
  const [meminfo, limits, membership, mounts] = await Promise.all([
    io.read("/proc/meminfo"),
    io.read("/proc/self/limits"),
    io.read("/proc/self/cgroup"),
    io.read("/proc/self/mountinfo"),
  ]);
  const machine = parseMeminfo(meminfo) ?? io.memory();
  const groups = await Promise.all(
    findCgroups(membership, mounts).map((place) => readCgroup(place, io)),
  );
  let { totalBytes, freeBytes } = machine;
  for (const group of groups) {
    totalBytes = Math.min(totalBytes, group.limitBytes);
    freeBytes = Math.min(freeBytes, Math.max(0, group.limitBytes - group.usedBytes));
  }
  totalBytes = Math.min(totalBytes, parseAddressSpaceLimit(limits) ?? Infinity);
  return { totalBytes, freeBytes: Math.min(freeBytes, totalBytes) };
}

/** `limitBytes` is infinite where there is none. */
async function readCgroup(
  { version, directory }: { version: 1 | 2; directory: string },
  io: HardwareIo,
): Promise<{ limitBytes: number; usedBytes: number }> {
  const files = CGROUP_FILES[version];
  const [usage, stat, ...limits] = await Promise.all(
    [files.usage, "memory.stat", ...files.limits].map((name) => io.read(`${directory}/${name}`)),
  );
  return {
    limitBytes: Math.min(...limits.map((text) => parseCgroupLimit(text) ?? Infinity)),
    usedBytes: parseCgroupUsed(usage ?? "", stat ?? ""),
  };
}

async function readDarwin(io: HardwareIo): Promise<MemoryAmounts> {
  const [size, pages] = await Promise.all([io.run(["sysctl", "hw.memsize"]), io.run(["vm_stat"])]);
  const known = io.memory();
  const totalBytes = parseSysctl(size, "hw.memsize") ?? known.totalBytes;
  return { totalBytes, freeBytes: Math.min(totalBytes, parseVmStat(pages) ?? known.freeBytes) };
}
