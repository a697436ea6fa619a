/**
 * Namespaces of its own for an engine, by way of bubblewrap: no network, other processes, home or files but those of
 * the view. Pure but for the end of an engine.
 *
 * The spawned process becomes `bwrap`, which waits outside for a `bwrap` that is process 1 inside, whose child is the
 * engine. All are of the spawned process's group (no `--new-session`: the runner's children have no terminal that could
 * be typed into), and `--die-with-parent` ends those inside, descendants too, when the one outside has gone.
 *
 * @see https://github.com/containers/bubblewrap/blob/v0.8.0/bwrap.xml
 */
import { readFileSync } from "node:fs";
import { basename, isAbsolute } from "node:path";

import { AppError } from "../../errors.ts";
import { hiddenVariables } from "./environment.ts";
import { withLimits } from "./limits.ts";
import type { Sandbox, SandboxView } from "./sandbox.ts";

export interface BubblewrapOptions {
  /** Path of `bwrap`. */
  readonly program: string;
  /** The environment of the runner, from which the engine's comes. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

const NAMESPACES = [
  "--unshare-pid",
  "--unshare-ipc",
  "--unshare-uts",
  "--unshare-cgroup-try",
  "--die-with-parent",
  // Only root has any; without them it is not above the permissions of files.
  "--cap-drop",
  "ALL",
];

/** Settings of the kernel, which belong to root whatever its capabilities: `core_pattern` runs a program outside. */
const KERNEL_SETTINGS = [
  "/proc/sys",
  "/proc/sysrq-trigger",
  "/proc/fs",
  "/proc/scsi",
  "/proc/acpi",
];

/** Where systems keep programs and libraries; those of NixOS and Guix, and of vendors that install beside. */
const SYSTEM =
  "/usr /bin /sbin /lib /lib32 /lib64 " +
  "/nix/store /gnu/store /run/opengl-driver /run/current-system/sw/lib " +
  "/etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/alternatives /etc/OpenCL /etc/vulkan /etc/nvidia";

/** What programs read to place their threads, and vLLM's on a processor refuses to start without. */
const PROCESSOR_FACTS = "/sys/devices/system/cpu /sys/devices/system/node";

/** What drivers read to find their devices. */
const DEVICE_FACTS = "/sys/bus /sys/class /sys/dev /sys/devices /sys/module /sys/kernel/mm";

/** Best first; `/dev/shm` is always there. */
const SCRATCH = ["/tmp", "/var/tmp"];

/** A path inside would replace what stands there. */
const RESERVED = ["/", "/proc", "/dev", "/sys", ...SCRATCH];

export function createBubblewrap(options: BubblewrapOptions): Sandbox {
  return {
    name: "bubblewrap",
    wrap: (command, view) => bubblewrapCommand(options, command, view),
    askToEnd,
  };
}

// --- internal ---

/**
 * The variables go before `bwrap` starts, not by its own `--clearenv`: process 1 inside is `bwrap`, and its first
 * environment can be read in `/proc/1/environ`.
 */
function bubblewrapCommand(
  { program, env }: BubblewrapOptions,
  command: readonly string[],
  view: SandboxView,
): readonly string[] {
  const hidden = hiddenVariables(env, view.variables).flatMap((name) => ["-u", name]);
  const confined = [program, ...bubblewrapArgs(command, view), "--", ...command];
  return ["/usr/bin/env", ...hidden, ...withLimits(confined)];
}

/** Later ones lie over earlier ones: what the system has, what the engine has, where it writes. */
function bubblewrapArgs(command: readonly string[], view: SandboxView): readonly string[] {
  const { readOnly, writable, devices } = view;
  for (const path of [...readOnly, ...writable, ...devices]) assertBindable(path);
  const usesDevices = devices.length > 0;
  const needsSystem = view.needsSystem ?? !isLoader(command[0] ?? "");
  const shown = [
    ...(needsSystem || usesDevices ? `${SYSTEM} ${PROCESSOR_FACTS}`.split(" ") : []),
    ...(usesDevices ? DEVICE_FACTS.split(" ") : []),
    ...readOnly,
  ];
  return [
    ...(view.sharesNetwork === true || view.reachesOthers === true ? [] : ["--unshare-net"]),
    ...NAMESPACES,
    "--proc",
    "/proc",
    ...bind("--ro-bind-try", KERNEL_SETTINGS),
    "--dev",
    "/dev",
    ...scratch([...shown, ...writable]),
    ...bind("--dev-bind-try", devices),
    ...bind("--ro-bind-try", shown),
    ...bind("--bind", writable),
    // What lies under all that is memory: nothing is to be written there.
    "--remount-ro",
    "/",
    "--chdir",
    view.startsIn ?? writable[0] ?? "/",
  ];
}

/**
 * Memory for temporary files. Not where files of the view are: directories on the way to them would be writable too, and
 * what an engine wrote there would seem to be beside them.
 */
function scratch(shown: readonly string[]): readonly string[] {
  const free = SCRATCH.filter((place) => !shown.some((path) => path.startsWith(`${place}/`)));
  const mounts = free.flatMap((place) => ["--tmpfs", place]);
  return [...mounts, "--setenv", "TMPDIR", free[0] ?? "/dev/shm"];
}

function bind(option: string, paths: readonly string[]): readonly string[] {
  return paths.flatMap((path) => [option, path, path]);
}

function assertBindable(path: string): void {
  if (isAbsolute(path) && !path.includes("\0") && !RESERVED.includes(path)) return;
  throw new AppError(
    "internal",
    `cannot show \`${path.slice(0, 200)}\` to an engine: not a path for that`,
  );
}

/** `ld-linux-x86-64.so.2`, `ld-musl-aarch64.so.1`: the engine brings its own C library. */
function isLoader(program: string): boolean {
  return /^ld-[\w.-]+\.so\.\d+$/.test(basename(program));
}

/** The process that `bwrap` started: the second of its namespace. */
function askToEnd(pid: number): boolean {
  const init = childWith(pid, 1);
  const engine = init === undefined ? undefined : childWith(init, 2);
  if (engine === undefined) return false;
  try {
    return process.kill(engine, "SIGTERM");
  } catch {
    return false;
  }
}

/** A child that has this number in the innermost namespace. Others are the watcher of the group, and orphans. */
function childWith(pid: number, innerPid: number): number | undefined {
  const children = readOr(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean);
  const found = children.find((child) => {
    const numbers = /^NSpid:\t(.*)$/m.exec(readOr(`/proc/${child}/status`))?.[1]?.split("\t") ?? [];
    return numbers.length > 1 && Number(numbers.at(-1)) === innerPid;
  });
  return found === undefined ? undefined : Number(found);
}

/** It may have ended meanwhile. */
function readOr(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
