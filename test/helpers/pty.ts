import { cleanEnvironment } from "./run-cli.ts";
import { Screen } from "./screen.ts";

export interface PtyOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly columns?: number;
  readonly rows?: number;
}

/** An engine may have to start before something shows. */
const WAIT_MS = 20_000;
/** What a program wrote last may be read after its end has been noticed; no end of the terminal's data is reported. */
const DRAIN_MS = 500;

/**
 * A program in a terminal of its own: `await using pty = Pty.start([tug, "run", "pebble"], { env })`. Disposal kills what
 * still runs.
 */
export class Pty implements AsyncDisposable {
  readonly screen: Screen;
  readonly #terminal: Bun.Terminal;
  readonly #child: Bun.Subprocess;
  readonly #decoder = new TextDecoder();
  #transcript = "";
  /** Where the next `waitFor` starts to look. */
  #seen = 0;
  /** When all that was written has come, on the clock of `performance.now()`. */
  #drainedAt = Infinity;
  #onData = Promise.withResolvers<void>();

  private constructor(command: readonly string[], options: PtyOptions) {
    const { columns = 80, rows = 24 } = options;
    this.screen = new Screen({ columns, rows });
    this.#terminal = new Bun.Terminal({
      cols: columns,
      rows,
      name: "xterm-256color",
      data: (_, bytes) => this.#receive(bytes),
    });
    this.#child = Bun.spawn([...command], {
      terminal: this.#terminal,
      env: { ...cleanEnvironment(), TERM: "xterm-256color", LANG: "C.UTF-8", ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    void this.#child.exited.then(() => {
      this.#drainedAt = performance.now() + DRAIN_MS;
      this.#wake();
    });
  }

  static start(command: readonly string[], options: PtyOptions = {}): Pty {
    return new Pty(command, options);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Everything written so far, escape sequences removed. */
  get transcript(): string {
    return Bun.stripANSI(this.#transcript);
  }

  /** Everything written so far, as it came. */
  get raw(): string {
    return this.#transcript;
  }

  write(text: string): void {
    this.#terminal.write(text);
  }

  /** As a terminal sends a paste to a program that asked for brackets. */
  paste(text: string): void {
    this.write(`\u001B[200~${text.replaceAll("\n", "\r")}\u001B[201~`);
  }

  /** Ends a line as the Enter key does. */
  submit(line: string): void {
    this.write(`${line}\r`);
  }

  /**
   * Resolves once `text` has been written after what the last call found, so that an echo or an older answer does not
   * satisfy it again. Escape sequences do not count.
   */
  async waitFor(text: string | RegExp, boundMs = WAIT_MS): Promise<string> {
    const deadline = performance.now() + boundMs;
    for (;;) {
      const found = this.#find(text);
      if (found !== undefined) return found;
      const leftMs = Math.min(deadline, this.#drainedAt) - performance.now();
      if (leftMs <= 0) throw this.#missing(text);
      await Promise.race([this.#onData.promise, Bun.sleep(Math.min(leftMs, 100))]);
    }
  }

  /** Forgets what has been written so far: the next `waitFor` sees only what comes. */
  skip(): void {
    this.#seen = this.transcript.length;
  }

  /** The exit code. */
  exited(boundMs = WAIT_MS): Promise<number> {
    const timeout = AbortSignal.timeout(boundMs);
    const late = Promise.withResolvers<never>();
    timeout.addEventListener("abort", () => late.reject(this.#missing("its end")), { once: true });
    return Promise.race([this.#child.exited, late.promise]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill("SIGKILL");
    await this.#child.exited;
    this.#terminal.close();
  }

  #receive(bytes: Uint8Array): void {
    const text = this.#decoder.decode(bytes, { stream: true });
    this.#transcript += text;
    this.screen.write(text);
    this.#wake();
  }

  #wake(): void {
    this.#onData.resolve();
    this.#onData = Promise.withResolvers();
  }

  #find(text: string | RegExp): string | undefined {
    const fresh = this.transcript.slice(this.#seen);
    const pattern = typeof text === "string" ? new RegExp(RegExp.escape(text)) : text;
    const match = pattern.exec(fresh);
    if (match === null) return undefined;
    this.#seen += match.index + match[0].length;
    return match[0];
  }

  #missing(text: string | RegExp): Error {
    const state = this.#child.exitCode === null ? "runs" : `left with ${this.#child.exitCode}`;
    return new Error(
      `\`${String(text)}\` did not show; the program ${state}. Unseen: ${JSON.stringify(this.transcript.slice(this.#seen))}\nScreen:\n${this.screen.text()}`,
    );
  }
}
