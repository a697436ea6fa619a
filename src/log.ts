/**
 * The one logger. Everything goes to stderr: stdout carries the answer only. The runner's stderr is its log file.
 *
 * Lines read `<area>: <past-tense fact> key=value …`, where `reason` comes last because it is a sentence. Never logged:
 * tokens, Authorization, signed query strings, prompts and answers. consola is loaded at the first line that is written
 * for a person at a terminal, because start-up costs milliseconds.
 */
import { copyFileSync, fstatSync, renameSync, statSync, truncateSync } from "node:fs";
import type { ConsolaInstance } from "consola";

export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFormat = "text" | "json";

export interface LogOptions {
  readonly level: LogLevel;
  /** Prefix each line with `[RFC 3339] level`, as a log file wants; default false. */
  readonly timestamps?: boolean;
  /** `json`: one object a line with `time`, `level`, `scope`, `message`, and the pairs of the line as members. */
  readonly format?: LogFormat;
  /** The file that stderr is: it is kept within `maxBytes`, and what was in it before as `<file>.1`. */
  readonly file?: string;
  /** Default: 8 MiB, which is weeks of an ordinary runner. */
  readonly maxBytes?: number;
}

const MAX_LOG_BYTES = 8 * 1024 * 1024;
/** Of one line; what comes behind belongs to the last of them. */
const MAX_FIELDS = 32;
const STDERR = 2;
/** Of C0 and C1, all but tab and line feed. */
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

let threshold = LOG_LEVELS.indexOf("warn");
let timestamps = false;
let format: LogFormat = "text";
let file: SizedFile | undefined;
let consolaLoad: Promise<ConsolaInstance> | undefined;
let pending: Promise<void> = Promise.resolve();

export const log = {
  error: (message: string): void => emit("error", message),
  warn: (message: string): void => emit("warn", message),
  info: (message: string): void => emit("info", message),
  debug: (message: string): void => emit("debug", message),
};

export function configureLog(options: LogOptions): void {
  threshold = LOG_LEVELS.indexOf(options.level);
  timestamps = options.timestamps ?? false;
  format = options.format ?? "text";
  file =
    options.file === undefined
      ? undefined
      : new SizedFile(options.file, options.maxBytes ?? MAX_LOG_BYTES);
}

/** Resolves when every line logged so far has been written. Call it before the process exits. */
export function flushLog(): Promise<void> {
  return pending;
}

/** One line of the structured log, without its end. Pure. */
export function toJsonLine(level: LogLevel, text: string, time: Date): string {
  const [whole, scope] = /^([a-z][\w.-]*): /.exec(text) ?? [""];
  const { message, fields } = splitFields(text.slice(whole.length));
  const own = {
    time: time.toISOString(),
    level,
    ...(scope === undefined ? {} : { scope }),
    message,
  };
  const others = fields.map(([name, value]) => [
    Object.hasOwn(own, name) ? `${name}_` : name,
    value,
  ]);
  return JSON.stringify({ ...own, ...Object.fromEntries(others) });
}

// --- internal ---

type Field = readonly [name: string, value: unknown];

function emit(level: LogLevel, message: string): void {
  if (LOG_LEVELS.indexOf(level) > threshold) return;
  if (format === "json") return write(`${toJsonLine(level, message, new Date())}\n`);
  const text = toText(message);
  if (timestamps) return write(`[${new Date().toISOString()}] ${level} ${text}\n`);
  pending = pending.then(async () => {
    const consola = await (consolaLoad ??= loadConsola());
    consola[level](text);
  });
}

/** A reason may be what an engine or a registry said: it must neither look like a line of ours nor steer a terminal. */
function toText(message: string): string {
  return message.replaceAll(/\r\n?|\n/g, "\n  ").replaceAll(CONTROLS, "\ufffd");
}

function write(line: string): void {
  const target = file;
  pending = pending.then(() => {
    process.stderr.write(line);
    target?.onWritten(Buffer.byteLength(line));
  });
}

async function loadConsola(): Promise<ConsolaInstance> {
  const { createConsola } = await import("consola");
  // Our threshold decides; consola's own (1 under NODE_ENV=test) and its throttling of repeats must not.
  return createConsola({ level: 999, stdout: process.stderr, stderr: process.stderr, throttle: 0 });
}

/**
 * The file that stderr is. It is copied and emptied rather than renamed: the descriptor is the process's for life, and
 * what a crash prints has to be in the file that people look at.
 */
class SizedFile {
  readonly #path: string;
  readonly #maxBytes: number;
  #sizeBytes: number;

  constructor(path: string, maxBytes: number) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#sizeBytes = this.#isStderr() ? fstatSync(STDERR).size : 0;
  }

  onWritten(bytes: number): void {
    this.#sizeBytes += bytes;
    if (this.#sizeBytes < this.#maxBytes) return;
    // If it fails, the next try is as many bytes away.
    this.#sizeBytes = 0;
    if (this.#isStderr()) this.#rotate();
  }

  #rotate(): void {
    const next = `${this.#path}.1.tmp`;
    try {
      copyFileSync(this.#path, next);
      // A file of its own each time: that is how a reader in the middle of the old one notices.
      renameSync(next, `${this.#path}.1`);
      truncateSync(this.#path);
    } catch (error) {
      log.warn(`log: not rotated path=${this.#path} reason=${(error as Error).message}`);
    }
  }

  #isStderr(): boolean {
    try {
      const [named, held] = [statSync(this.#path), fstatSync(STDERR)];
      return named.ino === held.ino && named.dev === held.dev;
    } catch {
      return false;
    }
  }
}

function splitFields(text: string): { message: string; fields: Field[] } {
  const marks = [...text.matchAll(/(?:^| )([a-z][a-z0-9_]*)=/g)].slice(0, MAX_FIELDS);
  const fields: Field[] = [];
  for (let at = 0; at < marks.length;) {
    const [whole, name = ""] = marks[at] ?? [""];
    const start = (marks[at]?.index ?? 0) + whole.length;
    const ends = [...marks.slice(at + 1).map(({ index }) => index), text.length];
    const { value, taken } = readValue(text, { name, start, ends });
    fields.push([name, value]);
    at += taken;
  }
  return { message: text.slice(0, marks[0]?.index ?? text.length), fields };
}

interface ValuePlace {
  readonly name: string;
  readonly start: number;
  /** Where it may end: before each of the next fields, and at the end of the line. */
  readonly ends: readonly number[];
}

function readValue(
  text: string,
  { name, start, ends }: ValuePlace,
): { value: unknown; taken: number } {
  if (name === "reason") return { value: text.slice(start), taken: ends.length };
  if (/["[{]/.test(text.charAt(start))) {
    // What looks like a field may be within a JSON value.
    for (const [index, end] of ends.entries()) {
      const value = tryParse(text.slice(start, end));
      if (value !== undefined) return { value, taken: index + 1 };
    }
  }
  const plain = text.slice(start, ends[0]);
  return { value: name === "model" ? plain : toScalar(plain), taken: 1 };
}

function toScalar(text: string): unknown {
  if (text === "true" || text === "false") return text === "true";
  return /^-?(?:0|[1-9]\d{0,14})(?:\.\d{1,9})?$/.test(text) ? Number(text) : text;
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
