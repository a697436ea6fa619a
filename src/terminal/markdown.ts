/**
 * Markdown to a terminal while it arrives. Text is held back until its block is whole (a paragraph, a heading, one
 * item of a list, a fenced code block), then rendered once; nothing that was printed is ever redrawn.
 */
import { stripControls } from "./style.ts";

/** A block is rendered at the latest when it is this long (characters), whatever its syntax says. */
const BLOCK_LIMIT = 256 * 1024;
const FALLBACK_COLUMNS = 80;

const FENCE = /^\s*(`{3,}|~{3,})/;
const HEADING = /^ {0,3}#{1,6}(\s|$)/;
const LIST_ITEM = /^ {0,3}([-*+]|\d{1,9}[.)])(\s|$)/;

export interface MarkdownOptions {
  /** Cells of the terminal, asked before each block because windows change. */
  columns(): number | undefined;
  /** Without colours the structure is drawn in plain ASCII. */
  readonly colors: boolean;
}

type BlockKind = "text" | "list" | "fence" | "heading";

/** `push` and `end` return what is to be written now; the last piece ends in a newline. */
export class MarkdownStream {
  readonly #options: MarkdownOptions;
  /** The line that has not ended. */
  #tail = "";
  #lines: string[] = [];
  #length = 0;
  #kind: BlockKind = "text";
  #fence: string | undefined;
  #gap = false;
  #previous: BlockKind | undefined;
  #rendered = "";

  constructor(options: MarkdownOptions) {
    this.#options = options;
  }

  push(text: string): string {
    this.#tail += stripControls(text);
    const lines = this.#tail.split("\n");
    this.#tail = lines.pop() ?? "";
    for (const line of lines) this.#onLine(line);
    return this.#take();
  }

  end(): string {
    if (this.#tail !== "") this.#onLine(this.#tail);
    this.#tail = "";
    this.#flush();
    this.#fence = undefined;
    return this.#take();
  }

  #take(): string {
    const text = this.#rendered;
    this.#rendered = "";
    return text;
  }

  #onLine(line: string): void {
    if (this.#length > BLOCK_LIMIT) this.#flush();
    if (this.#fence !== undefined) this.#onFencedLine(line, this.#fence);
    else if (FENCE.test(line)) this.#openFence(line);
    else if (line.trim() === "") this.#onBlankLine();
    else this.#onTextLine(line);
  }

  #onFencedLine(line: string, fence: string): void {
    this.#add(line);
    const closes = FENCE.exec(line)?.[1];
    const isClosed =
      closes !== undefined && closes.startsWith(fence) && line.trim().length === closes.length;
    if (!isClosed) return;
    this.#fence = undefined;
    if (this.#kind === "fence") this.#flush();
  }

  #openFence(line: string): void {
    const belongsToItem = this.#kind === "list" && this.#lines.length > 0 && /^\s{2,}/.test(line);
    if (!belongsToItem) this.#start("fence");
    this.#fence = FENCE.exec(line)?.[1];
    this.#add(line);
  }

  #onBlankLine(): void {
    // An item of a list goes on after a blank line if the next one is indented.
    if (this.#kind === "list" && this.#lines.length > 0) {
      this.#add("");
      return;
    }
    this.#flush();
    this.#gap = true;
  }

  #onTextLine(line: string): void {
    if (HEADING.test(line)) {
      this.#start("heading");
      this.#add(line);
      this.#flush();
      return;
    }
    if (LIST_ITEM.test(line) && this.#interrupts(line)) this.#start("list");
    else if (this.#lines.length === 0) this.#start("text");
    else if (this.#kind === "list" && this.#lines.at(-1) === "" && !/^\s/.test(line))
      this.#start("text");
    this.#add(line);
  }

  /** Only a list that begins with 1 may interrupt a paragraph (CommonMark 0.31, 5.2). */
  #interrupts(line: string): boolean {
    return this.#lines.length === 0 || this.#kind === "list" || /^ {0,3}([-*+]|1[.)])\s/.test(line);
  }

  #start(kind: BlockKind): void {
    this.#flush();
    this.#kind = kind;
  }

  #add(line: string): void {
    this.#lines.push(line);
    this.#length += line.length + 1;
  }

  #flush(): void {
    const source = this.#lines.join("\n").trimEnd();
    const endsBlank = this.#lines.at(-1) === "";
    this.#lines = [];
    this.#length = 0;
    if (source === "") return;
    const kind = this.#kind;
    const text = this.#render(source).replace(/^\n+/, "").trimEnd();
    const isApart = this.#previous !== undefined && (this.#gap || kind !== this.#previous);
    this.#rendered += `${isApart ? "\n" : ""}${text}\n`;
    this.#previous = kind;
    this.#gap = endsBlank;
    this.#kind = "text";
  }

  #render(source: string): string {
    const columns = this.#options.columns() || FALLBACK_COLUMNS;
    return Bun.markdown.ansi(source, { colors: this.#options.colors, columns });
  }
}
