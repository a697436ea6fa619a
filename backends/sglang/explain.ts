/** What SGLang wrote before it died, as one sentence. Pure. */
import type { ExitFacts, ExitReason } from "../../src/runtime/backend.ts";
import { explainGpuExit, type ExitPattern, MEMORY_HINT } from "../python/explain-gpu.ts";

/** @see sglang/srt/model_executor/pool_configurator.py, sglang/srt/configs/model_config.py of 0.5.23 */
const PATTERNS: readonly ExitPattern[] = [
  {
    match: /Not enough memory\. Please try to increase --mem-fraction-static/,
    reason: () => "not enough GPU memory: the weights leave none for a context",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /context_length \((\d+)\) is greater than the derived context_length \((\d+)\)/,
    reason: (found) =>
      `a context of ${found[1]} tokens is more than the model's own, which is ${found[2]}`,
    hint: "Give it a smaller one with `--ctx-size`.",
  },
  {
    match: /No accelerator[^\n]*is available|No supported accelerator/i,
    reason: () => "it finds no GPU that it is made for",
    hint: "It needs an NVIDIA GPU with its driver; `tug engines` shows engines that do without.",
  },
];

/** The process that listens only repeats that one of the others has failed. */
const ECHOES =
  /Received sigquit from a child process|Rank \d+ scheduler (?:died|is dead)|Scheduler hit an exception|is still supported, but/;

export function explainSglangExit(facts: ExitFacts): ExitReason {
  return explainGpuExit(facts, { engine: "sglang", patterns: PATTERNS, echoes: ECHOES });
}
