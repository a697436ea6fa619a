/** PyTorch, through `transformers serve`: safetensors and checkpoints of all architectures. One process serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "../python/explain.ts";
import { machineProblem } from "../python/machine.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { needsAutoMap, unreadableWeights } from "../python/traits.ts";
import { SERVED_MODEL, transformersArgs } from "./args.ts";
import { FIELDS } from "./fields.ts";
import { recipe } from "./install.ts";

/**
 * Weights that it reads with what is locked: other methods are packages of their own.
 *
 * @see https://github.com/huggingface/transformers/blob/main/src/transformers/quantizers/auto.py
 */
const QUANTIZATIONS: ReadonlySet<string> = new Set("fp8 mxfp8 mxfp4 bitnet".split(" "));

export const transformers: Backend = {
  name: "transformers",
  formats: ["safetensors", "pytorch"],
  modes: ["completion"],
  problem: machineProblem,
  unreadable: (traits) => unreadableWeights(traits, (one) => QUANTIZATIONS.has(one)),
  needsCode: needsAutoMap,
  ignores: {
    context_size: "its server reads prompts of any length",
    parallel: "it serves one request after the other",
    gpu_layers: "it puts layers where there is room",
    reasoning_budget: "its server has no limit for thoughts",
  },
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
