/** Which kind of GPU an engine build should be made for. */
import type { Gpu, Machine } from "../backend.ts";
import { hasNvidiaGpu, hasRocmGpu, hasVulkanGpu } from "./parse.ts";
import { type Env, probe } from "./probe.ts";

export { physicalCores } from "./cores.ts";

const GPUS: readonly Gpu[] = ["none", "cuda", "rocm", "vulkan", "metal"];

/** Asks the vendors' own tools, in the order of how well engines use what they report. `TUG_GPU` decides if it is set. */
export async function detectGpu(machine: Machine, env: Env): Promise<Gpu> {
  const forced = GPUS.find((gpu) => gpu === env["TUG_GPU"]);
  if (forced !== undefined) return forced;
  // Metal builds for Intel Macs exist no more: their GPUs were slower than their processors at this.
  if (machine.platform === "darwin") return machine.arch === "arm64" ? "metal" : "none";
  if (!hidesCuda(env) && hasNvidiaGpu(await probe(["nvidia-smi", "-L"], { env }))) return "cuda";
  if (hasRocmGpu(await probe(["rocm-smi", "--showproductname", "--json"], { env }))) return "rocm";
  return hasVulkanGpu(await probe(["vulkaninfo", "--summary"], { env })) ? "vulkan" : "none";
}

// --- internal ---

function hidesCuda(env: Env): boolean {
  const visible = env["CUDA_VISIBLE_DEVICES"];
  return visible === "" || visible === "-1";
}
