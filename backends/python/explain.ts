/** What a Python engine wrote before it died, as one sentence. Pure. */
import { stripVTControlCharacters } from "node:util";
import type { ExitFacts, ExitReason } from "../../src/runtime/backend.ts";

/** Characters of an engine's own line that are shown: it may quote a whole template or prompt. */
const QUOTE_LIMIT = 200;

/** Characters of a line that are looked at: patterns take long over endless ones. */
const LINE_LIMIT = 2000;

const MEMORY_HINT = "Unload other models with `tug unload --all`, or use a smaller model.";

/** Of Python, numpy, PyTorch, MLX, ONNX, the C++ library and GPUs' drivers. */
const MEMORY =
  /MemoryError\b|out of memory|can(?:no|')t allocate memory|bad_alloc|OutOfMemory|insufficient memory|unable to allocate|failed to allocate memory|attempting to allocate \d+ bytes/i;

interface Hint {
  readonly match: RegExp;
  readonly reason?: (found: RegExpMatchArray) => string;
  readonly hint: string;
}

const OTHER_ENGINE = "Another engine may know it: `tug engines` shows which there are.";

/** First match wins: what a model lacks is often reported as a module that was not found, too. */
const HINTS: readonly Hint[] = [
  {
    // What logs say of the setting itself is not meant: only errors put it into quotes.
    match: /`trust_remote_code\s*=\s*True`/,
    reason: () => "the model comes with code of its own, which is not run",
    hint: "If you trust whoever made it, allow it with `tug configure MODEL --trust-remote-code`; or use the same model as GGUF.",
  },
  {
    match: /Model type (\S+) not supported|has model type `([^`]+)` but Transformers does not/,
    reason: ([, one = "", other = one]) => `it does not know the architecture \`${quote(other)}\``,
    hint: OTHER_ENGINE,
  },
  {
    match: /Model architectures \['?([^'\]\n]+)'?.*\] (?:are not|failed)/,
    reason: ([, name]) => `it does not know the architecture \`${quote(name)}\``,
    hint: OTHER_ENGINE,
  },
  {
    match: /No module named '?([\w.]+)/,
    reason: ([, name]) => `its Python lacks \`${quote(name)}\``,
    hint: "Install the engine again with `tug install-runner --backend NAME`.",
  },
  {
    match: /GLIBC_[\d.]+' not found|GLIBCXX_[\d.]+' not found/,
    reason: () => "this system's C library is too old for it",
    hint: "Use a newer system, or another engine: `tug engines` shows which there are.",
  },
  {
    match: /No space left on device/,
    reason: () => "the disk is full",
    hint: "Free some space: `tug df` shows what takes it.",
  },
  {
    match: /No safetensors found|HeaderTooLarge|SafetensorError|Missing \d+ parameters/,
    hint: "Get the model again, or package it again with `tug package`.",
  },
];

export function explainPythonExit(facts: ExitFacts): ExitReason {
  const lines = meaningful(facts.stderrTail);
  const text = lines.join("\n");
  if (MEMORY.test(text)) {
    return { reason: "not enough memory", isOutOfMemory: true, hint: MEMORY_HINT };
  }
  for (const { match, reason, hint } of HINTS) {
    const found = match.exec(text);
    if (found !== null)
      return { reason: reason?.(found) ?? lastWords(lines) ?? howItEnded(facts), hint };
  }
  return explainEnd(facts, lastWords(lines));
}

// --- internal ---

/** @param said what the engine complained of */
function explainEnd(facts: ExitFacts, said: string | undefined): ExitReason {
  const ended = howItEnded(facts);
  if (wasKilled(facts) && facts.wasMemoryShort !== false) {
    const surely = facts.wasMemoryShort === true ? "" : "probably ";
    const reason = `${ended}, ${surely}by the system for lack of memory`;
    return { reason, isOutOfMemory: true, hint: MEMORY_HINT };
  }
  // Somebody else's doing: what it said last has nothing to do with it.
  if (wasKilled(facts) || facts.signal === "SIGTERM") return { reason: ended };
  if (facts.signal === "SIGILL") {
    return { reason: `${ended}: this processor lacks an instruction that the engine needs` };
  }
  // A fault of its code, not of its input: that it died of it matters, too.
  if (facts.signal !== null) {
    return { reason: said === undefined ? ended : `${ended}: ${said}` };
  }
  return { reason: said ?? ended };
}

/** What engines say all the while, and what only says that something was said. */
const NOISE = new RegExp(
  [
    String.raw`^\s*$`,
    "^Traceback ",
    "^-{3,}",
    "^(?:During handling|The above exception)",
    // Web servers.
    String.raw`^\d{1,3}(?:\.\d{1,3}){3} - - `,
    // Logs.
    String.raw`^(?:INFO|DEBUG|WARNING)\b`,
    String.raw`^\d{4}-\d\d-\d\d .* - (?:INFO|DEBUG|WARNING)\b`,
    String.raw`^\S+\.py:\d+: \w*Warning: `,
    // Progress.
    String.raw`\d%\|`,
    // What comes with a fault of the process.
    "^(?:Current thread|Thread 0x|Extension modules:|Killed$|Aborted$|terminate called after)",
  ].join("|"),
);

function meaningful(text: string): readonly string[] {
  const lines = stripVTControlCharacters(text).split(/\r\n|[\r\n]/);
  return lines
    .map((line) => line.slice(0, LINE_LIMIT).trimEnd())
    .filter((line) => !NOISE.test(line));
}

/** The last that says what went wrong; without one the last line that says anything. */
function lastWords(lines: readonly string[]): string | undefined {
  const said = lines.findLast((line) => complaintIn(line) !== undefined);
  if (said !== undefined) return quote(complaintIn(said));
  // Frames of a traceback are indented, and so is the code that they quote.
  const other = lines.findLast((line) => /^\S/.test(line));
  return other === undefined ? undefined : quote(other.replace(/^launch: /, ""));
}

/** The last line of a traceback: `module.Error: text`. */
const EXCEPTION =
  /^(?:[\w.]+\.)?(?<kind>\w*(?:Error|Exception|Interrupt|NotFound)\w*)(?::\s*(?<text>.*))?$/;

/** Exceptions that say no more than their text. */
const PLAIN: ReadonlySet<string> = new Set(["RuntimeError", "ValueError", "Exception", "Error"]);

/** Says that the cause is another one. */
const POINTER = /see (?:the )?(?:root cause|stack trace|logs?|error)s? above/i;

const FAULTS: readonly RegExp[] = [
  // C++.
  /^\s+what\(\):\s*(.+)/,
  /^Fatal Python error: (.+)/,
  // A flag that it does not have.
  /^\S+: error: (.+)/,
];

function complaintIn(line: string): string | undefined {
  const fault = FAULTS.map((pattern) => pattern.exec(line)?.[1]).find((text) => text !== undefined);
  if (fault !== undefined) return fault;
  const found = POINTER.test(line) ? undefined : EXCEPTION.exec(line)?.groups;
  const { kind, text = "" } = found ?? {};
  if (kind === undefined) return undefined;
  if (text === "") return kind;
  return PLAIN.has(kind) || text.startsWith("[Errno ") ? text : `${kind}: ${text}`;
}

/** Shells say it with a number. */
function wasKilled({ signal, exitCode }: ExitFacts): boolean {
  return signal === "SIGKILL" || exitCode === 137;
}

function howItEnded(facts: ExitFacts): string {
  const { signal, exitCode } = facts;
  if (signal !== null || wasKilled(facts)) return `the engine was ended by ${signal ?? "SIGKILL"}`;
  return exitCode === null ? "the engine ended" : `the engine ended with exit code ${exitCode}`;
}

function quote(text = ""): string {
  const trimmed = text.trim().replaceAll(/\s+/g, " ").replace(/\.$/, "");
  return trimmed.length > QUOTE_LIMIT ? `${trimmed.slice(0, QUOTE_LIMIT)}…` : trimmed;
}
