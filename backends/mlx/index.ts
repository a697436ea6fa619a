/** MLX, through mlx_lm's server: safetensors on Apple silicon, and on Linux. One process serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "../python/explain.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { mlxArgs, SERVED_MODEL } from "./args.ts";
import { machineProblem, recipe } from "./install.ts";

export const mlx: Backend = {
  name: "mlx",
  formats: ["safetensors"],
  modes: ["completion"],
  problem: machineProblem,
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
