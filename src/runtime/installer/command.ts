/** Runs a short-lived program (apt-get, dpkg-deb, nvidia-smi, …) and collects what it says. */

import { engineEnvironment } from "../process.ts";

/** Bytes of output kept of each stream; more is read and dropped. */
const OUTPUT_LIMIT = 4 * 1024 * 1024;

export interface CommandOptions {
  readonly signal: AbortSignal;
  /** Milliseconds until it is killed. */
  readonly timeoutMs: number;
  readonly cwd?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Called with each line of stdout as it is written. */
  readonly onLine?: (line: string) => void;
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
  const child = Bun.spawn([...argv], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: childEnvironment(options.env),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    signal,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    collect(child.stdout, options.onLine),
    collect(child.stderr),
    child.exited,
  ]);
  options.signal.throwIfAborted();
  if (timeout.aborted) {
    throw new Error(`\`${name}\` did not end within ${Math.round(options.timeoutMs / 1000)} s`);
  }
  if (exitCode !== 0) {
    throw new Error(`\`${name}\` failed: ${complaint(stderr) ?? `exit code ${exitCode}`}`);
  }
  return { exitCode, stdout, stderr };
}

// --- internal ---

async function collect(
  stream: ReadableStream<Uint8Array>,
  onLine?: (line: string) => void,
): Promise<string> {
  const decoder = new TextDecoder();
  let kept = "";
  let partial = "";
  for await (const chunk of stream) {
    const text = decoder.decode(chunk, { stream: true });
    if (kept.length < OUTPUT_LIMIT) kept += text;
    if (onLine === undefined) continue;
    const lines = (partial + text).split("\n");
    partial = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
  return kept;
}

/** apt marks errors with `E:`; others are known by being last. */
function complaint(stderr: string): string | undefined {
  const lines = stderr.split("\n").filter((line) => line.trim() !== "");
  const line = lines.find((text) => text.startsWith("E: ")) ?? lines.at(-1);
  return line?.replace(/^E: /, "").trim().slice(0, 200);
}

/** What an engine would inherit, and the C locale, so that output can be parsed. */
function childEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  return { ...engineEnvironment(env), LC_ALL: "C" };
}
