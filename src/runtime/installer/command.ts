/** Runs a short-lived program (apt-get, dpkg-deb, nvidia-smi, …) and collects what it says. */

import { engineEnvironment, lifeline, settlesWithin, signalGroup } from "../process.ts";

/** Bytes of output kept of each stream; more is read and dropped. */
const OUTPUT_LIMIT = 4 * 1024 * 1024;
/** Characters of a line that is not at its end yet. */
const LINE_LIMIT = 64 * 1024;
/** Characters of a program's own words that are shown. */
const QUOTE_LIMIT = 200;
/** After the exit: for output that is still in the pipe. */
const DRAIN_MS = 1000;

export interface CommandOptions {
  readonly signal: AbortSignal;
  /** Milliseconds until it is killed. */
  readonly timeoutMs: number;
  readonly cwd?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Called with each line of stdout as it is written. */
  readonly onLine?: (line: string) => void;
  /** It, and what it starts, is ended when this process is, however that ends. */
  readonly diesWithThis?: boolean;
  /** Of stderr. */
  readonly onErrorLine?: (line: string) => void;
  /** What a failed program complained of; default: its last line. Shown up to 200 characters. */
  readonly complaintIn?: (stderr: string) => string | undefined;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * @throws Error when the program cannot be started, does not end in time, or fails; the message is a clause that ends
 *   in the last complaint the program printed
 */
export async function runCommand(
  argv: readonly string[],
  options: CommandOptions,
): Promise<CommandResult> {
  const name = argv[0] ?? "";
  const timeout = AbortSignal.timeout(options.timeoutMs);
  const signal = AbortSignal.any([options.signal, timeout]);
  signal.throwIfAborted();
  const isGuarded = options.diesWithThis === true;
  const child = Bun.spawn([...(isGuarded ? lifeline() : []), ...argv], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(isGuarded ? GUARDED : UNGUARDED),
    env: childEnvironment(options.env),
    stdout: "pipe",
    stderr: "pipe",
    signal,
    killSignal: "SIGKILL",
  });
  const outputs = [
    collect(child.stdout, options.onLine),
    collect(child.stderr, options.onErrorLine),
  ] as const;
  const exitCode = await child.exited;
  if (isGuarded) signalGroup(child.pid, "SIGKILL");
  const [stdout = "", stderr = ""] = await Promise.all(outputs.map((output) => output.end()));
  options.signal.throwIfAborted();
  if (timeout.aborted) {
    throw new Error(`\`${name}\` did not end within ${Math.round(options.timeoutMs / 1000)} s`);
  }
  if (exitCode !== 0) throw new Error(`\`${name}\` failed: ${reasonOf(exitCode, stderr, options)}`);
  return { exitCode, stdout, stderr };
}

// --- internal ---

/** The pipe breaks when this process ends, and the group goes with it. */
const GUARDED = { stdin: "pipe", detached: true } as const;
const UNGUARDED = { stdin: "ignore", detached: false } as const;

function reasonOf(
  exitCode: number,
  stderr: string,
  { complaintIn = lastComplaint }: CommandOptions,
): string {
  return complaintIn(stderr)?.slice(0, QUOTE_LIMIT) ?? `exit code ${exitCode}`;
}

interface Output {
  /** What it was, up to the limit; waits for its end, within a bound. */
  end(): Promise<string>;
}

function collect(stream: ReadableStream<Uint8Array>, onLine?: (line: string) => void): Output {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let kept = "";
  let partial = "";
  const take = (text: string): void => {
    if (kept.length < OUTPUT_LIMIT) kept += text;
    if (onLine === undefined) return;
    const lines = (partial + text).split("\n");
    // A line without an end is of no use to anybody.
    partial = (lines.pop() ?? "").slice(-LINE_LIMIT);
    for (const line of lines) onLine(line);
  };
  const finished = (async () => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      take(decoder.decode(next.value, { stream: true }));
    }
  })();
  // Whoever waits for the end hears of it.
  finished.catch(() => undefined);
  return {
    async end() {
      // A process that it left behind may hold the pipe open for ever.
      if (!(await settlesWithin(finished, DRAIN_MS))) await reader.cancel();
      return kept;
    },
  };
}

/** apt marks errors with `E:`; others are known by being last. */
function lastComplaint(stderr: string): string | undefined {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  const line = lines.find((text) => text.startsWith("E: ")) ?? lines.at(-1);
  return line?.replace(/^E: /, "").trim();
}

/** What an engine would inherit, and the C locale, so that output can be parsed. */
function childEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  return { ...engineEnvironment(env), LC_ALL: "C" };
}
