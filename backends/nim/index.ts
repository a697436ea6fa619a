/** NIM: NVIDIA's container images, each of which serves one model. One container serves one worker. */
import type { Backend } from "../../src/runtime/backend.ts";
import { nimArgs, readNimFlags } from "./args.ts";
import { explainNimExit } from "./explain.ts";
import { machineProblem, recipe } from "./install.ts";
import { findNimProcess, nimReport } from "./report.ts";

export const nim: Backend = {
  name: "nim",
  formats: ["nim"],
  modes: ["completion", "embedding"],
  problem: machineProblem,
  ignores: {
    gpu_layers: "it puts the whole model on GPUs",
    cache_type_k: "the profile of its image decides",
    cache_type_v: "the profile of its image decides",
  },
  recipe,
  listensOn: "port",
  confinedBy: "container",
  choosesContext: true,
  readinessPath: "/v1/health/ready",
  args: nimArgs,
  readFlags: readNimFlags,
  explainExit: explainNimExit,
  report: nimReport,
  findProcess: findNimProcess,
  metricsPath: "/v1/metrics",
  paths: ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
  // Until it has told its own.
  servedModel: "model",
};
