/** What vendors' tools print, read. Pure. */

/** `nvidia-smi -L`: one line `GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-…)` a device. */
export function hasNvidiaGpu(output: string): boolean {
  return /^GPU \d+: \S/m.test(output);
}

/** `rocm-smi --showproductname --json`: one key `card0` a device; warnings may stand before the JSON. */
export function hasRocmGpu(output: string): boolean {
  return /"card\d+"\s*:/.test(output);
}

/** `vulkaninfo --summary`: a device that is not a processor in disguise (llvmpipe, SwiftShader). */
export function hasVulkanGpu(output: string): boolean {
  return /deviceType\s*=\s*PHYSICAL_DEVICE_TYPE_(?:DISCRETE|INTEGRATED|VIRTUAL)_GPU/.test(output);
}

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
