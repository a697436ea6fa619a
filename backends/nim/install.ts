/** NIM is not installed: its images are pulled as models. What it needs is a container engine, found here. */
import { access, mkdir, rename, writeFile } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import {
  type ContainerEngine,
  findContainerEngine,
  hasContainerProgram,
} from "../../src/container/engine.ts";
import { AppError } from "../../src/errors.ts";
import { resolvePaths } from "../../src/paths.ts";
import type { Installation, InstallRecipe, Machine } from "../../src/runtime/backend.ts";
import launcher from "./launch.sh" with { type: "text" };

type Env = Readonly<Record<string, string | undefined>>;

/** Containers need one, whatever runs them. */
const SHELL = "/bin/sh";
/** Made by NVIDIA's driver. */
const GPU_FILE = "/dev/nvidiactl";

export const recipe: InstallRecipe = {
  config: findNim,
  configVariant: async (env) => (hasContainerProgram(env) ? variantHere() : "cpu"),
  prepare: placeLauncher,
};

/** As `Backend.problem`. */
export function machineProblem({ platform }: Machine): string | undefined {
  return platform === "linux" ? undefined : "NVIDIA's images need Linux (on Windows: WSL)";
}

// --- internal ---

/** @throws install_failed (no container engine; a place for weights that cannot be mounted) */
async function findNim(env: Env): Promise<Installation> {
  const engine = await findContainerEngine(env);
  const variant = await variantHere();
  const hasGpu = variant === "cuda";
  const directory = join(resolvePaths(env).cache, "nim");
  const cache = toMountable(env["LOCAL_NIM_CACHE"] || join(directory, "weights"));
  const run = ["run", "--rm", "--pull=never", "--log-driver=none", ...machineFlags(engine, hasGpu)];
  return {
    backend: "nim",
    version: `${engine.kind}-${engine.version}`,
    variant,
    source: "config",
    // Nothing of it is Tug's.
    directory: engine.program,
    command: [SHELL, launcherIn(directory), engine.program, `cache=${cache}`, ...run],
    installedAt: new Date(0).toISOString(),
  };
}

async function variantHere(): Promise<"cuda" | "cpu"> {
  return (await exists(GPU_FILE)) ? "cuda" : "cpu";
}

/** A path that is not absolute would name a volume of the container engine's, and a colon ends it. */
function toMountable(path: string): string {
  if (isAbsolute(path) && !path.includes(":")) return path;
  const shown = path.slice(0, 200);
  throw new AppError("install_failed", `cannot keep the weights of nim in \`${shown}\``, {
    hint: "Set LOCAL_NIM_CACHE to an absolute path without a colon.",
  });
}

/** As NVIDIA's documents have them for each; without root podman maps users, and ours has to stay ours. */
function machineFlags({ kind }: ContainerEngine, hasGpu: boolean): readonly string[] {
  const uid = process.getuid?.() ?? 0;
  const flags = [`--user=${uid}`, "--security-opt=no-new-privileges"];
  if (kind === "docker") return hasGpu ? [...flags, "--gpus=all"] : flags;
  if (uid !== 0) flags.push("--userns=keep-id");
  // Labels of SELinux keep containers from devices, and from directories that are not made for them.
  flags.push("--security-opt=label=disable");
  return hasGpu ? [...flags, "--device=nvidia.com/gpu=all"] : flags;
}

/** Named by what is in it: another version of Tug has one of its own. */
function launcherIn(directory: string): string {
  return join(directory, `launch-${Bun.SHA256.hash(launcher, "hex").slice(0, 8)}.sh`);
}

/** Whoever only asks what there is finds it nowhere. */
async function placeLauncher({ command: [, path = ""] }: Installation): Promise<void> {
  if (await exists(path)) return;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const fresh = `${path}.${process.pid}`;
    await writeFile(fresh, launcher, { mode: 0o600 });
    await rename(fresh, path);
  } catch (cause) {
    const reason = (cause as Error).message.slice(0, 200);
    throw new AppError("install_failed", `cannot prepare nim: ${reason}`, { cause });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
