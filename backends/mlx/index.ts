/** MLX, through mlx_lm's server: safetensors on Apple silicon, and on Linux. One process serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "../python/explain.ts";
import { machineProblem } from "../python/machine.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { unreadableWeights } from "../python/traits.ts";
import { unreadableCode } from "./architectures.ts";
import { mlxArgs, SERVED_MODEL } from "./args.ts";
import { recipe } from "./install.ts";

/**
 * Weights that it takes as they are, or packs anew when it reads them.
 *
 * @see https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/utils.py (load_model)
 */
const QUANTIZATIONS: ReadonlySet<string> = new Set(
  "mlx awq gptq bitnet fp8 mxfp4 mxfp8 compressed-tensors modelopt".split(" "),
);

function isReadable(quantization: string): boolean {
  return QUANTIZATIONS.has(quantization);
}

export const mlx: Backend = {
  name: "mlx",
  formats: ["safetensors"],
  modes: ["completion"],
  problem: machineProblem,
  unreadable: (traits) => unreadableCode(traits) ?? unreadableWeights(traits, isReadable),
  needsCode: ({ hasModelFile }) => hasModelFile,
  ignores: {
    context_size: "its server reads prompts of any length; answers end there",
    gpu_layers: "all layers are where it computes",
    reasoning_budget: "its server has no limit for thoughts",
    draft_min_probability: "it drafts whatever is likeliest",
  },
  recipe,
  smokeFiles: tinySafetensors,
  readinessPath: "/health",
  args: mlxArgs,
  explainExit: explainPythonExit,
  paths: ["/v1/chat/completions", "/v1/completions"],
  servedModel: SERVED_MODEL,
  // Measured: the interpreter with all it imports, and what it keeps of requests.
  processBytes: 128 * 1024 * 1024,
};
