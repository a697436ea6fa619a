/** Which kind of GPU an engine build should be made for. */
import type { Gpu, Machine } from "../backend.ts";
import { engineEnvironment } from "../process.ts";
import { hasNvidiaGpu, hasRocmGpu, hasVulkanGpu } from "./parse.ts";

export { physicalCores } from "./cores.ts";

/** These tools answer in well under a second; a driver that hangs must not hang an install. */
const PROBE_TIMEOUT_MS = 5_000;
const OUTPUT_LIMIT_CHARS = 1_000_000;

type Env = Readonly<Record<string, string | undefined>>;
const GPUS: readonly Gpu[] = ["none", "cuda", "rocm", "vulkan", "metal"];

/** Asks the vendors' own tools, in the order of how well engines use what they report. `TUG_GPU` decides if it is set. */
export async function detectGpu(machine: Machine, env: Env): Promise<Gpu> {
  const forced = GPUS.find((gpu) => gpu === env["TUG_GPU"]);
  if (forced !== undefined) return forced;
  // Metal builds for Intel Macs exist no more: their GPUs were slower than their processors at this.
  if (machine.platform === "darwin") return machine.arch === "arm64" ? "metal" : "none";
  if (!hidesCuda(env) && hasNvidiaGpu(await probe(["nvidia-smi", "-L"], env))) return "cuda";
  if (hasRocmGpu(await probe(["rocm-smi", "--showproductname", "--json"], env))) return "rocm";
  return hasVulkanGpu(await probe(["vulkaninfo", "--summary"], env)) ? "vulkan" : "none";
}

// --- internal ---

function hidesCuda(env: Env): boolean {
  const visible = env["CUDA_VISIBLE_DEVICES"];
  return visible === "" || visible === "-1";
}

/** What a tool prints, or nothing if it is missing, fails or takes too long. */
async function probe(argv: readonly string[], env: Env): Promise<string> {
  const program = Bun.which(argv[0] ?? "", { PATH: env["PATH"] ?? "" });
  if (program === null) return "";
  const child = Bun.spawn([program, ...argv.slice(1)], {
    env: { ...engineEnvironment(env), LC_ALL: "C" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    timeout: PROBE_TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const [output, exitCode] = await Promise.all([child.stdout.text(), child.exited]);
  return exitCode === 0 ? output.slice(0, OUTPUT_LIMIT_CHARS) : "";
}
