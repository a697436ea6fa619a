/** Bundle and settings to the arguments of mlx_lm's server. Pure. */
import { dirname } from "node:path";
import type { ArgsInput, EngineCommand } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";
import { ownTemplate, refuse, trustArgs } from "../python/settings.ts";

/** What its server calls the model that it was started with. */
export const SERVED_MODEL = "default_model";
/** Beside its socket, where the model is not the directory that was packaged. */
const MODEL_LINK = "model";
/** Its health is good before it has read the model: only an answer shows that it has. */
const FIRST_REQUEST = { model: SERVED_MODEL, prompt: "a", max_tokens: 1 };
/** An answer to which nobody sets an end, of a model that does not say how long its context is. Tokens. */
const DEFAULT_MAX_TOKENS = 4096;

/**
 * @throws invalid_request for a setting that it has nothing for
 * @see https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/SERVER.md
 */
export function mlxArgs({ bundle, settings, socket, variant }: ArgsInput): EngineCommand {
  refuse("mlx", "lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  refuse("mlx", "runtime flags", settings.runtimeFlags.length > 0);
  const { contextTokens = bundle.contextTokens ?? -1, parallel, draft } = settings;
  const maxTokens = contextTokens > 0 ? contextTokens : DEFAULT_MAX_TOKENS;
  const template = ownTemplate(bundle);
  const path = template === undefined ? bundle.directory : MODEL_LINK;
  const args = ["-m", "mlx_lm", "server", "--model", path];
  args.push("--host", "127.0.0.1", "--port", "{port}", "--max-tokens", String(maxTokens));
  if (parallel !== undefined) {
    const count = String(parallel);
    args.push("--decode-concurrency", count, "--prompt-concurrency", count);
    // What is kept of conversations that nobody continues is not counted as the model's memory.
    args.push("--prompt-cache-size", count);
  }
  if (draft !== undefined) {
    // It opens directories; that of a draft is named by its first file.
    args.push("--draft-model", dirname(draft.model));
    if (draft.maxTokens !== undefined) args.push("--num-draft-tokens", String(draft.maxTokens));
  }
  args.push(...trustArgs(settings));
  const launch = ["--socket", socket, "--ready", "/health"];
  if (template !== undefined)
    launch.push("--link", MODEL_LINK, bundle.directory, "--template", template);
  const warmUp = ["--warm-up", "/v1/completions", JSON.stringify(FIRST_REQUEST)];
  return {
    args: [...launch, ...warmUp, "--", ...args],
    env: { ...pythonEnvironment(socket), ...toCompile(variant) },
  };
}

// --- internal ---

/** On processors MLX would write C++ for each model and look for a compiler: seconds a start, for no more tokens. */
function toCompile(variant: string | undefined): Readonly<Record<string, string>> {
  return variant === "cpu" ? { MLX_DISABLE_COMPILE: "1" } : {};
}
