import { describe, expect, test } from "bun:test";
import type { Device } from "../../src/runtime/hardware/devices.ts";
import {
  listDescendants,
  measureGpu,
  measureProcess,
  measureTable,
  type ProcessReader,
} from "../../src/runtime/measure.ts";
import { eventually } from "../helpers/eventually.ts";
import { describeIf, isLinux, isWindows, testIf } from "../helpers/test-if.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** `/proc` made of texts. */
function procOf(files: Readonly<Record<string, string>>): ProcessReader {
  return {
    read(path) {
      const text = files[path];
      if (text === undefined) throw new Error("ENOENT");
      return text;
    },
    list(path) {
      const below = Object.keys(files).filter((name) => name.startsWith(`${path}/`));
      if (below.length === 0) throw new Error("ENOENT");
      return [...new Set(below.map((name) => name.slice(path.length + 1).split("/")[0] ?? ""))];
    },
  };
}

function canSandbox(): boolean {
  if (!isLinux || Bun.which("bwrap") === null) return false;
  return Bun.spawnSync(["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "true"]).success;
}

function status(residentKib: number, peakKib: number): string {
  return `Name:\tengine\nState:\tS\nVmHWM:\t${peakKib} kB\nVmRSS:\t${residentKib} kB\nThreads:\t3\n`;
}

describe("measureProcess, from /proc", () => {
  const platform = "linux";

  test("adds up the process and all that descends from it, of any of its threads", () => {
    const reader = procOf({
      "/proc/7/status": status(10, 20),
      "/proc/7/task/7/children": "8 ",
      "/proc/7/task/70/children": "9\n",
      "/proc/8/status": status(1000, 5000),
      "/proc/8/task/8/children": "",
      "/proc/9/status": status(1, 2),
      "/proc/9/task/9/children": "10 ",
      "/proc/10/status": status(100, 100),
    });

    expect(measureProcess(7, { platform, reader })).toEqual({
      residentBytes: 1111 * KIB,
      peakBytes: 5122 * KIB,
    });
  });

  test("leaves out a descendant that went in between", () => {
    const reader = procOf({ "/proc/7/status": status(10, 20), "/proc/7/task/7/children": "8 " });

    expect(measureProcess(7, { platform, reader })?.residentBytes).toBe(10 * KIB);
  });

  test("knows nothing of a process that is gone, or of a zombie, though it has children", () => {
    const zombie = procOf({ "/proc/7/status": "Name:\tx\nState:\tZ (zombie)\n" });

    expect(measureProcess(7, { platform, reader: procOf({}) })).toBeUndefined();
    expect(measureProcess(7, { platform, reader: zombie })).toBeUndefined();
  });

  test("a peak is never below what is resident", () => {
    const reader = procOf({ "/proc/7/status": "VmRSS:\t10 kB\n" });

    expect(measureProcess(7, { platform, reader })).toEqual({
      residentBytes: 10 * KIB,
      peakBytes: 10 * KIB,
    });
  });

  test("is not led in circles, nor by a fork bomb", () => {
    const circle = procOf({
      "/proc/7/status": status(1, 1),
      "/proc/7/task/7/children": "8",
      "/proc/8/status": status(1, 1),
      "/proc/8/task/8/children": "7 8",
    });
    const bomb = procOf({
      "/proc/7/status": status(1, 1),
      "/proc/7/task/7/children": Array.from({ length: 5000 }, (_, index) => index + 8).join(" "),
    });

    expect(measureProcess(7, { platform, reader: circle })?.residentBytes).toBe(2 * KIB);
    expect(listDescendants(7, bomb)).toHaveLength(256);
  });

  test.each([0, -1, 1.5, Number.NaN])("knows nothing of the process %p", (pid) => {
    expect(measureProcess(pid, { platform })).toBeUndefined();
  });

  test("knows nothing under Windows", () => {
    expect(measureProcess(process.pid, { platform: "win32" })).toBeUndefined();
  });
});

describe("measureTable", () => {
  const table =
    "    1     0   9000\n  300   200     50\n  200   100   4000\n  100     1     10\n  400 1 7\n";

  test("adds up the process and its descendants, in any order", () => {
    expect(measureTable(100, table)).toEqual({
      residentBytes: 4060 * KIB,
      peakBytes: 4060 * KIB,
    });
  });

  test("knows nothing of a process that is not there, and of garbage", () => {
    expect(measureTable(999, table)).toBeUndefined();
    expect(measureTable(100, "ps: illegal option\n")).toBeUndefined();
    expect(measureTable(100, "")).toBeUndefined();
  });
});

describeIf(isLinux, "Linux's /proc")("measureProcess, on real processes", () => {
  const HELD_BYTES = 64 * MIB;
  const HOLDER = [
    process.execPath,
    "-e",
    `const held = Buffer.alloc(${HELD_BYTES}, 1); await Bun.sleep(300_000); held[0];`,
  ];

  /** Until what descends from the process holds its memory. Ends all of it. */
  async function measureHolder(command: readonly string[]): Promise<void> {
    const child = Bun.spawn([...command, ...HOLDER], { stdio: ["ignore", "ignore", "inherit"] });
    try {
      const measured = await eventually(() => {
        const found = measureProcess(child.pid);
        return found !== undefined && found.residentBytes > HELD_BYTES ? found : undefined;
      });
      expect(measured?.peakBytes).toBeGreaterThanOrEqual(measured?.residentBytes ?? Infinity);
      expect(listDescendants(child.pid).length).toBeGreaterThan(1);
    } finally {
      for (const pid of listDescendants(child.pid).toReversed()) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // Its parent took it along.
        }
      }
      await child.exited;
    }
    expect(measureProcess(child.pid)).toBeUndefined();
  }

  test("counts what a child of a shell holds, and nothing once it is gone", async () => {
    await measureHolder(["/bin/sh", "-c", '"$@" & wait', "sh"]);
  });

  testIf(canSandbox(), "no bubblewrap that may be used")(
    "counts what an engine holds whose process numbers are its own",
    async () => {
      const view = ["--dev-bind", "/", "/", "--unshare-pid", "--die-with-parent"];

      await measureHolder(["bwrap", ...view, "--"]);
    },
  );

  test("takes far less than a millisecond", () => {
    measureProcess(process.pid);
    const times = Array.from({ length: 50 }, () => {
      const startedAt = performance.now();
      measureProcess(process.pid);
      return performance.now() - startedAt;
    });

    // The best of many: others use this machine, too.
    expect(Math.min(...times)).toBeLessThan(0.3);
  });
});

testIf(process.platform === "darwin", "macOS's ps")("ps knows this process", () => {
  expect(measureProcess(process.pid)?.residentBytes).toBeGreaterThan(MIB);
});

function printing(output: string): () => Promise<string> {
  return () => Promise.resolve(output);
}

function refuse(): Promise<string> {
  return Promise.reject(new Error("asked"));
}

describe("measureGpu", () => {
  const devices: readonly Device[] = [
    { id: "ram", kind: "ram", name: null, totalBytes: 1, freeBytes: 1 },
    { id: "cuda:0", kind: "cuda", name: null, totalBytes: 1, freeBytes: 1, uuid: "GPU-b" },
    { id: "cuda:1", kind: "cuda", name: null, totalBytes: 1, freeBytes: 1, uuid: "GPU-a" },
  ];
  test("says what the process holds on each GPU", async () => {
    const output = `${process.pid}, GPU-a, 100\n${process.pid}, GPU-b, 7\n1, GPU-a, 999\n${process.pid}, GPU-x, 5\n`;

    const held = await measureGpu(process.pid, { env: {}, devices, run: printing(output) });

    expect(held).toEqual({ "cuda:1": 100 * MIB, "cuda:0": 7 * MIB });
  });

  test.each(["", "garbage", `${process.pid}, GPU-a, [N/A]\n`, "1, GPU-a, 5\n"])(
    "knows nothing where the tool says %j",
    async (output) => {
      expect(
        await measureGpu(process.pid, { env: {}, devices, run: printing(output) }),
      ).toBeUndefined();
    },
  );

  test("asks nobody where there is no such GPU", async () => {
    const [memory] = devices;

    const held = await measureGpu(1, { env: {}, devices: memory ? [memory] : [], run: refuse });

    expect(held).toBeUndefined();
  });

  testIf(!isWindows, "no process 1 there")("a missing tool is no answer", async () => {
    expect(await measureGpu(process.pid, { env: { PATH: "" }, devices })).toBeUndefined();
  });
});
