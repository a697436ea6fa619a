/** Where diffusers comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { InstallRecipe } from "../../src/runtime/backend.ts";
import http from "../python/http.py" with { type: "text" };
import { requirementsOf } from "../python/machine.ts";
import drawing from "./drawing.py" with { type: "text" };
import loading from "./loading.py" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };
import serve from "./serve.py" with { type: "text" };

export const recipe: InstallRecipe = {
  pypi: {
    package: "diffusers",
    module: "diffusers",
    version: /^diffusers==(\S+)/m.exec(lock)?.[1] ?? "",
    python: ">=3.11,<3.15",
    // PyPI's PyTorch for Linux is the one with CUDA, which runs without a GPU, too; that of macOS has Metal.
    requirements: requirementsOf({ none: lock, cuda: lock, metal: lock }),
    // The server itself, which is one file.
    launcher: [http, loading, drawing, serve].join("\n\n"),
    environment: ["TUG_DIFFUSERS_PYTHON", "DIFFUSERS_SERVER_PATH"],
  },
};
