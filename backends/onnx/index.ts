/** ONNX, through onnxruntime: exports of language models and of embeddings. One process serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "../python/explain.ts";
import { machineProblem } from "../python/machine.ts";
import { onnxArgs } from "./args.ts";
import { recipe } from "./install.ts";
import { onnxReport } from "./report.ts";
import { tinyDecoder } from "./tiny-model.ts";

export const onnx: Backend = {
  name: "onnx",
  formats: ["onnx"],
  modes: ["completion", "embedding"],
  problem: machineProblem,
  ignores: {
    gpu_layers: "it computes on the processor",
    reasoning_budget: "its server has no limit for thoughts",
  },
  recipe,
  smokeFiles: tinyDecoder,
  readinessPath: "/health",
  args: onnxArgs,
  explainExit: explainPythonExit,
  report: onnxReport,
  paths: ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
  // Measured: the interpreter with both libraries.
  processBytes: 112 * 1024 * 1024,
};
