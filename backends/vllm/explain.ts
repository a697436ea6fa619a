/** What vLLM wrote before it died, as one sentence. Pure. */
import type { ExitFacts, ExitReason } from "../../src/runtime/backend.ts";
import { explainGpuExit, type ExitPattern, MEMORY_HINT, quoted } from "../python/explain-gpu.ts";

/** @see vllm/v1/core/kv_cache_utils.py, vllm/v1/worker/utils.py, vllm/config/model.py of 0.32 */
const PATTERNS: readonly ExitPattern[] = [
  {
    match: /Free memory on device [^\n]*?\(([\d.]+)\/([\d.]+) GiB\) on startup/,
    reason: (found) =>
      `not enough GPU memory: others hold it, ${found[1]} of ${found[2]} GiB are free`,
    hint: "End what else uses the GPU, or unload other models with `tug unload --all`.",
    isOutOfMemory: true,
  },
  {
    match:
      /model's max seq len \((\d+)\)[^\n]*larger than the available KV cache memory[^\n]*?(?:maximum model length is (\d+)|$)/m,
    reason: (found) => {
      const instead = found[2] === undefined ? "" : `: ${found[2]} would`;
      return `a context of ${found[1]} tokens does not fit the GPU's memory${instead}`;
    },
    hint: "Give it a smaller context (`--ctx-size`), or set the runtime flag `--kv-cache-dtype fp8`.",
    isOutOfMemory: true,
  },
  {
    match: /No available memory for the cache blocks/,
    reason: () => "not enough GPU memory: the weights leave none for a context",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /max_model_len \((\d+)\) is greater than the derived max_model_len \([^\n]*?[=](\d+)/,
    reason: (found) =>
      `a context of ${found[1]} tokens is more than the model's own, which is ${found[2]}`,
    hint: "Give it a smaller one with `--ctx-size`.",
  },
  {
    match: /Failed to infer device type|Device string must not be empty/,
    reason: () => "it finds no GPU that it is made for",
    hint: "It needs an NVIDIA GPU with its driver; `tug engines` shows engines that do without.",
  },
  {
    match: /(--(?:tool-call|reasoning)-parser [^\n]{1,80}?) cannot be used with the tokenizer/,
    reason: (found) => `the model has not the words that \`${quoted(found[1])}\` looks for`,
    hint: "Set another with runtime flags, or `--no-enable-auto-tool-choice`.",
  },
  {
    match: /(?:Sleep mode|cumem allocator) is not supported on current platform/i,
    reason: () => "it cannot be put to sleep on this machine",
    hint: "Set the runtime flag `--no-enable-sleep-mode` for this model.",
  },
  {
    match: /quantization method (\S+) is not supported for the current GPU/i,
    reason: (found) => `this GPU is too old for ${quoted(found[1])} weights`,
    hint: "Use a model in another quantization.",
  },
];

/** The process that listens only repeats that the one that computes has failed. */
const ECHOES =
  /Engine core (?:initialization failed|proc)|EngineDeadError|EngineCore (?:failed to start|encountered a fatal)/;

export function explainVllmExit(facts: ExitFacts): ExitReason {
  return explainGpuExit(facts, { engine: "vllm", patterns: PATTERNS, echoes: ECHOES });
}
