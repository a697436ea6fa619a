/** Where vLLM comes from: PyPI, locked. Values only; `src/runtime/installer/` does the work. */
import { cudaRecipe } from "../python/gpu-engine.ts";
import launcher from "./launch.py" with { type: "text" };
import lock from "./requirements.txt" with { type: "text" };

export const recipe = cudaRecipe({
  package: "vllm",
  module: "vllm",
  python: ">=3.11,<3.15",
  launcher,
  environment: ["TUG_VLLM_PYTHON"],
  lock,
});
