/** Bundle and settings to the arguments of llama-server. Pure. */
import { AppError } from "../../src/errors.ts";
import {
  type ArgsInput,
  type EngineCommand,
  type Mode,
  REQUESTS_A_SLOT,
  type WorkerSettings,
} from "../../src/runtime/backend.ts";
import { CACHE_TYPES } from "./flag-table.ts";
import { checkFlags } from "./flags.ts";
import { NO_BACKTRACE, rpcArgs } from "./rpc.ts";

/**
 * Tokens per physical batch in the modes that need a whole input in one batch: llama-server refuses a longer input
 * there, and its own default of 512 is shorter than what most embedding models accept.
 */
const POOLED_BATCH_TOKENS = 2048;

/** @see llama.cpp src/llama-cparams.h: LLAMA_MAX_SEQ */
const MAX_SLOTS = 256;
const ALL_LAYERS = 999;
const MAX_INT32 = 2 ** 31 - 1;

/**
 * @throws usage for a setting out of range; invalid_request for a flag that Tug sets itself, that could write files or
 *   open the network, or that is unknown, and for a value that a flag does not take
 * @see https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
 */
export function llamacppArgs(input: ArgsInput): EngineCommand {
  const { bundle, settings } = input;
  const flags = checkFlags(settings.runtimeFlags);
  const args = ["--metrics", "--threads", String(threads(input.cores))];
  args.push("--model", bundle.model, "--host", socketArgument(input.socket));
  // A comma would make it two names.
  args.push("--alias", input.alias.replaceAll(",", "_"));
  args.push(...modeArgs(input.mode));
  if (input.mode === "completion") args.push(...templateArgs(bundle, flags));
  if (settings.reasoningBudget !== undefined) {
    args.push("--reasoning-budget", String(integer("reasoning budget", settings.reasoningBudget)));
  }
  args.push(...contextArgs(settings.contextTokens ?? bundle.contextTokens));
  args.push(...memoryArgs(settings));
  args.push(...rpcArgs(settings.remotes), ...flags);
  if (bundle.mmproj !== undefined && input.mode === "completion" && !names(flags, "--mmproj -mm")) {
    args.push("--mmproj", bundle.mmproj);
  }
  args.push(...adapterArgs([...(bundle.adapters ?? []), ...(settings.adapters ?? [])]));
  args.push(...draftArgs(settings));
  return { args, env: environment(input) };
}

// --- internal ---

/**
 * One processor is left to everything else: ggml's threads spin at barriers, and with as many threads as processors
 * any other load makes them wait for one another.
 */
function threads(cores: number): number {
  return Math.max(1, Math.floor(cores) - 1);
}

/** llama-server takes a host that ends in `.sock` for a unix socket, and a comma for the start of another host. */
function socketArgument(socket: string): string {
  if (socket.endsWith(".sock") && !socket.includes(",")) return socket;
  throw new AppError(
    "usage",
    `cannot listen on \`${socket}\`: llama-server needs a name in .sock`,
    {
      hint: "Choose a TUG_HOME without commas in its path.",
    },
  );
}

function modeArgs(mode: Mode): readonly string[] {
  const batch = String(POOLED_BATCH_TOKENS);
  const pooled = ["--batch-size", batch, "--ubatch-size", batch];
  if (mode === "completion") return ["--jinja"];
  const kind = mode === "reranking" ? ["--embeddings", "--reranking"] : ["--embeddings"];
  return [...kind, ...pooled];
}

/** A template that the flags name stands instead of the packaged one. */
function templateArgs({ chatTemplate }: ArgsInput["bundle"], flags: readonly string[]): string[] {
  if (chatTemplate === undefined || names(flags, "--chat-template-file --chat-template")) return [];
  return ["--chat-template-file", chatTemplate];
}

function names(flags: readonly string[], candidates: string): boolean {
  return candidates.split(" ").some((name) => flags.includes(name));
}

/** Each connection takes a thread; so many are left for questions after its health and metrics. */
const SPARE_CONNECTIONS = 4;

/** What decides how much memory it takes, besides the context. */
function memoryArgs({
  parallel,
  gpuLayers,
  cacheTypeK,
  cacheTypeV,
  promptCacheMiB,
  contextCheckpoints,
}: WorkerSettings): readonly string[] {
  const args: string[] = [];
  if (parallel !== undefined) {
    // Without one shared cache each slot gets an equal share of the context.
    args.push("--parallel", String(within("slots", parallel, [1, MAX_SLOTS])), "--kv-unified");
    args.push("--threads-http", String(REQUESTS_A_SLOT * parallel + SPARE_CONNECTIONS));
  }
  if (gpuLayers !== undefined) args.push("--n-gpu-layers", String(layers(gpuLayers)));
  if (cacheTypeK !== undefined) args.push("--cache-type-k", cacheType(cacheTypeK));
  if (cacheTypeV !== undefined) args.push("--cache-type-v", cacheType(cacheTypeV));
  if (promptCacheMiB !== undefined) {
    args.push("--cache-ram", String(within("prompt cache", promptCacheMiB, [0, MAX_INT32])));
  }
  if (contextCheckpoints !== undefined) {
    const count = within("context checkpoints", contextCheckpoints, [0, MAX_INT32]);
    args.push("--ctx-checkpoints", String(count));
  }
  return args;
}

/** Builds before the word `all` take a number beyond any model's layers for it. */
function layers(gpuLayers: number): number {
  return gpuLayers === -1 ? ALL_LAYERS : within("GPU layers", gpuLayers, [0, MAX_INT32]);
}

function cacheType(type: string): string {
  if (CACHE_TYPES.of.includes(type)) return type;
  throw new AppError("invalid_request", `cannot use the cache type \`${type.slice(0, 80)}\``, {
    hint: `Use one of ${CACHE_TYPES.of.join(", ")}.`,
  });
}

/** Without `--ctx-size` the engine takes the model's own maximum, or the largest that fits the device. */
function contextArgs(tokens: number | undefined): readonly string[] {
  if (tokens === undefined) return [];
  integer("context size", tokens);
  // llama-server spells "the model's own maximum" 0.
  if (tokens === -1) return ["--ctx-size", "0"];
  if (tokens > 0) return ["--ctx-size", String(tokens)];
  throw invalid("context size", tokens, "Give a positive number of tokens, or -1 for the maximum.");
}

function draftArgs({ draft }: WorkerSettings): readonly string[] {
  if (draft === undefined) return [];
  const args = ["--model-draft", draft.model];
  if (draft.maxTokens !== undefined) {
    args.push("--spec-draft-n-max", String(integer("draft length", draft.maxTokens)));
  }
  if (draft.minProbability !== undefined) {
    if (!(draft.minProbability >= 0 && draft.minProbability <= 1)) {
      throw invalid("draft probability", draft.minProbability, "Give a number from 0 to 1.");
    }
    args.push("--spec-draft-p-min", draft.minProbability.toFixed(2));
  }
  return args;
}

/** One flag with a list: llama-server takes commas for separators, and quotes for what keeps them in a name. */
function adapterArgs(adapters: readonly string[]): readonly string[] {
  if (adapters.length === 0) return [];
  return ["--lora", adapters.map((path) => (path.includes(",") ? `"${path}"` : path)).join(",")];
}

/** Variables rather than flags: a build that does not know a variable ignores it, but it refuses an unknown flag. */
function environment({ platform, settings }: ArgsInput): Readonly<Record<string, string>> {
  const quiet = settings.remotes === undefined ? {} : NO_BACKTRACE;
  const env = { LLAMA_ARG_OFFLINE: "1", ...quiet };
  if (platform !== "darwin") return env;
  // With Metal a mapped file is resident twice, once as file cache and once as device buffer.
  return { ...env, LLAMA_ARG_LOAD_MODE: "none", LLAMA_ARG_MMAP: "0" };
}

function integer(what: string, value: number): number {
  if (Number.isSafeInteger(value)) return value;
  throw invalid(what, value, "Give a whole number.");
}

function within(what: string, value: number, [min, max]: readonly [number, number]): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw invalid(what, value, `Give a whole number from ${min} to ${max}.`);
}

function invalid(what: string, value: number, hint: string): AppError {
  return new AppError("usage", `cannot use ${what} ${value}: it is out of range`, { hint });
}
