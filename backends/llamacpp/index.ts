/** llama.cpp, through its HTTP server. One process serves one model on one unix socket. */
import type { Backend } from "../../src/runtime/backend.ts";
import { llamacppArgs } from "./args.ts";
import { explainExit } from "./explain.ts";
import { CACHE_TYPES } from "./flag-table.ts";
import { readFlags } from "./flags.ts";
import { recipe } from "./install.ts";
import { llamacppReport } from "./report.ts";
import { rpc } from "./rpc.ts";

export const llamacpp: Backend = {
  name: "llama.cpp",
  formats: ["gguf"],
  modes: ["completion", "embedding", "reranking"],
  recipe,
  readinessPath: "/health",
  args: llamacppArgs,
  readFlags,
  cacheTypes: CACHE_TYPES.of,
  explainExit,
  report: llamacppReport,
  metricsPath: "/metrics",
  rpc,
};
