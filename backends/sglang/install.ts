/** Where SGLang comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import { cudaRecipe } from "../python/gpu-engine.ts";
import launcher from "../python/launch.py" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };

export const recipe = cudaRecipe({
  package: "sglang",
  module: "sglang",
  python: ">=3.11,<3.13",
  launcher,
  environment: ["TUG_SGLANG_PYTHON"],
  lock,
});
