/** SGLang: safetensors of most architectures on GPUs, many requests at once. One process family serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { readPythonFlags } from "../python/flags.ts";
import { modelsReport } from "../python/models-report.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { SERVED_MODEL, sglangArgs } from "./args.ts";
import { explainSglangExit } from "./explain.ts";
import { CACHE_TYPES, FLAGS } from "./flag-table.ts";
import { machineProblem, recipe } from "./install.ts";

export const sglang: Backend = {
  name: "sglang",
  formats: ["safetensors"],
  modes: ["completion", "embedding"],
  problem: machineProblem,
  recipe,
  onlyWhereInstalled: true,
  smokeFiles: tinySafetensors,
  readinessPath: "/health",
  args: sglangArgs,
  readFlags: (flags, options) => readPythonFlags(flags, FLAGS, options),
  cacheTypes: CACHE_TYPES,
  explainExit: explainSglangExit,
  report: modelsReport,
  metricsPath: "/metrics",
  paths: ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
  servedModel: SERVED_MODEL,
  // Of three processes with PyTorch: listening, computing, writing; each as `transformers` measured.
  processBytes: 3 * 900 * 1024 * 1024,
};
