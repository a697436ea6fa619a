/** Bundle and settings to the arguments of the server of diffusion pipelines, `serve.py`. Pure. */
import { AppError } from "../../src/errors.ts";
import type { ArgsInput, EngineCommand } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";

/** @throws invalid_request for a setting that it has nothing for */
export function diffusersArgs(input: ArgsInput): EngineCommand {
  const { bundle, settings, alias, socket, cores, variant = "cpu" } = input;
  refuse("lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  refuse("runtime flags", settings.runtimeFlags.length > 0);
  refuse("a draft model", settings.draft !== undefined);
  // A DDUF is one file, any other pipeline a directory of them.
  const model = bundle.format === "dduf" ? bundle.model : bundle.directory;
  const args = ["--socket", socket, "--model", model];
  // A name may begin like a flag.
  args.push(`--name=${alias}`, "--variant", variant, "--threads", String(cores));
  return { args, env: { ...pythonEnvironment(socket), DIFFUSERS_VERBOSITY: "error" } };
}

// --- internal ---

function refuse(what: string, isSet: boolean): void {
  if (!isSet) return;
  throw new AppError(
    "invalid_request",
    `cannot start diffusers with ${what}: it has nothing for them`,
    { hint: "Unset them with `tug configure MODEL --unset NAME`." },
  );
}
