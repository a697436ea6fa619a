/** Bundle and settings to the arguments of `vllm serve`. Pure. */
import { dirname, join } from "node:path";

import type { ArgsInput, EngineCommand, WorkerSettings } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";
import { checkPythonFlags } from "../python/flags.ts";
import { gpuIndexes, oneCacheType, refuse, whole } from "../python/settings.ts";
import { CACHE_TYPES, FLAGS } from "./flag-table.ts";
import { parsersFor } from "./parsers.ts";

/** It answers to the names that it was told, and to no other. */
export const SERVED_MODEL = "served";
/** Of a draft whose length nobody says. @see vllm/config/speculative.py: it has no default for such drafts */
const DRAFT_TOKENS = 5;
/** Some of each GPU is never the engine's: the driver's context, other programs' windows. */
const MAX_GPU_SHARE = 0.95;

/**
 * @throws invalid_request for a setting that it has nothing for, or a value it does not take
 * @see https://docs.vllm.ai/en/stable/cli/serve/
 */
export function vllmArgs(input: ArgsInput): EngineCommand {
  const { bundle, settings, alias, socket } = input;
  const flags = checkPythonFlags(settings.runtimeFlags, FLAGS);
  refuse("vllm", "lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  const args = ["serve", bundle.directory, "--uds", socket];
  args.push("--served-model-name", alias, SERVED_MODEL, "--disable-uvicorn-access-log");
  args.push(...modeArgs(input, flags));
  args.push(...sizeArgs(input, flags));
  args.push(...deviceArgs(settings, flags));
  args.push(...draftArgs(settings));
  // The last of several holds.
  args.push(...flags);
  return { args, env: environment(socket, flags) };
}

// --- internal ---

function modeArgs(input: ArgsInput, flags: readonly string[]): readonly string[] {
  const { bundle, mode, settings, architecture } = input;
  if (mode !== "completion") return ["--runner", "pooling"];
  const args = ["--runner", "generate"];
  if (bundle.chatTemplate !== undefined) args.push("--chat-template", bundle.chatTemplate);
  const { tools, reasoning } = parsersFor(architecture);
  const isOwn = flags.includes("--tool-call-parser");
  if (!isOwn && tools !== undefined) args.push("--tool-call-parser", tools);
  if (isOwn || tools !== undefined) args.push("--enable-auto-tool-choice");
  if (reasoning !== undefined) args.push("--reasoning-parser", reasoning);
  args.push(...thinkingArgs(settings));
  return args;
}

/** Templates of models that think or not as they are told know this name. */
function thinkingArgs({ reasoningBudget }: WorkerSettings): readonly string[] {
  if (reasoningBudget === undefined || reasoningBudget === -1) return [];
  refuse("vllm", "a reasoning budget other than 0 and -1", reasoningBudget !== 0);
  return ["--default-chat-template-kwargs", JSON.stringify({ enable_thinking: false })];
}

/** What decides how much memory it takes. It takes all of its share at once, and keeps it. */
function sizeArgs(input: ArgsInput, flags: readonly string[]): readonly string[] {
  const { bundle, settings, gpuShare } = input;
  const { contextTokens = bundle.contextTokens, parallel } = settings;
  const args: string[] = [];
  // Without it the context is the model's own.
  if (contextTokens !== undefined && contextTokens !== -1) {
    args.push("--max-model-len", whole("context size", contextTokens));
  }
  if (parallel !== undefined) args.push("--max-num-seqs", whole("parallel", parallel));
  const cacheType = oneCacheType("vllm", settings, CACHE_TYPES);
  if (cacheType !== undefined) args.push("--kv-cache-dtype", cacheType);
  const isSaid = ["--gpu-memory-utilization", "--kv-cache-memory-bytes"].some((name) =>
    flags.includes(name),
  );
  if (gpuShare !== undefined && !isSaid) {
    const share = Math.min(Math.max(gpuShare, 0.01), MAX_GPU_SHARE);
    args.push("--gpu-memory-utilization", share.toFixed(3));
  }
  return args;
}

const PARALLEL_FLAGS = [
  "--tensor-parallel-size",
  "-tp",
  "--pipeline-parallel-size",
  "-pp",
  "--data-parallel-size",
  "-dp",
  "--nnodes",
  "-n",
];

/** Heads of attention are shared out evenly, and their number is a multiple of a power of two. */
function deviceArgs({ devices }: WorkerSettings, flags: readonly string[]): readonly string[] {
  const all = gpuIndexes(devices);
  if (all.length === 0) return [];
  const isShared = PARALLEL_FLAGS.some((name) => flags.includes(name));
  if (isShared) return ["--device-ids", all.join(",")];
  const gpus = all.slice(0, 2 ** Math.floor(Math.log2(all.length)));
  const args = ["--device-ids", gpus.join(",")];
  return gpus.length === 1 ? args : [...args, "--tensor-parallel-size", String(gpus.length)];
}

function draftArgs({ draft }: WorkerSettings): readonly string[] {
  if (draft === undefined) return [];
  refuse("vllm", "a draft probability", draft.minProbability !== undefined);
  const config = {
    method: "draft_model",
    model: dirname(draft.model),
    num_speculative_tokens: draft.maxTokens ?? DRAFT_TOKENS,
  };
  return ["--speculative-config", JSON.stringify(config)];
}

/** All that it writes lies beside its socket. */
function environment(socket: string, flags: readonly string[]): Readonly<Record<string, string>> {
  const own = dirname(socket);
  const isCluster = ["--nnodes", "-n", "--master-addr", "ray"].some((word) => flags.includes(word));
  return {
    ...pythonEnvironment(socket),
    VLLM_NO_USAGE_STATS: "1",
    VLLM_CONFIG_ROOT: join(own, "config"),
    TRITON_HOME: own,
    TORCHINDUCTOR_CACHE_DIR: join(own, "inductor"),
    FLASHINFER_WORKSPACE_BASE: own,
    CUDA_CACHE_PATH: join(own, "cuda"),
    // As the vendor's tool counts them.
    CUDA_DEVICE_ORDER: "PCI_BUS_ID",
    // Its processes find each other by it; looking for an address would ask the network.
    ...(isCluster ? {} : { VLLM_HOST_IP: "127.0.0.1" }),
  };
}
