/** vLLM: safetensors of most architectures on GPUs, many requests at once. One process family serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { modelsReport } from "../python/models-report.ts";
import { readPythonFlags } from "../python/flags.ts";
import {
  IGNORES,
  linuxProblem,
  PROCESS_BYTES,
  RESERVES_GPUS,
  SMOKE_BOUND_MS,
} from "../python/gpu-engine.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { needsAutoMap, unreadableOnGpus } from "../python/traits.ts";
import { SERVED_MODEL, vllmArgs } from "./args.ts";
import { explainVllmExit } from "./explain.ts";
import { CACHE_TYPES, FLAGS } from "./flag-table.ts";
import { recipe } from "./install.ts";

export const vllm: Backend = {
  name: "vllm",
  formats: ["safetensors"],
  modes: ["completion", "embedding", "reranking"],
  problem: linuxProblem,
  unreadable: unreadableOnGpus,
  needsCode: needsAutoMap,
  recipe,
  onlyWhereInstalled: true,
  smokeFiles: tinySafetensors,
  smokeBoundMs: SMOKE_BOUND_MS,
  keepsCompiled: true,
  ignores: IGNORES,
  reservesGpus: RESERVES_GPUS,
  joinsCluster: true,
  // @see vllm/entrypoints/serve/dev/sleep/api_router.py of 0.32
  sleep: { path: "/sleep?level=1", wakePath: "/wake_up" },
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
  // The one that listens and the one that computes.
  processBytes: 2 * PROCESS_BYTES,
};
