/** SGLang: safetensors of most architectures on GPUs, many requests at once. One process family serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { readPythonFlags } from "../python/flags.ts";
import {
  IGNORES,
  linuxProblem,
  PROCESS_BYTES,
  RESERVES_GPUS,
  SMOKE_BOUND_MS,
} from "../python/gpu-engine.ts";
import { modelsReport } from "../python/models-report.ts";
import { tinySafetensors } from "../python/tiny-model.ts";
import { needsAutoMap, unreadableOnGpus } from "../python/traits.ts";
import { SERVED_MODEL, sglangArgs } from "./args.ts";
import { explainSglangExit } from "./explain.ts";
import { CACHE_TYPES, FLAGS } from "./flag-table.ts";
import { recipe } from "./install.ts";

export const sglang: Backend = {
  name: "sglang",
  formats: ["safetensors"],
  modes: ["completion", "embedding"],
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
  readinessPath: "/health",
  args: sglangArgs,
  readFlags: (flags, options) => readPythonFlags(flags, FLAGS, options),
  cacheTypes: CACHE_TYPES,
  explainExit: explainSglangExit,
  report: modelsReport,
  metricsPath: "/metrics",
  paths: ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
  servedModel: SERVED_MODEL,
  // Listening, computing, writing.
  processBytes: 3 * PROCESS_BYTES,
};
