/** What engines of PyTorch on GPUs wrote before they died, as one sentence: what vLLM and SGLang have in common. Pure. */
import type { ExitFacts, ExitReason } from "../../src/runtime/backend.ts";
import { explainPythonExit } from "./explain.ts";

export interface ExitPattern {
  readonly match: RegExp;
  readonly reason: (found: RegExpMatchArray) => string;
  readonly hint: string;
  readonly isOutOfMemory?: true;
}

export interface ExplainOptions {
  /** For people. */
  readonly engine: string;
  /** The engine's own, looked for before those that all have. */
  readonly patterns: readonly ExitPattern[];
  /** Lines that only say that something else went wrong. */
  readonly echoes: RegExp;
}

/** Characters of an engine's own words that are shown. */
const QUOTE_LIMIT = 120;

export const MEMORY_HINT =
  "Give it a smaller context (`--ctx-size`), a quantized model, or unload other models with `tug unload --all`.";
const DRIVER_HINT = "Update the NVIDIA driver, or use another engine: `tug engines` shows them.";
const OTHER_HINT = "Another engine may run it: `tug engines` shows which there are.";

export function explainGpuExit(facts: ExitFacts, options: ExplainOptions): ExitReason {
  const stderrTail = withoutPrefixes(facts.stderrTail, options.echoes);
  for (const pattern of [...options.patterns, ...PATTERNS]) {
    const found = pattern.match.exec(stderrTail);
    if (found === null) continue;
    const { reason, hint, isOutOfMemory } = pattern;
    return { reason: reason(found), hint: hint.replace("NAME", options.engine), isOutOfMemory };
  }
  return explainPythonExit({ ...facts, stderrTail });
}

export function quoted(text = ""): string {
  const plain = text.trim().replaceAll(/\s+/g, " ").replace(/\.$/, "");
  return plain.length > QUOTE_LIMIT ? `${plain.slice(0, QUOTE_LIMIT)}…` : plain;
}

// --- internal ---

/**
 * Which process says it, when, and from where: `(EngineCore pid=7) ERROR 11-21 20:00:00 [core.py:1] `,
 * `[2026-11-21 20:00:00 TP0] `.
 */
const PREFIX =
  /^(?:\([A-Za-z]\w*[^()\n]{0,40}\) ?)?(?:(?:ERROR|WARNING|INFO|DEBUG|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]\n]{0,120}\] ?)?|\[\d{4}-\d\d-\d\d[^\]\n]{0,60}\] ?)?/;

function withoutPrefixes(text: string, echoes: RegExp): string {
  return text
    .split("\n")
    .map((line) => line.replace(PREFIX, ""))
    .filter((line) => !echoes.test(line))
    .join("\n");
}

/** First match wins: causes before what follows from them. */
const PATTERNS: readonly ExitPattern[] = [
  {
    match: /Model architectures \[([^\]\n]{1,200})\] (?:are not supported|failed to be inspected)/,
    reason: (found) => `it does not know the architecture ${quoted(found[1])}`,
    hint: OTHER_HINT,
  },
  {
    match: /CUDA out of memory\.(?: Tried to allocate ([\d.]+ [KMG]iB))?/,
    reason: (found) =>
      found[1] === undefined ? "not enough GPU memory" : `not enough GPU memory for ${found[1]}`,
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /CUDA error: out of memory|cudaErrorMemoryAllocation|HIP out of memory/,
    reason: () => "not enough GPU memory",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /NVIDIA driver on your system is too old \(found version (\d+)\)/,
    reason: (found) => `the NVIDIA driver is too old: it knows CUDA ${cudaOf(found[1])}`,
    hint: DRIVER_HINT,
  },
  {
    match: /CUDA driver version is insufficient|cudaErrorInsufficientDriver/,
    reason: () => "the NVIDIA driver is too old",
    hint: DRIVER_HINT,
  },
  {
    match:
      /no kernel image is available for execution|compute capability ([\d.]+)[^\n]*not compatible/,
    reason: () => "this GPU is too old for it",
    hint: OTHER_HINT,
  },
  {
    match: /Bfloat16 is only supported on GPUs with compute capability/,
    reason: () => "this GPU has no bfloat16, which the model is in",
    hint: "Set the runtime flag `--dtype half` for this model.",
  },
  {
    match:
      /Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device|Torch not compiled with CUDA|libcuda\.so\.1: cannot open/,
    reason: () => "it finds no NVIDIA GPU",
    hint: "It needs one with its driver; `tug engines` shows engines that do without.",
  },
  {
    match:
      /NCCL error[^\n:]*: ([^\n,]+)|(ncclUnhandledCudaError|ncclSystemError|ncclInternalError)/,
    reason: (found) => `its GPUs cannot talk to each other (NCCL: ${quoted(found[1] ?? found[2])})`,
    hint: "Let it use one GPU with the runtime flag `--tensor-parallel-size 1`, or check the driver.",
  },
  {
    match: /model type `([^`\n]{1,80})` but Transformers does not recognize/,
    reason: (found) => `it does not know the architecture \`${found[1]}\``,
    hint: OTHER_HINT,
  },
  {
    // As errors write it; at their start engines log what they were told of it, too.
    match: /`(?:trust_remote_code=True|--trust-remote-code)`/,
    reason: () => "the model comes with code of its own, which is not run",
    hint: "If you trust whoever made it, allow it with `tug configure MODEL --trust-remote-code`.",
  },
  {
    match: /attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)/,
    reason: (found) => `its ${found[1]} heads cannot be shared out to ${found[2]} GPUs`,
    hint: "Set the runtime flag `--tensor-parallel-size` to a number that divides them.",
  },
  {
    match: /Failed to find C compiler|gcc: (?:error|fatal error)[^\n]*/,
    reason: () => "it compiles parts of itself for this GPU, and there is no C compiler",
    hint: "Install gcc with your system's packages.",
  },
  {
    match: /error: (?:unrecognized arguments: ([^\n]+)|argument ([^\s:]+): ([^\n]+))/,
    reason: (found) =>
      found[1] === undefined
        ? `this version of it refuses the flag \`${quoted(found[2])}\`: ${quoted(found[3])}`
        : `this version of it does not know \`${quoted(found[1])}\``,
    hint: "Correct the runtime flags of this model, or install the version that Tug brings.",
  },
  {
    match:
      /No module named '?([\w.]{1,80})|(undefined symbol): |ImportError: ([^\s:]{1,80}): cannot open shared object/,
    reason: (found) =>
      found[2] === undefined
        ? `its Python lacks \`${found[1] ?? found[3]}\``
        : "parts of it do not belong together",
    hint: "Install it again with `tug install-runner --backend NAME`.",
  },
];

/** `12020` is 12.2. */
function cudaOf(version = ""): string {
  const number = Number(version);
  return `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}`;
}
