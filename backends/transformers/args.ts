/** Bundle and settings to the arguments of `transformers serve`. Pure. */
import type { ArgsInput, EngineCommand } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";
import { ownTemplate, refuse, trustArgs } from "../python/settings.ts";
import { ANSWERS } from "./answers.ts";

/** It answers to the path of the model that it was started with: a link beside its socket makes that a short one. */
export const SERVED_MODEL = "served";
/**
 * It looks for the model's class among its own, by this name, and would not find one that comes with the model: the class
 * that goes by `auto_map` does.
 *
 * @see https://github.com/huggingface/transformers/blob/main/src/transformers/cli/serving/model_manager.py (_load_model)
 */
const BY_AUTO_MAP = { architectures: ["AutoModelForCausalLM"] };
const FIRST_REQUEST = { model: SERVED_MODEL, prompt: "a", max_tokens: 1 };

/**
 * @throws invalid_request for a setting that it has nothing for
 * @see https://huggingface.co/docs/transformers/serve-cli/serving
 */
export function transformersArgs({ bundle, settings, socket }: ArgsInput): EngineCommand {
  refuse("transformers", "lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  refuse("transformers", "runtime flags", settings.runtimeFlags.length > 0);
  refuse("transformers", "a draft model", settings.draft !== undefined);
  const args = ["-m", "transformers.cli.transformers", "serve", SERVED_MODEL];
  args.push("--host", "127.0.0.1", "--port", "{port}", ...trustArgs(settings));
  const launch = ["--socket", socket, "--ready", "/health"];
  launch.push("--link", SERVED_MODEL, bundle.directory, "--answers", JSON.stringify(ANSWERS));
  if (settings.trustsCode === true) launch.push("--config", JSON.stringify(BY_AUTO_MAP));
  const template = ownTemplate(bundle);
  if (template !== undefined) launch.push("--template", template);
  const warmUp = ["--warm-up", "/v1/completions", JSON.stringify(FIRST_REQUEST)];
  return { args: [...launch, ...warmUp, "--", ...args], env: pythonEnvironment(socket) };
}
