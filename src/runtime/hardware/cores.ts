/** How many processors are worth a thread each. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";

import { countPhysicalCores, parseCpuQuota } from "./parse.ts";

/**
 * Physical cores that this process may use: hyper-threads do not speed up matrix products. At least 1.
 *
 * Affinity and, on Linux, the container's processor quota are respected.
 */
export async function physicalCores(): Promise<number> {
  const available = availableParallelism();
  const [physical, quota] = await Promise.all([
    readOr("/proc/cpuinfo").then(countPhysicalCores),
    readOr("/sys/fs/cgroup/cpu.max").then(parseCpuQuota),
  ]);
  return Math.max(1, Math.min(available, physical ?? available, quota ?? available));
}

// --- internal ---

/** Other platforms have none of these files. */
async function readOr(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return "";
  }
}
