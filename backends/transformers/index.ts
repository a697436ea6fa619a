/** PyTorch, through `transformers serve`: safetensors of all architectures. One process serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "../python/explain.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { SERVED_MODEL, transformersArgs } from "./args.ts";
import { FIELDS } from "./fields.ts";
import { machineProblem, recipe } from "./install.ts";

export const transformers: Backend = {
  name: "transformers",
  formats: ["safetensors"],
  modes: ["completion"],
  problem: machineProblem,
  recipe,
  smokeFiles: tinySafetensors,
  readinessPath: "/health",
  args: transformersArgs,
  explainExit: explainPythonExit,
  paths: ["/v1/chat/completions", "/v1/completions"],
  fields: FIELDS,
  servedModel: SERVED_MODEL,
  // Measured: the interpreter with PyTorch.
  processBytes: 900 * 1024 * 1024,
};
