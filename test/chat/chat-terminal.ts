/** A real PTY with a chat in it: type, wait for what is shown, read what the client was asked. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "../helpers/eventually.ts";
import { tempDir } from "../helpers/temp-dir.ts";
import { Emulator } from "../terminal/emulator.ts";

const DRIVE = Bun.fileURLToPath(import.meta.resolve("./drive.ts"));

export interface ChatTerminalOptions {
  readonly columns?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Shell around the chat; `$CHAT` is the chat. Default: the chat alone. */
  readonly script?: string;
}

export interface Recorded {
  readonly kind: "chat" | "load";
  readonly request: { readonly messages?: readonly unknown[]; readonly [key: string]: unknown };
}

export class ChatTerminal implements AsyncDisposable {
  readonly directory: string;
  readonly process: Bun.Subprocess;
  readonly #terminal: Bun.Terminal;
  readonly #columns: number;
  readonly #dispose: () => Promise<void>;
  output = "";
  #seen = 0;

  private constructor(directory: AsyncDisposable & { path: string }, options: ChatTerminalOptions) {
    const { columns = 80, script = "$CHAT", env = {} } = options;
    this.directory = directory.path;
    this.#columns = columns;
    this.#dispose = async () => directory[Symbol.asyncDispose]();
    this.process = Bun.spawn(["bash", "--norc", "-m", "-c", script], {
      cwd: directory.path,
      env: {
        PATH: process.env["PATH"],
        HOME: directory.path,
        TERM: "xterm",
        NO_COLOR: "1",
        LANG: "C.UTF-8",
        CHAT: `${process.execPath} ${DRIVE}`,
        CHAT_DIRECTORY: directory.path,
        ...env,
      },
      terminal: {
        cols: columns,
        rows: 24,
        data: (_, bytes) => {
          this.output += this.#decoder.decode(bytes, { stream: true });
        },
      },
    });
    const { terminal } = this.process;
    if (terminal === undefined) throw new Error("no terminal");
    this.#terminal = terminal;
  }

  readonly #decoder = new TextDecoder();

  static async start(options: ChatTerminalOptions = {}): Promise<ChatTerminal> {
    const terminal = new ChatTerminal(await tempDir(), options);
    await terminal.see("Send a message");
    return terminal;
  }

  /** For a chat that is not expected to show a prompt. */
  static async launch(options: ChatTerminalOptions = {}): Promise<ChatTerminal> {
    return new ChatTerminal(await tempDir(), options);
  }

  type(text: string): void {
    this.#terminal.write(text);
  }

  resize(columns: number): void {
    this.#terminal.resize(columns, 24);
  }

  /** Waits for text that was not seen before. */
  async see(text: string): Promise<void> {
    try {
      await eventually(() => this.output.includes(text, this.#seen));
    } catch (cause) {
      throw new Error(
        `never saw ${JSON.stringify(text)} in ${JSON.stringify(this.output.slice(this.#seen))}`,
        { cause },
      );
    }
    this.#seen = this.output.indexOf(text, this.#seen) + text.length;
  }

  /** Sends a line and waits for its answer and the next prompt. */
  async ask(text: string): Promise<void> {
    this.type(`${text}\r`);
    await this.see(`answer to <${text}>`);
    await this.see("Send a message");
  }

  /** What is on the screen. */
  get screen(): string[] {
    return new Emulator(this.#columns).write(this.output).lines;
  }

  async requests(kind?: Recorded["kind"]): Promise<Recorded["request"][]> {
    const text = await readFile(join(this.directory, "requests.jsonl"), "utf8");
    const lines = text.trimEnd().split("\n");
    const all = lines.map((line) => JSON.parse(line) as Recorded);
    return all
      .filter((one) => kind === undefined || one.kind === kind)
      .map(({ request }) => request);
  }

  /** Messages of the newest chat request. */
  async lastMessages(): Promise<readonly unknown[]> {
    return (await this.requests("chat")).at(-1)?.messages ?? [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill("SIGHUP");
    this.#terminal.close();
    await this.process.exited;
    await this.#dispose();
  }
}
