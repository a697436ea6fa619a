/** What a confined engine gets to see: its own program, the files of its model, its socket's directory, its GPU. */
import { existsSync } from "node:fs";
import { readdir, realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { bundleFiles, type EngineFiles } from "./engine-files.ts";
import { impliedFiles } from "./sandbox/implied-files.ts";
import type { SandboxView } from "./sandbox/sandbox.ts";

export interface ViewInput extends Omit<EngineFiles, "modelName"> {
  readonly socket: string;
  /** What the backend sets. */
  readonly env: Readonly<Record<string, string>>;
  /** It computes with a Ray cluster, whose processes on this machine it meets in files and shared memory. */
  readonly joinsCluster?: boolean | undefined;
  /** Where it keeps what it compiled, which is there. */
  readonly cacheDirectory?: string | undefined;
  /** The user's home, which no engine is shown as a whole; default: of this process. */
  readonly home?: string | undefined;
  /** Where GPUs' vendors put their libraries; default: as they do. For tests. */
  readonly vendors?: readonly string[] | undefined;
}

/** Of links both ends: bundles are links into the store, and an engine opens the names it was given. */
export async function engineView(input: ViewInput): Promise<SandboxView> {
  const { installation, bundles, settings, socket, env, cacheDirectory } = input;
  const { home = homedir(), vendors = VENDORS } = input;
  const { source, directory, command, needs = [] } = installation;
  const named = [
    // An engine of the user's own may lie right in the home.
    ...(source === "path" ? [] : [directory]),
    ...command.filter((word) => isAbsolute(word) && word !== directory),
    ...needs,
    ...bundles.flatMap((bundle) =>
      bundle.format === "gguf" ? bundleFiles(bundle) : [bundle.directory],
    ),
    ...(settings.adapters ?? []),
    ...(settings.files ?? []),
    ...(settings.remotes === undefined && input.joinsCluster !== true ? [] : NAMES),
    ...(await impliedFiles({ installation, bundles, settings, home })),
  ];
  const devices = await deviceFiles(installation.variant);
  if (!GPU_FREE.includes(installation.variant)) named.push(...vendors);
  const targets = await Promise.all(named.map((path) => realpath(path).catch(() => path)));
  return {
    readOnly: outermost([...named, ...targets]),
    writable: [
      dirname(socket),
      ...(cacheDirectory === undefined ? [] : [cacheDirectory]),
      ...(input.joinsCluster === true ? RAY_PLACES.filter((path) => existsSync(path)) : []),
    ],
    devices,
    variables: Object.keys(env),
  };
}

/** The device files that builds of a variant open, which are those that containers are given for them. */
export async function deviceFiles(
  variant: string,
  list: (directory: string) => Promise<readonly string[]> = (directory) => readdir(directory),
): Promise<readonly string[]> {
  if (GPU_FREE.includes(variant)) return [];
  const names = await list("/dev").catch((): readonly string[] => []);
  return names.filter((name) => GPU_DEVICE.test(name)).map((name) => join("/dev", name));
}

// --- internal ---

/** Sockets of the processes that Ray has started here, and objects that they share. */
const RAY_PLACES: readonly string[] = ["/tmp/ray", "/dev/shm"];

/** What lies in a directory that is shown is shown with it; a link there, bound once more, would be followed. */
function outermost(paths: readonly string[]): readonly string[] {
  const all = new Set(paths);
  return [...all].filter((path) => {
    for (let above = dirname(path); above !== dirname(above); above = dirname(above)) {
      if (all.has(above)) return false;
    }
    return true;
  });
}

/** Links to one of the versions beside them, by whose own name libraries find each other. */
const VENDORS: readonly string[] = ["/opt/rocm", "/opt/cuda", "/opt/intel"];

/** By which names of other machines become addresses. */
const NAMES: readonly string[] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];

/** Metal is no device file. A build of the user's own, `host`, may use any GPU. */
const GPU_FREE: readonly string[] = ["cpu", "metal"];

/** Of NVIDIA, of the kernel's graphics, AMD's compute, and Windows' in WSL. */
const GPU_DEVICE = /^(?:nvidia(?:\d+|ctl|-uvm|-uvm-tools|-modeset|-caps)|dri|kfd|dxg)$/;
