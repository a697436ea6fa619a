/**
 * The person's side of the terminal: raw mode, keys, the line being typed. Keys that come while nobody reads a line are
 * kept for the next one, except Ctrl+C, which stops what is going on. The terminal is given back on every way out.
 */
import type { Style } from "../terminal/style.ts";
import { editExternally } from "./external-editor.ts";
import { KeyDecoder, PASTE_OFF, PASTE_ON, type Key } from "./keys.ts";
import { LineEditor, type Effect, type Submission } from "./line-editor.ts";
import { layOut, redraw, reflow, type Layout } from "./screen.ts";

/** A lone Escape is told from the begin of a sequence by what follows within this time; sequences arrive at once. */
const ESCAPE_MS = 50;
/** Characters typed ahead while an answer comes; more is dropped. */
const TYPE_AHEAD_LIMIT = 1024 * 1024;
/** A stop signal takes effect a moment after it is sent. */
const SUSPEND_MS = 50;
const FALLBACK_COLUMNS = 80;
const FALLBACK_ROWS = 24;

const PLACEHOLDER = "Send a message (/? for help)";
const OPEN_PLACEHOLDER = 'End the message with """';

export interface PromptOptions {
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
  readonly style: Style;
  /** Oldest first; read anew for each line. */
  readonly history: { readonly entries: readonly string[] };
}

export type PromptResult =
  | { readonly kind: "line"; readonly submission: Submission }
  | { readonly kind: "interrupt"; readonly wasEmpty: boolean }
  /** Ctrl+D, or the terminal is gone. */
  | { readonly kind: "end" };

interface Reading {
  readonly editor: LineEditor;
  readonly resolve: (result: PromptResult) => void;
  layout: Layout | undefined;
}

export class Prompt implements Disposable {
  readonly #options: PromptOptions;
  readonly #keys = new KeyDecoder();
  readonly #utf8 = new TextDecoder();
  readonly #ahead: Key[] = [];
  #aheadLength = 0;
  #reading: Reading | undefined;
  #onInterrupt: (() => void) | undefined;
  #escapeTimer: ReturnType<typeof setTimeout> | undefined;
  #isRaw = false;
  /** Suspended, or an editor has the terminal. */
  #isAway = false;
  #hasEnded = false;

  constructor(options: PromptOptions) {
    this.#options = options;
    const { input, output } = options;
    input.on("data", this.#onData).on("end", this.#onEnd).on("error", this.#onEnd);
    output.on("resize", this.#onResize);
    process.on("exit", this.#leave);
    if (process.platform !== "win32") process.on("SIGCONT", this.#onContinue);
    this.#enter();
    input.resume();
  }

  /** One line at a time. Aborting the signal ends it. */
  readLine(signal: AbortSignal): Promise<PromptResult> {
    if (this.#hasEnded || signal.aborted) return Promise.resolve({ kind: "end" });
    const { promise, resolve } = Promise.withResolvers<PromptResult>();
    const onAbort = (): void => this.#finish({ kind: "end" });
    signal.addEventListener("abort", onAbort, { once: true });
    const editor = new LineEditor(this.#options.history.entries);
    this.#reading = { editor, resolve, layout: undefined };
    this.#drain();
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /** While it lives, Ctrl+C calls `onInterrupt`. */
  busy(onInterrupt: () => void): Disposable {
    this.#onInterrupt = onInterrupt;
    return {
      [Symbol.dispose]: () => {
        this.#onInterrupt = undefined;
      },
    };
  }

  /** Writes lines above the one being typed. */
  print(text: string): void {
    const reading = this.#reading;
    if (reading?.layout !== undefined) {
      const up = reading.layout.row > 0 ? `\u001B[${reading.layout.row}A` : "";
      this.#write(`${up}\r\u001B[J`);
      reading.layout = undefined;
    }
    this.#write(text);
    this.#draw();
  }

  [Symbol.dispose](): void {
    const { input, output } = this.#options;
    clearTimeout(this.#escapeTimer);
    this.#leave();
    input.off("data", this.#onData).off("end", this.#onEnd).off("error", this.#onEnd);
    input.pause();
    output.off("resize", this.#onResize);
    process.off("exit", this.#leave);
    process.off("SIGCONT", this.#onContinue);
  }

  readonly #onData = (chunk: Uint8Array | string): void => {
    clearTimeout(this.#escapeTimer);
    const text = typeof chunk === "string" ? chunk : this.#utf8.decode(chunk, { stream: true });
    this.#onKeys(this.#keys.push(text));
    if (!this.#keys.isPending) return;
    this.#escapeTimer = setTimeout(() => this.#onKeys(this.#keys.flush()), ESCAPE_MS);
  };

  readonly #onEnd = (): void => {
    this.#hasEnded = true;
    this.#onInterrupt?.();
    this.#finish({ kind: "end" });
  };

  readonly #onResize = (): void => {
    const reading = this.#reading;
    const { columns } = this.#options.output;
    if (reading?.layout !== undefined && columns > 0) {
      reading.layout = reflow(reading.layout, columns);
    }
    this.#draw();
  };

  readonly #onContinue = (): void => {
    if (this.#isAway) return;
    // Whoever had the terminal meanwhile left it in a mode of its own.
    this.#isRaw = false;
    this.#enter();
    this.#draw();
  };

  #onKeys(keys: readonly Key[]): void {
    for (const key of keys) {
      if (this.#reading === undefined && this.#onBusyKey(key)) continue;
      const length = key.kind === "key" ? 1 : key.text.length;
      if (this.#aheadLength + length > TYPE_AHEAD_LIMIT * 2) continue;
      this.#ahead.push(key);
      this.#aheadLength += length;
    }
    this.#drain();
  }

  /** @returns whether the key was used up */
  #onBusyKey(key: Key): boolean {
    if (key.kind !== "key" || this.#onInterrupt === undefined) return false;
    if (key.name === "suspend") void this.#suspend();
    else if (key.name === "interrupt") {
      this.#ahead.length = 0;
      this.#aheadLength = 0;
      this.#onInterrupt();
    } else return false;
    return true;
  }

  #drain(): void {
    while (this.#reading !== undefined && !this.#isAway) {
      const key = this.#ahead.shift();
      if (key === undefined) break;
      this.#aheadLength -= key.kind === "key" ? 1 : key.text.length;
      const typed = this.#reading.editor.text;
      this.#perform(this.#reading.editor.apply(key), typed);
    }
    if (!this.#isAway) this.#draw();
  }

  #perform(effect: Effect, typed: string): void {
    switch (effect.kind) {
      case "none":
        return;
      case "submit":
        this.#finish({ kind: "line", submission: effect.submission }, typed);
        return;
      case "interrupt":
        this.#finish(effect, typed);
        return;
      case "exit":
        this.#finish({ kind: "end" }, typed);
        return;
      case "suspend":
        void this.#suspend();
        return;
      case "edit":
        void this.#edit();
        return;
      case "clear-screen":
        this.#write("\u001B[2J\u001B[H");
        if (this.#reading !== undefined) this.#reading.layout = undefined;
        return;
      case "full":
        this.print(this.#options.style.yellow("The text was cut: it is too long to type.\n"));
        return;
      default:
        effect satisfies never;
    }
  }

  #finish(result: PromptResult, typed = this.#reading?.editor.text ?? ""): void {
    const reading = this.#reading;
    if (reading === undefined) return;
    this.#drawText(typed, typed.length);
    this.#write("\r\n");
    this.#reading = undefined;
    reading.resolve(result);
  }

  #draw(): void {
    const editor = this.#reading?.editor;
    if (editor === undefined || this.#isAway) return;
    const isAtEmptyEnd = editor.cursor === editor.text.length && editor.text.endsWith("\n");
    const hint = editor.text === "" ? PLACEHOLDER : OPEN_PLACEHOLDER;
    const isHinting = editor.text === "" || (editor.isOpen && isAtEmptyEnd);
    this.#drawText(editor.text, editor.cursor, isHinting ? hint : "");
  }

  #drawText(text: string, cursor: number, hint = ""): void {
    const reading = this.#reading;
    if (reading === undefined) return;
    const { output, style } = this.#options;
    const columns = output.columns || FALLBACK_COLUMNS;
    const rows = Math.max(1, (output.rows || FALLBACK_ROWS) - 1);
    const layout = layOut(text, cursor, { columns, rows, prompt: "> ", continuation: ". " });
    const suffix = style.dim(hint.slice(0, Math.max(0, columns - 3)));
    this.#write(redraw(reading.layout, layout, suffix));
    reading.layout = layout;
  }

  async #suspend(): Promise<void> {
    if (process.platform === "win32" || this.#isAway) return;
    this.#release();
    process.kill(0, "SIGTSTP");
    await Bun.sleep(SUSPEND_MS);
    this.#retake();
  }

  async #edit(): Promise<void> {
    const reading = this.#reading;
    if (reading === undefined) return;
    const { input, style } = this.#options;
    this.#release();
    input.pause();
    let problem = "";
    try {
      reading.editor.replace(await editExternally(reading.editor.text));
    } catch (error) {
      problem = `${style.red("error:")} ${(error as Error).message}\n`;
    }
    input.resume();
    this.#retake(problem);
  }

  /** Gives the terminal to somebody else, with the cursor on a line of its own. */
  #release(): void {
    const reading = this.#reading;
    if (reading !== undefined) {
      this.#drawText(reading.editor.text, reading.editor.text.length);
      this.#write("\r\n");
      reading.layout = undefined;
    }
    this.#isAway = true;
    this.#leave();
  }

  #retake(message = ""): void {
    this.#isAway = false;
    if (this.#hasEnded) return;
    this.#enter();
    if (message !== "") this.#write(message);
    this.#drain();
  }

  #enter(): void {
    if (this.#isRaw) return;
    this.#options.input.setRawMode(true);
    this.#isRaw = true;
    this.#write(PASTE_ON);
  }

  readonly #leave = (): void => {
    if (!this.#isRaw) return;
    this.#isRaw = false;
    this.#write(PASTE_OFF);
    try {
      this.#options.input.setRawMode(false);
    } catch {
      // The terminal is gone, and its modes with it.
    }
  };

  #write(text: string): void {
    this.#options.output.write(text);
  }
}
