/** What the kernel says of processors, read. Pure. */

/**
 * `/proc/cpuinfo`: distinct pairs of `physical id` and `core id`.
 *
 * @returns undefined where the kernel does not tell (ARM, some virtual machines)
 */
export function countPhysicalCores(cpuinfo: string): number | undefined {
  const cores = new Set<string>();
  for (const block of cpuinfo.split(/\n\s*\n/)) {
    const socket = /^physical id\s*:\s*(\d+)/m.exec(block)?.[1];
    const core = /^core id\s*:\s*(\d+)/m.exec(block)?.[1];
    if (socket !== undefined && core !== undefined) cores.add(`${socket}/${core}`);
  }
  return cores.size === 0 ? undefined : cores.size;
}

/** cgroup v2 `cpu.max`: `<quota> <period>` in microseconds, or `max <period>`. */
export function parseCpuQuota(text: string): number | undefined {
  const found = /^(\d+) (\d+)/.exec(text.trim());
  if (found === null) return undefined;
  const processors = Math.floor(Number(found[1]) / Number(found[2]));
  return Number.isFinite(processors) ? Math.max(1, processors) : undefined;
}
