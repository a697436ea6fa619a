/** What kernels say about memory, read. Pure. */

const KIB = 1024;
const MIB = 1024 * 1024;

/** A path in the control group tree has a handful of levels; what is longer is not one. */
const MAX_CGROUP_DEPTH = 64;

export interface MemoryAmounts {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/**
 * `/proc/meminfo`: what could be taken without swapping.
 *
 * `MemAvailable` counts the pages of mapped files as free, because the kernel could drop them. For an engine they are the
 * weights it reads for each token, and for others their code: they count as taken here.
 *
 * @returns undefined if it has no total
 * @see proc_meminfo(5)
 */
export function parseMeminfo(text: string): MemoryAmounts | undefined {
  const total = kibibytes(text, "MemTotal");
  if (total === undefined || total === 0) return undefined;
  // Kernels before 3.14 do not have it.
  const available =
    kibibytes(text, "MemAvailable") ??
    sum([kibibytes(text, "MemFree"), kibibytes(text, "Buffers"), kibibytes(text, "Cached")]);
  const files = sum([kibibytes(text, "Active(file)"), kibibytes(text, "Inactive(file)")]);
  // Shared memory is mapped as well, but never was available.
  const mapped = sum([kibibytes(text, "Mapped")]) - sum([kibibytes(text, "Shmem")]);
  const taken = Math.min(files, Math.max(0, mapped));
  return { totalBytes: total, freeBytes: clamp(available - taken, total) };
}

/** One control group that may limit this process's memory. */
export interface CgroupPlace {
  readonly version: 1 | 2;
  /** Absolute. */
  readonly directory: string;
}

/**
 * Where the memory limits of a process lie: its own control group and all above it that can be seen.
 *
 * In a container the mount may show only a part of the tree (its root field), while `/proc/self/cgroup` names the whole
 * path, or, in a namespace of its own, only a path below.
 *
 * @param membership `/proc/self/cgroup`
 * @param mounts `/proc/self/mountinfo`
 * @see cgroups(7), proc_pid_mountinfo(5)
 */
export function findCgroups(membership: string, mounts: string): readonly CgroupPlace[] {
  const places: CgroupPlace[] = [];
  for (const line of mounts.split("\n")) {
    const mount = parseCgroupMount(line);
    if (mount === undefined) continue;
    const path = findMembership(membership, mount.version);
    if (path === undefined) continue;
    for (const directory of pathsUpwards(mount, path)) {
      places.push({ version: mount.version, directory });
    }
  }
  return places;
}

/** `memory.max`, `memory.high`, `memory.limit_in_bytes`: bytes; undefined if there is no limit. */
export function parseCgroupLimit(text: string): number | undefined {
  const limit = /^\d{1,20}$/.test(text.trim()) ? Number(text) : Number.NaN;
  // Version 1 writes the largest multiple of a page for none.
  return limit < 2 ** 60 ? limit : undefined;
}

/**
 * Bytes of a control group that cannot be had back by dropping files that nobody has mapped.
 *
 * @param usage `memory.current` or `memory.usage_in_bytes`
 * @param stat `memory.stat`; version 1 writes sums over the groups below with `total_`
 */
export function parseCgroupUsed(usage: string, stat: string): number {
  const used = parseCgroupLimit(usage) ?? 0;
  const read = (names: readonly string[]): number => {
    for (const name of names) {
      const found = new RegExp(`^${name} (\\d{1,20})$`, "m").exec(stat);
      if (found !== null) return Number(found[1]);
    }
    return 0;
  };
  const inactive = read(["total_inactive_file", "inactive_file"]);
  const mapped = read(["total_mapped_file", "file_mapped"]) - read(["total_shmem", "shmem"]);
  return clamp(used - Math.max(0, inactive - Math.max(0, mapped)), used);
}

/** `/proc/self/limits`: the soft limit of the address space (`ulimit -v`), which engines inherit. */
export function parseAddressSpaceLimit(text: string): number | undefined {
  const found = /^Max address space\s+(\d{1,20})\s/m.exec(text);
  return found === null ? undefined : Number(found[1]);
}

/**
 * macOS's `vm_stat`: free, inactive and speculative pages. Purgeable ones are among them.
 *
 * @returns bytes; undefined without a page size or counters
 */
export function parseVmStat(text: string): number | undefined {
  const pageBytes = Number(/page size of (\d{4,6}) bytes/.exec(text)?.[1]);
  const pages = ["free", "inactive", "speculative"].map((name) =>
    Number(new RegExp(`^Pages ${name}:\\s+(\\d{1,15})\\.`, "m").exec(text)?.[1]),
  );
  const bytes = sum(pages) * pageBytes;
  return Number.isFinite(bytes) ? bytes : undefined;
}

/** `sysctl NAME`: `hw.memsize: 17179869184`. */
export function parseSysctl(text: string, name: string): number | undefined {
  for (const line of text.split("\n")) {
    const [key, value] = line.split(/[:=]\s*/);
    if (key?.trim() === name && value !== undefined && /^\d{1,20}$/.test(value.trim())) {
      return Number(value);
    }
  }
  return undefined;
}

/**
 * What of unified memory Metal lets a GPU wire (`recommendedMaxWorkingSetSize`): the user's own `iogpu.wired_limit_mb`,
 * or two thirds up to 36 GiB and three quarters above.
 *
 * The shares are those of the macOS versions that give least; newer ones were seen to give 74 % of 16 GiB and 84 % of
 * 128 GiB.
 *
 * @param wiredLimitMib 0 and undefined: not set
 * @see https://developer.apple.com/documentation/metal/mtldevice/recommendedmaxworkingsetsize
 * @see https://github.com/AlexsJones/llmfit/pull/754, https://github.com/antirez/ds4/pull/893
 */
export function metalShare(totalBytes: number, wiredLimitMib: number | undefined): number {
  if (wiredLimitMib) return Math.min(totalBytes, wiredLimitMib * MIB);
  const share = totalBytes <= 36 * 1024 * MIB ? 2 / 3 : 3 / 4;
  return Math.floor(totalBytes * share);
}

// --- internal ---

function kibibytes(text: string, name: string): number | undefined {
  const escaped = name.replace(/[()]/g, "\\$&");
  const found = new RegExp(`^${escaped}:\\s+(\\d{1,15}) kB`, "m").exec(text);
  return found === null ? undefined : Number(found[1]) * KIB;
}

function sum(values: readonly (number | undefined)[]): number {
  return values.reduce<number>((total, value) => total + (value ?? 0), 0);
}

function clamp(value: number, max: number): number {
  return Math.min(max, Math.max(0, value));
}

interface CgroupMount {
  readonly version: 1 | 2;
  /** Of the tree, what the mount shows. */
  readonly root: string;
  readonly mountPoint: string;
}

/** `36 35 0:30 /root /mount/point rw - cgroup2 name superoptions`; blanks in paths are written in octal. */
function parseCgroupMount(line: string): CgroupMount | undefined {
  const [before, after] = line.split(" - ");
  const [, , , root, mountPoint] = (before ?? "").split(" ");
  const [type, , superOptions] = (after ?? "").split(" ");
  if (root === undefined || mountPoint === undefined) return undefined;
  const isMemory = type === "cgroup" && (superOptions ?? "").split(",").includes("memory");
  if (!isMemory && type !== "cgroup2") return undefined;
  return {
    version: isMemory ? 1 : 2,
    root: decodeOctal(root),
    mountPoint: decodeOctal(mountPoint),
  };
}

/** `0::/path` for version 2, `4:memory:/path` for version 1. */
function findMembership(membership: string, version: 1 | 2): string | undefined {
  for (const line of membership.split("\n")) {
    const [id, controllers, ...rest] = line.split(":");
    const isIt =
      version === 2
        ? id === "0" && controllers === ""
        : (controllers ?? "").split(",").includes("memory");
    if (isIt) return rest.join(":");
  }
  return undefined;
}

function pathsUpwards({ root, mountPoint }: CgroupMount, path: string): readonly string[] {
  const top = mountPoint.replace(/\/+$/, "");
  const shown = root === "/" ? "" : root;
  const isBelow = path === shown || path.startsWith(`${shown}/`);
  const names = isBelow ? path.slice(shown.length).split("/").filter(Boolean) : [];
  // Beyond the root of a namespace nothing can be seen.
  if (names.includes("..") || names.length > MAX_CGROUP_DEPTH) return [top];
  return [top, ...names.map((_, index) => `${top}/${names.slice(0, index + 1).join("/")}`)];
}

function decodeOctal(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
