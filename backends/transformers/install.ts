/** Where transformers comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { InstallRecipe } from "../../src/runtime/backend.ts";
import launcher from "../python/launch.py" with { type: "text" };
import { requirementsOf } from "../python/machine.ts";
import lock from "./requirements.txt" with { type: "text" };

export const recipe: InstallRecipe = {
  pypi: {
    package: "transformers",
    module: "transformers.cli.serving",
    version: /^transformers(?:\[\w+\])?==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    // PyPI's PyTorch for Linux is the one with CUDA, which runs without a GPU, too; that of macOS has Metal.
    requirements: requirementsOf({ none: lock, cuda: lock, metal: lock }),
    launcher,
    environment: ["TUG_TRANSFORMERS_PYTHON"],
  },
};
