/** Where onnxruntime comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { Gpu, InstallRecipe, Machine } from "../../src/runtime/backend.ts";
import models from "./models.py" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };
import serve from "./serve.py" with { type: "text" };
import writer from "./writer.py" with { type: "text" };

export const recipe: InstallRecipe = {
  pypi: {
    package: "onnxruntime",
    module: "onnxruntime",
    version: /^onnxruntime==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    requirements,
    // The server itself, which is one file.
    launcher: [models, writer, serve].join("\n\n"),
    environment: ["TUG_ONNX_PYTHON"],
  },
};

/** @returns why it cannot run there, as a clause */
export function machineProblem({ platform, arch }: Machine): string | undefined {
  if (platform === "linux" && (arch === "x64" || arch === "arm64")) return undefined;
  if (platform === "darwin" && arch === "arm64") return undefined;
  return "it needs a Mac with Apple silicon, or Linux";
}

// --- internal ---

/** It computes on the processor: packages for GPUs are others, one a maker. */
function requirements(machine: Machine, gpu: Gpu): string | undefined {
  return machineProblem(machine) === undefined && gpu === "none" ? lock : undefined;
}
