/** Bundle and settings to the arguments of the server of ONNX models, `serve.py`. Pure. */
import type { ArgsInput, EngineCommand } from "../../src/runtime/backend.ts";
import { pythonEnvironment } from "../python/environment.ts";
import { refuse } from "../python/settings.ts";

/** @throws invalid_request for a setting that it has nothing for */
export function onnxArgs(input: ArgsInput): EngineCommand {
  const { bundle, mode, settings, alias, socket, cores } = input;
  refuse("onnx", "lora", (settings.adapters ?? bundle.adapters ?? []).length > 0);
  refuse("onnx", "runtime flags", settings.runtimeFlags.length > 0);
  refuse("onnx", "a draft model", settings.draft !== undefined);
  const { contextTokens = bundle.contextTokens ?? -1, parallel } = settings;
  const args = ["--socket", socket, "--model", bundle.directory, "--mode", mode];
  // A name may begin like a flag.
  args.push(`--name=${alias}`, "--threads", String(cores));
  if (contextTokens > 0) args.push("--context", String(contextTokens));
  if (parallel !== undefined) args.push("--parallel", String(parallel));
  if (bundle.chatTemplate !== undefined) args.push("--chat-template", bundle.chatTemplate);
  return { args, env: { ...pythonEnvironment(socket), ORT_DISABLE_TELEMETRY: "1" } };
}
