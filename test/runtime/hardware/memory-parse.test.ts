import { describe, expect, test } from "bun:test";
import {
  findCgroups,
  metalShare,
  parseAddressSpaceLimit,
  parseCgroupLimit,
  parseCgroupUsed,
  parseMeminfo,
  parseSysctl,
  parseVmStat,
} from "../../../src/runtime/hardware/memory-parse.ts";
import {
  LIMITS,
  MEMINFO,
  MOUNTS_HYBRID,
  MOUNTS_V1_DOCKER,
  MOUNTS_V2,
  STAT_V1,
  STAT_V2,
  VM_STAT,
} from "./recorded.ts";

const KIB = 1024;
const GIB = 1024 ** 3;

describe("parseMeminfo", () => {
  test("counts mapped files as taken, though the kernel could drop them", () => {
    const taken = 3_000_000 - 400_000;

    expect(parseMeminfo(MEMINFO)).toEqual({
      totalBytes: 24_684_084 * KIB,
      freeBytes: (18_150_328 - taken) * KIB,
    });
  });

  test("counts no more as taken than there are pages of files", () => {
    const text = MEMINFO.replace(/^Mapped:.*/m, "Mapped: 20000000 kB");

    expect(parseMeminfo(text)?.freeBytes).toBe((18_150_328 - 9_000_000) * KIB);
  });

  test("counts shared memory once, where it is mapped as well", () => {
    const text = MEMINFO.replace(/^Shmem:.*/m, "Shmem: 3000000 kB");

    expect(parseMeminfo(text)?.freeBytes).toBe(18_150_328 * KIB);
  });

  test("does without MemAvailable, as old kernels have to", () => {
    const text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 200 kB\n";

    expect(parseMeminfo(text)).toEqual({ totalBytes: 1000 * KIB, freeBytes: 310 * KIB });
  });

  test("never gives more free than there is, or less than nothing", () => {
    expect(parseMeminfo("MemTotal: 10 kB\nMemAvailable: 99 kB\n")?.freeBytes).toBe(10 * KIB);
    expect(
      parseMeminfo("MemTotal: 10 kB\nMemAvailable: 1 kB\nMapped: 9 kB\nActive(file): 9 kB\n"),
    ).toEqual({ totalBytes: 10 * KIB, freeBytes: 0 });
  });

  test.each(["", "garbage", "MemTotal: 0 kB", "MemTotal: -5 kB", "MemTotal: 99999999999999999 kB"])(
    "makes nothing of %j",
    (text) => {
      expect(parseMeminfo(text)).toBeUndefined();
    },
  );
});

describe("findCgroups", () => {
  test("finds the own group and all above it, version 2", () => {
    const found = findCgroups("0::/user.slice/user-1000.slice/tug.service\n", MOUNTS_V2);

    expect(found.map(({ directory }) => directory)).toEqual([
      "/sys/fs/cgroup",
      "/sys/fs/cgroup/user.slice",
      "/sys/fs/cgroup/user.slice/user-1000.slice",
      "/sys/fs/cgroup/user.slice/user-1000.slice/tug.service",
    ]);
    expect(found.every(({ version }) => version === 2)).toBe(true);
  });

  test("finds a container's group at the mount, in a namespace of its own", () => {
    expect(findCgroups("0::/\n", MOUNTS_V2)).toEqual([{ version: 2, directory: "/sys/fs/cgroup" }]);
  });

  test("finds a container's group where the mount shows a part of the tree, version 1", () => {
    const membership = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/inner\n0::/\n";

    expect(findCgroups(membership, MOUNTS_V1_DOCKER)).toEqual([
      { version: 1, directory: "/sys/fs/cgroup/memory" },
      { version: 1, directory: "/sys/fs/cgroup/memory/inner" },
    ]);
  });

  test("looks at both trees of a hybrid system", () => {
    expect(findCgroups("4:memory:/a\n0::/b\n", MOUNTS_HYBRID)).toEqual([
      { version: 1, directory: "/sys/fs/cgroup/memory" },
      { version: 1, directory: "/sys/fs/cgroup/memory/a" },
      { version: 2, directory: "/sys/fs/cgroup/unified" },
      { version: 2, directory: "/sys/fs/cgroup/unified/b" },
    ]);
  });

  test.each([
    ["a path out of the namespace", "0::/../../other\n"],
    ["a path deeper than any tree", `0::${"/x".repeat(100)}\n`],
  ])("stays at the mount for %s", (_, membership) => {
    expect(findCgroups(membership, MOUNTS_V2)).toEqual([
      { version: 2, directory: "/sys/fs/cgroup" },
    ]);
  });

  test("does not take a path that only begins like the mount's root for one below it", () => {
    expect(findCgroups("4:memory:/docker/abcdef\n", MOUNTS_V1_DOCKER)).toEqual([
      { version: 1, directory: "/sys/fs/cgroup/memory" },
    ]);
  });

  test("reads blanks and colons in paths", () => {
    const mounts = "31 23 0:28 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n";

    expect(findCgroups("0::/a:b\n", mounts).map(({ directory }) => directory)).toEqual([
      "/mnt/my groups",
      "/mnt/my groups/a:b",
    ]);
  });

  test("finds nothing in nothing and in garbage", () => {
    expect(findCgroups("", MOUNTS_V2)).toEqual([]);
    expect(findCgroups("0::/\n", "")).toEqual([]);
    expect(findCgroups("::::\n0", "- - -\n\n1 2 3 - cgroup2\n")).toEqual([]);
  });
});

describe("control group values", () => {
  test.each([
    ["max\n", undefined],
    ["9223372036854771712\n", undefined],
    ["1073741824\n", GIB],
    ["0\n", 0],
    ["-1", undefined],
    ["1e9", undefined],
    ["", undefined],
  ])("the limit %j is %p", (text, expected) => {
    expect(parseCgroupLimit(text)).toBe(expected);
  });

  test("what is used leaves out files that nobody has mapped, version 2", () => {
    // 500 of 2000 inactive file pages are mapped: an engine's weights.
    expect(parseCgroupUsed("10000\n", STAT_V2)).toBe(10_000 - (2000 - 500));
  });

  test("what is used counts the groups below, version 1", () => {
    expect(parseCgroupUsed("100000\n", STAT_V1)).toBe(100_000 - (40_000 - 1000));
  });

  test("what is used is what is charged, without more to know", () => {
    expect(parseCgroupUsed("777", "")).toBe(777);
    expect(parseCgroupUsed("", "")).toBe(0);
    expect(parseCgroupUsed("5", "inactive_file 99")).toBe(0);
  });
});

describe("limits and other systems", () => {
  test("ulimit -v is read from its line", () => {
    expect(parseAddressSpaceLimit(LIMITS)).toBeUndefined();
    expect(
      parseAddressSpaceLimit(LIMITS.replace(/(address space\s+)unlimited( +)/, "$14294967296$2")),
    ).toBe(4 * GIB);
  });

  test("vm_stat counts free, inactive and speculative pages", () => {
    expect(parseVmStat(VM_STAT)).toBe((19_455 + 425_521 + 946) * 16_384);
  });

  test.each(["", "Pages free: 5.", VM_STAT.replace("Pages inactive", "Pages gone")])(
    "vm_stat without what is needed gives nothing",
    (text) => {
      expect(parseVmStat(text)).toBeUndefined();
    },
  );

  test("sysctl is read by name", () => {
    expect(parseSysctl("hw.memsize: 17179869184\n", "hw.memsize")).toBe(16 * GIB);
    expect(
      parseSysctl("sysctl: unknown oid 'iogpu.wired_limit_mb'\n", "hw.memsize"),
    ).toBeUndefined();
    expect(parseSysctl("hw.memsize: lots\n", "hw.memsize")).toBeUndefined();
  });

  test.each([
    [16, 0, (16 * 2) / 3],
    [36, undefined, 24],
    [64, 0, 48],
    [64, 57_344, 56],
    [16, 999_999, 16],
  ])("of %d GiB with the limit %p, Metal gets %d", (gib, limit, expected) => {
    expect(metalShare(gib * GIB, limit)).toBe(Math.floor(expected * GIB));
  });
});
