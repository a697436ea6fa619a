/** Pictures, through diffusers: pipelines as DDUF or as directories. One process serves one model. */
import type { Backend } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "../python/explain.ts";
import { machineProblem } from "../python/machine.ts";
import { diffusersArgs } from "./args.ts";
import { recipe } from "./install.ts";
import { tinyDduf } from "./tiny-pipeline.ts";

const MIB = 1024 * 1024;

export const diffusers: Backend = {
  name: "diffusers",
  formats: ["dduf", "diffusers"],
  modes: ["image-generation"],
  problem: machineProblem,
  ignores: {
    context_size: "a prompt has the length that its pipeline reads",
    parallel: "it draws one picture after the other",
    gpu_layers: "it puts a pipeline where there is room",
    reasoning_budget: "it does not think",
    cache_type_k: "it keeps no cache",
    cache_type_v: "it keeps no cache",
  },
  recipe,
  smokeFiles: () => ({ "tiny.dduf": tinyDduf() }),
  smokeRequest: {
    path: "/v1/images/generations",
    body: { prompt: "a cat", size: "64x64", num_inference_steps: 1, seed: 1 },
  },
  readinessPath: "/health",
  args: diffusersArgs,
  explainExit: explainPythonExit,
  paths: ["/v1/images/generations", "/v1/images/edits"],
  // Measured: the interpreter with PyTorch and all that pipelines are made of.
  processBytes: 1200 * MIB,
};
