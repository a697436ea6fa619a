/** Bundle and settings to the arguments of SGLang's server. Pure. */
import { dirname } from "node:path";

import type { ArgsInput, EngineCommand, WorkerSettings } from "../../src/runtime/backend.ts";
import { checkPythonFlags } from "../python/flags.ts";
import { gpuEnvironment, sharedBy, thinkingArgs } from "../python/gpu-engine.ts";
import { gpuIndexes, oneCacheType, refuse, trustArgs, whole } from "../python/settings.ts";
import { CACHE_TYPES, FLAGS, PARALLEL } from "./flag-table.ts";

/** A colon in a name would part a model from an adapter: this one has none. */
export const SERVED_MODEL = "served";
/** Of a draft whose length nobody says. Tokens. */
const DRAFT_TOKENS = 4;

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
  args.push(...trustArgs(settings, flags));
  // The last of several holds.
  args.push(...flags);
  return { args: [...launch, ...args], env: gpuEnvironment(input) };
}

// --- internal ---

/** Flags that say how large its cache is. */
const SIZES = ["--mem-fraction-static", "--max-total-tokens"];
/** A cache of no more than a context would hold one token less than it. */
const SPARE_TOKENS = 256;

function modeArgs({ bundle, mode, settings }: ArgsInput): readonly string[] {
  if (mode !== "completion") return ["--is-embedding"];
  const args: string[] = [];
  if (bundle.chatTemplate !== undefined) args.push("--chat-template", bundle.chatTemplate);
  // It finds out from the template which there are; flags that follow say otherwise.
  args.push("--tool-call-parser", "auto", "--reasoning-parser", "auto");
  return [...args, ...thinkingArgs("sglang", settings)];
}

/**
 * What decides how much memory it takes. Its own share is of what is free when it starts, which nobody knows before; so
 * it is told how many tokens its cache has, and takes no more.
 *
 * @see sglang/srt/mem_cache/kv_cache_configurator.py of 0.5.23
 */
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
  const isSaid = SIZES.some((name) => flags.includes(name));
  const isKnown = contextTokens !== undefined && contextTokens > 0;
  if (gpuShare !== undefined && isKnown && !isSaid) {
    args.push("--max-total-tokens", String(contextTokens + SPARE_TOKENS));
  }
  return args;
}

/** It takes GPUs that follow each other, which is how the plan chooses them. */
function deviceArgs(settings: WorkerSettings, flags: readonly string[]): readonly string[] {
  const [first] = gpuIndexes(settings.devices).toSorted((one, other) => one - other);
  if (first === undefined) return [];
  const args = ["--base-gpu-id", String(first)];
  const count = sharedBy(settings, flags, PARALLEL);
  return count <= 1 || flags.includes("--nnodes") ? args : [...args, "--tp-size", String(count)];
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
