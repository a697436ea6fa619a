/** Bundle and settings to the arguments of `transformers serve`. Pure. */
import { AppError } from "../../src/errors.ts";
import type { ArgsInput, EngineCommand } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";

/** It answers to the path of the model that it was started with: a link beside its socket makes that a short one. */
export const SERVED_MODEL = "served";
const FIRST_REQUEST = { model: SERVED_MODEL, prompt: "a", max_tokens: 1 };

/**
 * @throws invalid_request for a setting that it has nothing for
 * @see https://huggingface.co/docs/transformers/serve-cli/serving
 */
export function transformersArgs({ bundle, settings, socket }: ArgsInput): EngineCommand {
  refuse("lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  refuse("runtime flags", settings.runtimeFlags.length > 0);
  refuse("a draft model", settings.draft !== undefined);
  const args = ["-m", "transformers.cli.transformers", "serve", SERVED_MODEL];
  args.push("--host", "127.0.0.1", "--port", "{port}");
  const launch = [
    "--socket",
    socket,
    "--ready",
    "/health",
    "--link",
    SERVED_MODEL,
    bundle.directory,
  ];
  const warmUp = ["--warm-up", "/v1/completions", JSON.stringify(FIRST_REQUEST)];
  return { args: [...launch, ...warmUp, "--", ...args], env: pythonEnvironment(socket) };
}

// --- internal ---

function refuse(what: string, isSet: boolean): void {
  if (!isSet) return;
  throw new AppError(
    "invalid_request",
    `cannot start transformers with ${what}: it has nothing for them`,
    { hint: "Unset them with `tug configure MODEL --unset NAME`, or use another engine." },
  );
}
