/** Where vLLM comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { Gpu, InstallRecipe, Machine } from "../../src/runtime/backend.ts";
import launcher from "./launch.py" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };

export const recipe: InstallRecipe = {
  // What PyTorch's builds for CUDA 13 ask for.
  gpuNeeds: { cuda: 13, computeCapability: 7.5 },
  pypi: {
    package: "vllm",
    module: "vllm",
    version: /^vllm==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    requirements,
    launcher,
    environment: ["TUG_VLLM_PYTHON"],
  },
};

/** @returns why it cannot run there, as a clause */
export function machineProblem({ platform, arch }: Machine): string | undefined {
  const isKnown = platform === "linux" && (arch === "x64" || arch === "arm64");
  return isKnown ? undefined : "it needs Linux";
}

// --- internal ---

/** Of its builds for ROCm, XPU and processors PyPI has none. */
function requirements(machine: Machine, gpu: Gpu): string | undefined {
  return machineProblem(machine) === undefined && gpu === "cuda" ? lock : undefined;
}
