/** The bytes of log files as lines that know when they were written and about which model. Pure. */
import { displayReference } from "../oci/reference.ts";
import { parseHeader, type EngineHeader } from "../runtime/log-file.ts";

export interface LogLine {
  /** 0 if nothing says it. */
  readonly timeMs: number;
  readonly text: string;
}

/** Bytes of one line that are shown; an engine may print megabytes without an end. */
const MAX_LINE_BYTES = 16 * 1024;
const NEWLINE = 0x0a;

/** Makes lines of bytes. Keeps the beginning of one line at most. */
export class LineSplitter {
  readonly #maxBytes: number;
  readonly #decoder = new TextDecoder();
  #begun: Uint8Array[] = [];
  #keptBytes = 0;
  #cutBytes = 0;

  constructor(options: { readonly maxBytes?: number } = {}) {
    this.#maxBytes = options.maxBytes ?? MAX_LINE_BYTES;
  }

  push(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start);
      this.#keep(chunk.subarray(start, end === -1 ? chunk.length : end));
      if (end === -1) return lines;
      lines.push(this.#take());
      start = end + 1;
    }
  }

  /** The line that was begun, if there is one. */
  end(): string[] {
    return this.#keptBytes === 0 ? [] : [this.#take()];
  }

  // --- internal ---

  #keep(bytes: Uint8Array): void {
    const kept = bytes.subarray(0, this.#maxBytes - this.#keptBytes);
    // Its own memory: a chunk must not stay for the sake of a few of its bytes.
    if (kept.length > 0) this.#begun.push(kept.slice());
    this.#keptBytes += kept.length;
    this.#cutBytes += bytes.length - kept.length;
  }

  #take(): string {
    const text = this.#decoder.decode(Buffer.concat(this.#begun));
    const cut = this.#cutBytes === 0 ? "" : ` … (${this.#cutBytes} bytes more)`;
    this.#begun = [];
    this.#keptBytes = 0;
    this.#cutBytes = 0;
    return text.replace(/\r$/, "") + cut;
  }
}

/** Which lines are wanted. */
export interface LineFilter {
  readonly sinceMs?: number;
  /** Names and digests of the one model that is meant. */
  readonly models?: readonly string[];
}

/** What a file's lines say, one after the other: a line without a time belongs to the one before it. */
export interface LineReader {
  /** Undefined for a line that is not wanted. */
  read(line: string): LogLine | undefined;
}

export function runnerLines(filter: LineFilter): LineReader {
  const isWanted = toPredicate(filter);
  let timeMs = 0;
  let models: readonly string[] = [];
  return {
    read(text) {
      const facts = readRunnerLine(text);
      if (facts !== undefined) {
        timeMs = facts.timeMs;
        models = facts.models;
      }
      return isWanted(timeMs, models) ? { timeMs, text } : undefined;
    },
  };
}

/** @param format how the lines are rendered: as text, or like those of the runner's structured log */
export function engineLines(filter: LineFilter, format: "text" | "json"): LineReader {
  const isWanted = toPredicate(filter);
  const render = format === "json" ? renderJson : renderText;
  let header: EngineHeader | undefined;
  let timeMs = 0;
  const models = (): readonly string[] =>
    header === undefined ? [] : [header.model, header.model_id];
  return {
    read(line) {
      const begun = parseHeader(line);
      const [, stamp, said] = /^\[(\d{4}-[^\]]{1,40})\] (.*)$/s.exec(line) ?? [];
      const time = begun?.time ?? stamp;
      timeMs = (time === undefined ? undefined : toTime(time)) ?? timeMs;
      if (begun !== undefined) {
        header = begun;
        if (begun.continued === true) return undefined;
      }
      if (!isWanted(timeMs, models())) return undefined;
      const message =
        begun === undefined
          ? (said ?? line)
          : `engine started backend=${begun.backend} pid=${begun.pid}`;
      return { timeMs, text: render({ timeMs, model: header?.model, message }) };
    },
  };
}

// --- internal ---

interface EngineLine {
  readonly timeMs: number;
  readonly model: string | undefined;
  readonly message: string;
}

function renderText({ timeMs, model, message }: EngineLine): string {
  return `[${toText(timeMs) ?? "-"}] ${displayReference(model ?? "engine")} | ${message}`;
}

function renderJson({ timeMs, model, message }: EngineLine): string {
  const facts = { time: toText(timeMs), level: "info", scope: "engine", model: model ?? null };
  return JSON.stringify({ ...facts, message });
}

function toText(timeMs: number): string | null {
  return timeMs === 0 ? null : new Date(timeMs).toISOString();
}

function toPredicate({
  sinceMs,
  models,
}: LineFilter): (timeMs: number, about: readonly string[]) => boolean {
  const wanted = models && new Set(models.flatMap((name) => [name, displayReference(name)]));
  return (timeMs, about) => {
    if (sinceMs !== undefined && timeMs < sinceMs) return false;
    if (wanted === undefined) return true;
    return about.some((name) => wanted.has(name) || wanted.has(displayReference(name)));
  };
}

interface RunnerLineFacts {
  readonly timeMs: number;
  readonly models: readonly string[];
}

/** @returns undefined for a line that goes on with the one before it */
function readRunnerLine(line: string): RunnerLineFacts | undefined {
  if (line.startsWith("{")) return readJsonLine(line);
  const [, stamp = ""] = /^\[(\d{4}-[^\]]{1,40})\] /.exec(line) ?? [];
  const timeMs = toTime(stamp);
  if (timeMs === undefined) return undefined;
  return { timeMs, models: Array.from(line.matchAll(/ model=(\S+)/g), ([, name = ""]) => name) };
}

function readJsonLine(line: string): RunnerLineFacts | undefined {
  try {
    const { time, model } = JSON.parse(line) as { time?: unknown; model?: unknown };
    const timeMs = typeof time === "string" ? toTime(time) : undefined;
    if (timeMs === undefined) return undefined;
    return { timeMs, models: typeof model === "string" ? [model] : [] };
  } catch {
    return undefined;
  }
}

/** @returns undefined for what is no time that a date can show */
function toTime(text: string): number | undefined {
  const timeMs = Date.parse(text);
  return Number.isFinite(timeMs) ? timeMs : undefined;
}
