/** The message being typed: text, cursor, history. Pure: keys in, effects out; `screen.ts` draws it. */
import type { Key, KeyName } from "./keys.ts";
import { completeCommand } from "./slash-commands.ts";

/** Characters of one message as typed; files come in as `@name` and have their own limit. */
export const INPUT_LIMIT = 2 * 1024 * 1024;
/** What Tab inserts where there is nothing to complete. */
const TAB_TEXT = " ".repeat(8);

export interface Submission {
  /** Without the `"""` around it. */
  readonly text: string;
  /** As typed, for the history. */
  readonly typed: string;
  /** Pasted or quoted with `"""`: never a command. */
  readonly isLiteral: boolean;
}

export type Effect =
  | { readonly kind: "none" }
  | { readonly kind: "submit"; readonly submission: Submission }
  /** Ctrl+C; what was typed is dropped. */
  | { readonly kind: "interrupt"; readonly wasEmpty: boolean }
  | { readonly kind: "exit" }
  | { readonly kind: "suspend" }
  | { readonly kind: "edit" }
  | { readonly kind: "clear-screen" }
  /** Text was cut at a limit. */
  | { readonly kind: "full" };

const NONE: Effect = { kind: "none" };
const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "grapheme" });

export class LineEditor {
  #text = "";
  /** UTF-16 offset, always between two graphemes. */
  #cursor = 0;
  readonly #history: readonly string[];
  /** Index into the history; its length means the draft. */
  #position: number;
  #draft = "";
  #wasPasted = false;

  /** @param history oldest first */
  constructor(history: readonly string[] = [], text = "") {
    this.#history = history;
    this.#position = history.length;
    this.replace(text);
  }

  get text(): string {
    return this.#text;
  }

  get cursor(): number {
    return this.#cursor;
  }

  /** True while a `"""` waits for its end. */
  get isOpen(): boolean {
    const body = this.#wasPasted ? undefined : openQuote(this.#text);
    return body !== undefined && !body.trimEnd().endsWith('"""');
  }

  /** Puts a new text in and the cursor at its end. */
  replace(text: string): void {
    this.#text = normalize(text).slice(0, INPUT_LIMIT);
    this.#cursor = this.#text.length;
  }

  apply(key: Key): Effect {
    if (key.kind === "text") return this.#insert(key.text);
    if (key.kind === "key") return this.#onKey(key.name);
    if (this.#text.trim() === "") this.#wasPasted = true;
    const effect = this.#insert(normalize(key.text));
    return key.isCut ? { kind: "full" } : effect;
  }

  #onKey(name: KeyName): Effect {
    if (isChange(name)) {
      CHANGES[name](this);
      return NONE;
    }
    switch (name) {
      case "submit":
        return this.#submit();
      case "interrupt":
        return this.#interrupt();
      case "end-of-input":
        if (this.#text === "") return { kind: "exit" };
        this.erase(this.#cursor, this.after());
        return NONE;
      case "newline":
        return this.#insert("\n");
      case "tab":
        return this.#complete();
      case "suspend":
      case "edit":
      case "clear-screen":
        return { kind: name };
      case "escape":
        return NONE;
      default:
        return name satisfies never;
    }
  }

  #insert(text: string): Effect {
    const room = INPUT_LIMIT - this.#text.length;
    const piece = text.slice(0, room);
    this.#text = this.#text.slice(0, this.#cursor) + piece + this.#text.slice(this.#cursor);
    this.#cursor += piece.length;
    return piece.length < text.length ? { kind: "full" } : NONE;
  }

  #submit(): Effect {
    if (this.isOpen) {
      this.#cursor = this.#text.length;
      return this.#insert("\n");
    }
    const typed = this.#text;
    const isQuoted = typed.startsWith('"""') && !this.#wasPasted;
    const text = isQuoted ? stripQuotes(typed) : typed;
    const submission = { text, typed, isLiteral: isQuoted || this.#wasPasted };
    this.#reset();
    return { kind: "submit", submission };
  }

  #interrupt(): Effect {
    const wasEmpty = this.#text === "";
    this.#reset();
    return { kind: "interrupt", wasEmpty };
  }

  #reset(): void {
    this.#text = "";
    this.#cursor = 0;
    this.#position = this.#history.length;
    this.#draft = "";
    this.#wasPasted = false;
  }

  #complete(): Effect {
    const completed = this.#cursor === this.#text.length ? completeCommand(this.#text) : undefined;
    if (completed === undefined) return this.#insert(TAB_TEXT);
    this.replace(`${completed} `);
    return NONE;
  }

  moveTo(offset: number): void {
    this.#cursor = offset;
  }

  erase(from: number, to: number): void {
    this.#text = this.#text.slice(0, from) + this.#text.slice(to);
    this.#cursor = from;
    // What is typed into an empty line is no part of what was pasted and erased.
    if (this.#text.trim() === "") this.#wasPasted = false;
  }

  /** Offset one grapheme to the left. */
  before(): number {
    if (this.#cursor === 0) return 0;
    const start = lineStart(this.#text, this.#cursor);
    if (start === this.#cursor) return this.#cursor - 1;
    const line = this.#text.slice(start, this.#cursor);
    return start + (SEGMENTER.segment(line).containing(line.length - 1)?.index ?? 0);
  }

  /** Offset one grapheme to the right. */
  after(): number {
    const end = lineEnd(this.#text, this.#cursor);
    if (end === this.#cursor) return Math.min(this.#text.length, this.#cursor + 1);
    const line = this.#text.slice(this.#cursor, end);
    return this.#cursor + (SEGMENTER.segment(line).containing(0)?.segment.length ?? 1);
  }

  wordLeft(): number {
    let at = this.#cursor;
    while (at > 0 && isSpace(this.#text, at - 1)) at -= 1;
    while (at > 0 && !isSpace(this.#text, at - 1)) at -= 1;
    return at;
  }

  wordRight(): number {
    let at = this.#cursor;
    while (at < this.#text.length && isSpace(this.#text, at)) at += 1;
    while (at < this.#text.length && !isSpace(this.#text, at)) at += 1;
    return at;
  }

  home(): number {
    return lineStart(this.#text, this.#cursor);
  }

  end(): number {
    return lineEnd(this.#text, this.#cursor);
  }

  /** A line up, or the previous entry of the history from the first line. */
  up(): void {
    const start = this.home();
    if (start === 0) this.recall(-1);
    else this.#moveToLine(lineStart(this.#text, start - 1));
  }

  down(): void {
    const end = this.end();
    if (end === this.#text.length) this.recall(1);
    else this.#moveToLine(end + 1);
  }

  recall(step: -1 | 1): void {
    const position = this.#position + step;
    if (position < 0 || position > this.#history.length) return;
    if (this.#position === this.#history.length) this.#draft = this.#text;
    this.#position = position;
    this.#wasPasted = false;
    this.replace(this.#history[position] ?? this.#draft);
  }

  /** Keeps the column, counted in graphemes, as far as the new line is long enough. */
  #moveToLine(start: number): void {
    const typed = this.#text.slice(this.home(), this.#cursor);
    const column = [...SEGMENTER.segment(typed)].length;
    const line = this.#text.slice(start, lineEnd(this.#text, start));
    const target = [...SEGMENTER.segment(line)][column];
    this.#cursor = start + (target?.index ?? line.length);
  }
}

// --- internal ---

/** Keys that change text or cursor and nothing else. */
type ChangeName = Exclude<
  KeyName,
  | "submit"
  | "newline"
  | "tab"
  | "interrupt"
  | "end-of-input"
  | "suspend"
  | "edit"
  | "clear-screen"
  | "escape"
>;

const CHANGES: Readonly<Record<ChangeName, (editor: LineEditor) => void>> = {
  left: (editor) => editor.moveTo(editor.before()),
  right: (editor) => editor.moveTo(editor.after()),
  "word-left": (editor) => editor.moveTo(editor.wordLeft()),
  "word-right": (editor) => editor.moveTo(editor.wordRight()),
  home: (editor) => editor.moveTo(editor.home()),
  end: (editor) => editor.moveTo(editor.end()),
  up: (editor) => editor.up(),
  down: (editor) => editor.down(),
  "history-previous": (editor) => editor.recall(-1),
  "history-next": (editor) => editor.recall(1),
  backspace: (editor) => editor.erase(editor.before(), editor.cursor),
  delete: (editor) => editor.erase(editor.cursor, editor.after()),
  "delete-word-left": (editor) => editor.erase(editor.wordLeft(), editor.cursor),
  "delete-word-right": (editor) => editor.erase(editor.cursor, editor.wordRight()),
  "delete-to-start": (editor) => editor.erase(editor.home(), editor.cursor),
  "delete-to-end": (editor) => editor.erase(editor.cursor, editor.end()),
};

function isChange(name: KeyName): name is ChangeName {
  return Object.hasOwn(CHANGES, name);
}

/** What follows the opening `"""` of a message or of a system message; undefined without one. */
function openQuote(text: string): string | undefined {
  return /^(?:|\/set\s+system\s+)"""([\s\S]*)$/.exec(text)?.[1];
}

function isSpace(text: string, offset: number): boolean {
  return /\s/.test(text.charAt(offset));
}

function stripQuotes(text: string): string {
  const body = text.trim().slice(3, -3);
  // The line breaks next to the quotes are layout, not content.
  return body.replace(/^\n/, "").replace(/\n$/, "");
}

/** Line breaks of any system become `\n`; other control characters except tab are dropped. */
function normalize(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what it drops
  return text.replaceAll(/\r\n?/g, "\n").replaceAll(/[\u0000-\u0008\u000B-\u001F\u007F]/g, "");
}

function lineStart(text: string, offset: number): number {
  return offset === 0 ? 0 : text.lastIndexOf("\n", offset - 1) + 1;
}

function lineEnd(text: string, offset: number): number {
  const end = text.indexOf("\n", offset);
  return end === -1 ? text.length : end;
}
