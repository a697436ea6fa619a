/** Bundle and settings to the arguments of `vllm serve`. Pure. */
import { dirname, join } from "node:path";

import type { ArgsInput, EngineCommand, WorkerSettings } from "../../src/runtime/backend.ts";
import { checkPythonFlags } from "../python/flags.ts";
import { gpuEnvironment, MAX_GPU_SHARE, sharedBy, thinkingArgs } from "../python/gpu-engine.ts";
import { gpuIndexes, oneCacheType, refuse, trustArgs, whole } from "../python/settings.ts";
import { CACHE_TYPES, FLAGS, longName, PARALLEL } from "./flag-table.ts";
import { parsersFor } from "./parsers.ts";

/** It answers to the names that it was told, and to no other. */
export const SERVED_MODEL = "served";
/** Of a draft whose length nobody says. @see vllm/config/speculative.py: it has no default for such drafts */
const DRAFT_TOKENS = 5;

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
  args.push(...deviceArgs(input, flags));
  args.push(...sleepArgs(input));
  args.push(...draftArgs(settings));
  args.push(...trustArgs(settings, flags));
  // The last of several holds.
  args.push(...flags);
  return { args, env: environment(input, flags) };
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
  args.push(...thinkingArgs("vllm", settings));
  return args;
}

/** What decides how much memory it takes. It takes all of its share at once, and keeps it. */
function sizeArgs(input: ArgsInput, flags: readonly string[]): readonly string[] {
  const { bundle, settings, gpuShare, cacheBytes } = input;
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
  // On a processor the share would be one of main memory: nine tenths of it, unless said.
  if (cacheBytes !== undefined && !isSaid) args.push("--kv-cache-memory-bytes", String(cacheBytes));
  return args;
}

/** The plan has chosen GPUs that the model can be shared out to evenly. */
function deviceArgs({ settings, cluster }: ArgsInput, flags: readonly string[]): readonly string[] {
  const gpus = gpuIndexes(settings.devices);
  // Which ones of its machines it uses a cluster decides itself.
  if (cluster !== undefined) return ["--distributed-executor-backend", "ray"];
  if (gpus.length === 0) return [];
  const args = ["--device-ids", gpus.join(",")];
  const count = sharedBy(settings, flags.map(longName), PARALLEL);
  return count <= 1 || flags.some((flag) => NODES.has(flag))
    ? args
    : [...args, "--tensor-parallel-size", String(count)];
}

/** How many machines take part, which flags may say. */
const NODES: ReadonlySet<string> = new Set(["--nnodes", "-n"]);

/** @see vllm/v1/worker/gpu_worker.py, sleep: level 1 */
function sleepArgs({ sleeps }: ArgsInput): readonly string[] {
  return sleeps === true ? ["--enable-sleep-mode"] : [];
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

function environment(input: ArgsInput, flags: readonly string[]): Readonly<Record<string, string>> {
  const { socket, cacheDirectory, cluster, sleeps } = input;
  const own = dirname(socket);
  const isMany = ["--nnodes", "-n", "--master-addr", "ray"].some((word) => flags.includes(word));
  return {
    ...gpuEnvironment(input),
    VLLM_NO_USAGE_STATS: "1",
    VLLM_CONFIG_ROOT: join(own, "config"),
    VLLM_CACHE_ROOT: join(cacheDirectory ?? own, "vllm"),
    // The requests that put it to sleep are part of this; nobody but the runner reaches them.
    ...(sleeps === true ? { VLLM_SERVER_DEV_MODE: "1" } : {}),
    ...(cluster === undefined ? {} : { RAY_ADDRESS: cluster }),
    // Its processes find each other by it; looking for an address would ask the network.
    ...(isMany || cluster !== undefined ? {} : { VLLM_HOST_IP: "127.0.0.1" }),
  };
}
