/** What llama-server wrote before it died, as one sentence. Pure. */
import type { ExitFacts, ExitReason } from "../../src/runtime/backend.ts";

/** Characters of an engine's own line that are shown: it may quote a whole template or prompt. */
const QUOTE_LIMIT = 200;

const MIB = 1024 * 1024;

const MEMORY_HINT =
  "Give it a smaller context (`--ctx-size`), a smaller quantization, or unload other models with `tug unload --all`.";
const REMOTE_HINT =
  "See whether `tug rpc serve` runs there, with the same version of llama.cpp, or take it out of `rpc_servers`.";
const REPACKAGE_HINT = "Get the model file again and package it with `tug package`.";

interface Pattern {
  readonly match: RegExp;
  readonly reason: (found: RegExpMatchArray) => string;
  readonly hint?: string;
  readonly isOutOfMemory?: true;
}

/** First match wins: the specific causes come before the general complaints that follow them in the log. */
const PATTERNS: readonly Pattern[] = [
  {
    match: /cudaMalloc failed: out of memory|CUDA error: out of memory/,
    reason: () => "not enough GPU memory (CUDA)",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /ErrorOutOfDeviceMemory/,
    reason: () => "not enough GPU memory (Vulkan)",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /hipMalloc failed: out of memory|ROCm error: out of memory/,
    reason: () => "not enough GPU memory (ROCm)",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /insufficient memory \(attempted to allocate ([\d.]+) *MB\)/,
    reason: (found) => `not enough memory for a buffer of ${found[1]} MB`,
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /failed to allocate buffer, size = *([\d.]+) *MiB|unable to allocate (?:\S+ )?buffer/,
    reason: (found) =>
      found[1] === undefined
        ? "not enough memory"
        : `not enough memory for a buffer of ${found[1]} MiB`,
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match: /failed to allocate (?:\S+ )?buffer of size (\d+)/,
    reason: (found) => `not enough memory for a buffer of ${Math.ceil(Number(found[1]) / MIB)} MiB`,
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    // The allocator, mmap(2), the loader, and a thread whose stack found no place.
    match:
      /std::bad_alloc|failed to allocate buffer for kv cache|Cannot allocate memory|creating backtrace: mmap: 12|failed to map segment from shared object|std::system_error'\s+what\(\): +Resource temporarily unavailable/,
    reason: () => "not enough memory",
    hint: MEMORY_HINT,
    isOutOfMemory: true,
  },
  {
    match:
      /ErrorDeviceLost|no CUDA-capable device is detected|CUDA driver (?:version is insufficient|initialization failed)|hipErrorNoDevice|GPU is lost|no ROCm-capable device is detected/,
    reason: () => "the GPU is gone or does not answer",
    hint: "Check the GPU and its driver; `--gpu-layers 0` runs the model without it.",
  },
  {
    match: /unknown model architecture: '([^']*)'/,
    reason: (found) => `this llama.cpp does not know the architecture \`${found[1]}\``,
    hint: "Install a newer engine with `tug install-runner --version VERSION`.",
  },
  {
    match: /failed to load draft model/,
    reason: () => "the draft model cannot be loaded",
    hint: "Choose a draft model of the same family, or do without one.",
  },
  {
    match: /Failed to load CLIP model|failed to load multimodal model/,
    reason: () => "the multimodal projector cannot be loaded",
    hint: "Package the model with the projector that belongs to it (`--mmproj`).",
  },
  {
    match:
      /common_chat_templates_init: error: (.*)|failed to (?:initialize|apply) (?:chat )?template/,
    reason: (found) => `the chat template is invalid${found[1] ? `: ${quote(found[1])}` : ""}`,
    hint: "Package the model with a corrected template (`--chat-template`).",
  },
  {
    match: /model is corrupted or incomplete/,
    reason: () => "the model file is corrupt or incomplete",
    hint: REPACKAGE_HINT,
  },
  {
    match: /invalid magic characters/,
    reason: () => "the model file is not a GGUF file",
    hint: REPACKAGE_HINT,
  },
  {
    match: /failed to load GGUF split from (.*)/,
    reason: (found) => `a part of the model is missing: ${quote(found[1])}`,
    hint: REPACKAGE_HINT,
  },
  {
    match: /illegal split file idx/,
    reason: () => "the model does not start with its first part",
    hint: "Name the part that ends in -00001-of-N.",
  },
  {
    match: /failed to open GGUF file '(.*)' \((.*)\)/,
    reason: (found) => `cannot open ${quote(found[1])}: ${quote(found[2]).toLowerCase()}`,
  },
  {
    match: /error loading model: (.*)/,
    reason: (found) => quote(found[1]),
  },
  {
    match: /quantized V cache requires flash_attn|V cache quantization requires flash_attn/,
    reason: () => "a quantized cache of values needs flash attention",
    hint: "Leave out `--flash-attn off`, or set `--cache-type-v f16`.",
  },
  {
    match: /error while handling argument "([^"]*)": (.*)/,
    reason: (found) => `the engine refuses the flag \`${found[1]}\`: ${quote(found[2])}`,
    hint: "Correct the runtime flags of this model.",
  },
  {
    match: /error: invalid argument: (.*)/,
    reason: (found) => `this build of the engine does not know the flag \`${quote(found[1])}\``,
    hint: "Correct the runtime flags of this model.",
  },
  {
    match: /couldn't bind HTTP server socket/,
    reason: () => "the engine cannot listen on its socket",
    hint: "Check that the run directory exists, is writable and has a short path.",
  },
  {
    match: /(GGML_ASSERT\(.*?\) failed|Assertion .* failed)/,
    reason: (found) => `the engine stopped at a failed check: ${quote(found[1])}`,
    hint: "The model file may be malformed; otherwise try another version of the engine.",
  },
  {
    match: /error while loading shared libraries: (.*)|version [`']([^']*)' not found/,
    reason: (found) => `the engine does not fit this system: ${quote(found[1] ?? found[2])}`,
    hint: "Install one that does with `tug install-runner`.",
  },
  {
    match: /terminate called after throwing an instance of .*\s+what\(\): +(.*)/,
    reason: (found) => `the engine gave up: ${quote(found[1])}`,
  },
];

export function explainExit(facts: ExitFacts): ExitReason {
  const remote = explainRemote(facts);
  if (remote !== undefined) return remote;
  for (const { match, reason, hint, isOutOfMemory } of PATTERNS) {
    const found = match.exec(facts.stderrTail);
    if (found !== null) return { reason: reason(found), hint, isOutOfMemory };
  }
  const ended = howItEnded(facts);
  if (facts.signal === "SIGKILL" && facts.wasMemoryShort !== false) {
    const surely = facts.wasMemoryShort === true ? "" : "probably ";
    const reason = `${ended}, ${surely}by the system for lack of memory`;
    return { reason, hint: MEMORY_HINT, isOutOfMemory: true };
  }
  // Somebody else's doing: what it said last has nothing to do with it.
  if (facts.signal === "SIGKILL" || facts.signal === "SIGTERM") return { reason: ended };
  if (facts.signal === "SIGILL") {
    return {
      reason: `${ended}: this processor lacks an instruction that the engine needs`,
      hint: "Install another build with `tug install-runner --source apt`.",
    };
  }
  const line = lastComplaint(facts.stderrTail);
  return { reason: line === undefined ? ended : `${ended}: ${line}` };
}

// --- internal ---

/** The engine says which server it cannot reach, but not which one went away. */
function explainRemote({ stderrTail, remotes = [] }: ExitFacts): ExitReason | undefined {
  const unreached = /Failed to connect to (\S+)/.exec(stderrTail)?.[1];
  if (unreached !== undefined) {
    return { reason: `the RPC server ${quote(unreached)} does not answer`, hint: REMOTE_HINT };
  }
  if (/RPC not supported in this build/.test(stderrTail)) {
    return {
      reason: "this build of llama.cpp cannot compute on other machines",
      hint: "Install another with `tug install-runner`, or name no `rpc_servers`.",
    };
  }
  if (!/Remote RPC server crashed/.test(stderrTail)) return undefined;
  const [first = "that computed for it", ...others] = remotes;
  const which =
    others.length === 0
      ? `its RPC server ${first}`
      : `one of its RPC servers (${quote(remotes.join(", "))})`;
  return { reason: `${which} went away in the middle of its work`, hint: REMOTE_HINT };
}

function howItEnded({ exitCode, signal }: ExitFacts): string {
  if (signal !== null) return `the engine was ended by ${signal}`;
  return exitCode === null ? "the engine ended" : `the engine ended with exit code ${exitCode}`;
}

/** The last line marked as an error, else the last line; without llama.cpp's `0.00.028.925 E ` in front. */
function lastComplaint(stderr: string): string | undefined {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  const errors = lines.filter((line) => /^[\d.]+ E |error/i.test(line));
  const line = errors.at(-1) ?? lines.at(-1);
  return line === undefined ? undefined : quote(line.replace(/^[\d.]+ [EWID] /, ""));
}

function quote(text = ""): string {
  const trimmed = text.trim().replaceAll(/\s+/g, " ");
  return trimmed.length > QUOTE_LIMIT ? `${trimmed.slice(0, QUOTE_LIMIT)}…` : trimmed;
}
