/** Bundle and settings to the arguments of SGLang's server. Pure. */
import { dirname, join } from "node:path";

import type { ArgsInput, EngineCommand, WorkerSettings } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";
import { checkPythonFlags } from "../python/flags.ts";
import { gpuIndexes, oneCacheType, refuse, whole } from "../python/settings.ts";
import { CACHE_TYPES, FLAGS } from "./flag-table.ts";

/** A colon in a name would part a model from an adapter: this one has none. */
export const SERVED_MODEL = "served";
/** Of a draft whose length nobody says. Tokens. */
const DRAFT_TOKENS = 4;
/** Of a GPU's memory, what graphs and activations take beside the weights and the cache. */
const ACTIVE_SHARE = 0.1;

/**
 * @throws invalid_request for a setting that it has nothing for, or a value it does not take
 * @see https://docs.sglang.ai/advanced_features/server_arguments.html
 */
export function sglangArgs(input: ArgsInput): EngineCommand {
  const { bundle, settings, socket } = input;
  const flags = checkPythonFlags(settings.runtimeFlags, FLAGS);
  refuse("sglang", "lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  const launch = ["--socket", socket, "--ready", "/health", "--"];
  // Older than `sglang serve`, and known to all versions.
  const args = ["-m", "sglang.launch_server", "--model-path", bundle.directory];
  args.push("--host", "127.0.0.1", "--port", "{port}", "--served-model-name", SERVED_MODEL);
  args.push("--enable-metrics", "--log-level-http", "warning");
  args.push(...modeArgs(input));
  args.push(...sizeArgs(input, flags));
  args.push(...deviceArgs(settings, flags));
  args.push(...draftArgs(settings));
  // The last of several holds.
  args.push(...flags);
  return { args: [...launch, ...args], env: environment(socket) };
}

// --- internal ---

function modeArgs({ bundle, mode, settings }: ArgsInput): readonly string[] {
  if (mode !== "completion") return ["--is-embedding"];
  const args: string[] = [];
  if (bundle.chatTemplate !== undefined) args.push("--chat-template", bundle.chatTemplate);
  // It finds out from the template which there are; flags that follow say otherwise.
  args.push("--tool-call-parser", "auto", "--reasoning-parser", "auto");
  const { reasoningBudget } = settings;
  if (reasoningBudget === undefined || reasoningBudget === -1) return args;
  refuse("sglang", "a reasoning budget other than 0 and -1", reasoningBudget !== 0);
  const told = JSON.stringify({ enable_thinking: false });
  return [...args, "--default-chat-template-kwargs", told];
}

/** What decides how much memory it takes. It takes all of its share at once, and keeps it. */
function sizeArgs(input: ArgsInput, flags: readonly string[]): readonly string[] {
  const { bundle, settings, gpuShare } = input;
  const { contextTokens = bundle.contextTokens, parallel } = settings;
  const args: string[] = [];
  // Without it the context is the model's own.
  if (contextTokens !== undefined && contextTokens !== -1) {
    args.push("--context-length", whole("context size", contextTokens));
  }
  if (parallel !== undefined) args.push("--max-running-requests", whole("parallel", parallel));
  const cacheType = oneCacheType("sglang", settings, CACHE_TYPES);
  if (cacheType !== undefined) args.push("--kv-cache-dtype", cacheType);
  if (gpuShare !== undefined && !flags.includes("--mem-fraction-static")) {
    const share = Math.min(Math.max(gpuShare * (1 - ACTIVE_SHARE), 0.01), 1 - ACTIVE_SHARE);
    args.push("--mem-fraction-static", share.toFixed(3));
  }
  return args;
}

const PARALLEL_FLAGS = [
  "--tp-size",
  "--tensor-parallel-size",
  "--dp-size",
  "--data-parallel-size",
  "--pp-size",
  "--pipeline-parallel-size",
  "--nnodes",
];

/** It takes GPUs that follow each other; heads of attention are shared out evenly, by a power of two. */
function deviceArgs({ devices }: WorkerSettings, flags: readonly string[]): readonly string[] {
  const [first, ...others] = gpuIndexes(devices).toSorted((one, other) => one - other);
  if (first === undefined) return [];
  const args = ["--base-gpu-id", String(first)];
  if (PARALLEL_FLAGS.some((name) => flags.includes(name))) return args;
  const gap = others.findIndex((index, place) => index !== first + place + 1);
  const run = 1 + (gap === -1 ? others.length : gap);
  const count = 2 ** Math.floor(Math.log2(run));
  return count === 1 ? args : [...args, "--tp-size", String(count)];
}

/** One guess a step, and one token that the model itself adds. */
function draftArgs({ draft }: WorkerSettings): readonly string[] {
  if (draft === undefined) return [];
  refuse("sglang", "a draft probability", draft.minProbability !== undefined);
  const steps = draft.maxTokens ?? DRAFT_TOKENS;
  const args = ["--speculative-algorithm", "STANDALONE"];
  args.push("--speculative-draft-model-path", dirname(draft.model));
  args.push("--speculative-num-steps", whole("draft length", steps));
  args.push("--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", String(steps + 1));
  return args;
}

/** All that it writes lies beside its socket. */
function environment(socket: string): Readonly<Record<string, string>> {
  const own = dirname(socket);
  return {
    ...pythonEnvironment(socket),
    TRITON_HOME: own,
    TORCHINDUCTOR_CACHE_DIR: join(own, "inductor"),
    FLASHINFER_WORKSPACE_BASE: own,
    CUDA_CACHE_PATH: join(own, "cuda"),
    // As the vendor's tool counts them.
    CUDA_DEVICE_ORDER: "PCI_BUS_ID",
  };
}
