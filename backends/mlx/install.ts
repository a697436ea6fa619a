/** Where mlx-lm comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { Gpu, InstallRecipe, Machine } from "../../src/runtime/backend.ts";
import launcher from "../python/launch.py" with { type: "text" };
import cudaLock from "./requirements-cuda.txt" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };

export const recipe: InstallRecipe = {
  pypi: {
    package: "mlx-lm",
    module: "mlx_lm",
    version: /^mlx-lm==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    requirements,
    launcher,
    environment: ["TUG_MLX_PYTHON"],
  },
};

/** @returns why it cannot run there, as a clause */
export function machineProblem({ platform, arch }: Machine): string | undefined {
  if (platform === "linux" && (arch === "x64" || arch === "arm64")) return undefined;
  if (platform === "darwin" && arch === "arm64") return undefined;
  return "it needs a Mac with Apple silicon, or Linux";
}

// --- internal ---

function requirements(machine: Machine, gpu: Gpu): string | undefined {
  if (machineProblem(machine) !== undefined) return undefined;
  if (machine.platform === "darwin") return gpu === "metal" ? lock : undefined;
  if (gpu === "cuda") return cudaLock;
  return gpu === "none" ? lock : undefined;
}
