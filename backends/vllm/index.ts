/** vLLM: safetensors of most architectures on GPUs, many requests at once. One process family serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { modelsReport } from "../python/models-report.ts";
import { readPythonFlags } from "../python/flags.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { SERVED_MODEL, vllmArgs } from "./args.ts";
import { explainVllmExit } from "./explain.ts";
import { CACHE_TYPES, FLAGS } from "./flag-table.ts";
import { machineProblem, recipe } from "./install.ts";

export const vllm: Backend = {
  name: "vllm",
  formats: ["safetensors"],
  modes: ["completion", "embedding", "reranking"],
  problem: machineProblem,
  recipe,
  onlyWhereInstalled: true,
  smokeFiles: tinySafetensors,
  readinessPath: "/health",
  args: vllmArgs,
  readFlags: (flags, options) => readPythonFlags(flags, FLAGS, options),
  cacheTypes: CACHE_TYPES,
  explainExit: explainVllmExit,
  report: modelsReport,
  metricsPath: "/metrics",
  paths: [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/tokenize",
    "/detokenize",
  ],
  servedModel: SERVED_MODEL,
  // Of two processes with PyTorch, the one that listens and the one that computes; each as `transformers` measured.
  processBytes: 2 * 900 * 1024 * 1024,
};
