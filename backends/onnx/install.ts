/** Where onnxruntime comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import type { InstallRecipe } from "../../src/runtime/backend.ts";
import http from "../python/http.py" with { type: "text" };
import { machineProblem } from "../python/machine.ts";
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
    // It computes on the processor, on a Mac too: packages for GPUs are others, one a maker.
    requirements: (machine, gpu) =>
      machineProblem(machine) === undefined && gpu === "none" ? lock : undefined,
    // The server itself, which is one file.
    launcher: [http, models, writer, serve].join("\n\n"),
    environment: ["TUG_ONNX_PYTHON"],
  },
};
