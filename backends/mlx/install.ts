/** Where mlx-lm comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { InstallRecipe } from "../../src/runtime/backend.ts";
import launcher from "../python/launch.py" with { type: "text" };
import { requirementsOf } from "../python/machine.ts";
import cudaLock from "./requirements-cuda.txt" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };

export const recipe: InstallRecipe = {
  pypi: {
    package: "mlx-lm",
    module: "mlx_lm",
    version: /^mlx-lm==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    requirements: requirementsOf({ none: lock, cuda: cudaLock, metal: lock }),
    launcher,
    environment: ["TUG_MLX_PYTHON"],
  },
};
