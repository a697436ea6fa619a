/** Runs a program of the container engine's, bounded in time and output. */
import { AppError } from "../errors.ts";
import { pause } from "../pause.ts";

export interface ToolOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** Default: this process's own. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Told each line of both outputs, without control characters, at most `MAX_LINE` characters of it. */
  readonly onLine?: ((line: string) => void) | undefined;
}

export interface ToolOutput {
  readonly exitCode: number;
  /** At most 1 MiB. */
  readonly stdout: string;
  /** At most its last 16 KiB. */
  readonly stderr: string;
}

/** What engines say of an image with its whole history are some ten kilobytes. */
const MAX_STDOUT = 1024 * 1024;
const MAX_STDERR = 16 * 1024;
/** Of a line; progress that is drawn over itself may never end one. */
const MAX_LINE = 500;
/** From being asked to end until it is made to: it removes what it has half written. */
const GRACE_MS = 5000;
/** For output that is still in the pipe when it has ended; what it left running may hold it open. */
const DRAIN_MS = 500;

/**
 * Without a shell, with nothing on stdin.
 *
 * @throws timed_out, install_failed (it cannot be started); rejects with the signal's reason
 */
export async function runTool(argv: readonly string[], options: ToolOptions): Promise<ToolOutput> {
  const { signal, timeoutMs, env = process.env } = options;
  signal.throwIfAborted();
  const child = spawn(argv, env);
  const timeout = AbortSignal.timeout(timeoutMs);
  const ending = AbortSignal.any([signal, timeout]);
  const over = new AbortController();
  const end = (): void => void stop(child, over.signal);
  ending.addEventListener("abort", end, { once: true });
  try {
    const stdout = new Output(child.stdout, { first: MAX_STDOUT }, options.onLine);
    const stderr = new Output(child.stderr, { last: MAX_STDERR }, options.onLine);
    const exitCode = await child.exited;
    await Promise.all([stdout.end(), stderr.end()]);
    signal.throwIfAborted();
    if (!timeout.aborted) return { exitCode, stdout: stdout.text, stderr: stderr.text };
  } finally {
    over.abort();
    ending.removeEventListener("abort", end);
  }
  const what = `${argv[0] ?? ""} ${argv[1] ?? ""}`;
  throw new AppError("timed_out", `cannot run \`${what}\`: no end after ${timeoutMs / 1000} s`);
}

/** The last line that says something, without the words before it that say that it is an error. */
export function complaintOf(stderr: string): string {
  const lines = stderr.split(/[\r\n]+/).map(plain);
  const line =
    lines.findLast((one) => /error|denied|cannot|failed/i.test(one)) ?? lines.findLast(Boolean);
  const text = (line ?? "").replace(/^(?:error:\s*|error response from daemon:\s*)+/i, "");
  return text.length > MAX_QUOTE ? `${text.slice(0, MAX_QUOTE)}…` : text;
}

// --- internal ---

/** Characters of a program's complaint that are shown. */
const MAX_QUOTE = 200;

type Child = Bun.Subprocess<"ignore", "pipe", "pipe">;

function spawn(argv: readonly string[], env: ToolOptions["env"]): Child {
  try {
    return Bun.spawn([...argv], { env: { ...env }, stdio: ["ignore", "pipe", "pipe"] });
  } catch (cause) {
    const reason = (cause as Error).message.slice(0, MAX_QUOTE);
    throw new AppError("install_failed", `cannot run \`${argv[0]}\`: ${reason}`, { cause });
  }
}

async function stop(child: Child, over: AbortSignal): Promise<void> {
  child.kill("SIGTERM");
  await pause(GRACE_MS, over);
  if (!over.aborted) child.kill("SIGKILL");
}

interface Reader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

type Kept = { readonly first: number } | { readonly last: number };

/** What is printed, as it comes. */
class Output {
  text = "";
  readonly #reader: Reader;
  readonly #kept: Kept;
  readonly #onLine: ToolOptions["onLine"];
  readonly #finished: Promise<void>;
  #line = "";

  constructor(stream: ReadableStream<Uint8Array>, kept: Kept, onLine: ToolOptions["onLine"]) {
    this.#reader = stream.getReader();
    this.#kept = kept;
    this.#onLine = onLine;
    this.#finished = this.#read();
  }

  /** Its program has ended: what is still in the pipe is read, and no more. */
  async end(): Promise<void> {
    const over = new AbortController();
    const late = pause(DRAIN_MS, over.signal).then(() => this.#reader.cancel());
    await Promise.race([this.#finished, late]);
    over.abort();
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for (let next = await this.#reader.read(); !next.done; next = await this.#reader.read()) {
      this.#take(decoder.decode(next.value, { stream: true }));
    }
    this.#flush();
  }

  #take(piece: string): void {
    const kept = this.#kept;
    if ("last" in kept) this.text = (this.text + piece).slice(-kept.last);
    else if (this.text.length < kept.first) this.text = (this.text + piece).slice(0, kept.first);
    const [rest = "", ...lines] = piece.split(/[\r\n]/);
    this.#line = (this.#line + rest).slice(0, MAX_LINE);
    for (const line of lines) {
      this.#flush();
      this.#line = line.slice(0, MAX_LINE);
    }
  }

  #flush(): void {
    const said = plain(this.#line);
    this.#line = "";
    if (said !== "") this.#onLine?.(said);
  }
}

function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim();
}
