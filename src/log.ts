/**
 * The one logger. Everything goes to stderr: stdout carries the answer only. The runner's stderr is its log file.
 *
 * Lines read `<area>: <past-tense fact> key=value …`. Never logged: tokens, Authorization, signed query strings,
 * prompts and answers. consola is loaded at the first line that is written, because start-up costs milliseconds.
 */
import type { ConsolaInstance } from "consola";

export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

let threshold = LOG_LEVELS.indexOf("warn");
let timestamps = false;
let instance: Promise<ConsolaInstance> | undefined;
let pending: Promise<void> = Promise.resolve();

export const log = {
  error: (message: string): void => emit("error", message),
  warn: (message: string): void => emit("warn", message),
  info: (message: string): void => emit("info", message),
  debug: (message: string): void => emit("debug", message),
};

/** @param options.timestamps prefix each line with `[RFC 3339]`, as the runner's log file wants. */
export function configureLog(options: { level: LogLevel; timestamps?: boolean }): void {
  threshold = LOG_LEVELS.indexOf(options.level);
  timestamps = options.timestamps ?? false;
}

/** Resolves when every line logged so far has been written. Call it before the process exits. */
export function flushLog(): Promise<void> {
  return pending;
}

// --- internal ---

function emit(level: LogLevel, message: string): void {
  if (LOG_LEVELS.indexOf(level) > threshold) return;
  const line = timestamps ? `[${new Date().toISOString()}] ${level} ${message}` : message;
  pending = pending.then(async () => {
    const consola = await (instance ??= load());
    consola[level](line);
  });
}

async function load(): Promise<ConsolaInstance> {
  const { createConsola } = await import("consola");
  // Our threshold decides; consola's own (1 under NODE_ENV=test) and its throttling of repeats must not.
  const base = { level: 999, stdout: process.stderr, stderr: process.stderr, throttle: 0 };
  if (!timestamps) return createConsola(base);
  const plain = {
    log: ({ args }: { args: unknown[] }) => void process.stderr.write(`${args.join(" ")}\n`),
  };
  return createConsola({ ...base, reporters: [plain] });
}
