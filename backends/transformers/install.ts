/** Where transformers comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { Gpu, InstallRecipe, Machine } from "../../src/runtime/backend.ts";
import launcher from "../python/launch.py" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };

export const recipe: InstallRecipe = {
  pypi: {
    package: "transformers",
    module: "transformers.cli.serving",
    version: /^transformers(?:\[\w+\])?==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    requirements,
    launcher,
    environment: ["TUG_TRANSFORMERS_PYTHON"],
  },
};

/** @returns why it cannot run there, as a clause */
export function machineProblem({ platform, arch }: Machine): string | undefined {
  if (platform === "linux" && (arch === "x64" || arch === "arm64")) return undefined;
  if (platform === "darwin" && arch === "arm64") return undefined;
  return "it needs a Mac with Apple silicon, or Linux";
}

// --- internal ---

/** PyPI's PyTorch for Linux is the one with CUDA, which runs without a GPU, too; that of macOS has Metal. */
function requirements(machine: Machine, gpu: Gpu): string | undefined {
  if (machineProblem(machine) !== undefined) return undefined;
  if (machine.platform === "darwin") return gpu === "metal" ? lock : undefined;
  return gpu === "cuda" || gpu === "none" ? lock : undefined;
}
