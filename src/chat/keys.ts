/**
 * Bytes of a terminal in raw mode become keys. A sequence may be cut anywhere between two chunks. Pure.
 *
 * @see https://invisible-island.net/xterm/ctlseqs/ctlseqs.html (CSI, SS3, bracketed paste, modifyOtherKeys)
 */

export type KeyName =
  | "submit"
  | "newline"
  | "left"
  | "right"
  | "word-left"
  | "word-right"
  | "home"
  | "end"
  | "up"
  | "down"
  | "history-previous"
  | "history-next"
  | "backspace"
  | "delete"
  | "delete-word-left"
  | "delete-word-right"
  | "delete-to-start"
  | "delete-to-end"
  | "clear-screen"
  | "tab"
  | "edit"
  | "suspend"
  | "interrupt"
  | "end-of-input"
  | "escape";

export type Key =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "paste"; readonly text: string; readonly isCut: boolean }
  | { readonly kind: "key"; readonly name: KeyName };

export const PASTE_ON = "\u001B[?2004h";
export const PASTE_OFF = "\u001B[?2004l";

/** Characters of one paste; more is dropped, or a careless paste of a huge file would hang the editor. */
export const PASTE_LIMIT = 1024 * 1024;
/** No known sequence is as long; what does not end by then is dropped. */
const SEQUENCE_LIMIT = 64;

const PASTE_START = "\u001B[200~";
const PASTE_END = "\u001B[201~";

export class KeyDecoder {
  #buffer = "";
  #paste: string | undefined;
  #isCut = false;

  /** True while a sequence has begun and not ended: call `flush` if nothing follows soon. */
  get isPending(): boolean {
    return this.#buffer !== "" && this.#paste === undefined;
  }

  push(text: string): Key[] {
    this.#buffer += text;
    const keys: Key[] = [];
    while (this.#buffer !== "") {
      const before = this.#buffer.length;
      if (this.#paste === undefined) this.#readKey(keys);
      else this.#readPaste(keys);
      if (this.#buffer.length === before) break;
    }
    return keys;
  }

  /** A lone escape character was the Escape key after all. */
  flush(): Key[] {
    if (!this.isPending) return [];
    this.#buffer = "";
    return [{ kind: "key", name: "escape" }];
  }

  #readPaste(keys: Key[]): void {
    const end = this.#buffer.indexOf(PASTE_END);
    // Without an end the last characters may be the beginning of one.
    const length = end === -1 ? this.#buffer.length - (PASTE_END.length - 1) : end;
    if (length > 0) this.#addPaste(this.#buffer.slice(0, length));
    if (end === -1) {
      this.#buffer = this.#buffer.slice(Math.max(0, length));
      return;
    }
    this.#buffer = this.#buffer.slice(end + PASTE_END.length);
    keys.push({ kind: "paste", text: this.#paste ?? "", isCut: this.#isCut });
    this.#paste = undefined;
  }

  #addPaste(text: string): void {
    const room = PASTE_LIMIT - (this.#paste?.length ?? 0);
    if (text.length > room) this.#isCut = true;
    this.#paste = (this.#paste ?? "") + text.slice(0, room);
  }

  #readKey(keys: Key[]): void {
    if (this.#buffer.startsWith("\u001B")) {
      this.#readSequence(keys);
      return;
    }
    // oxlint-disable-next-line no-control-regex -- a run of text ends at a control character
    const text = /^[^\u0000-\u001F\u007F]+/.exec(this.#buffer)?.[0];
    if (text !== undefined) {
      this.#buffer = this.#buffer.slice(text.length);
      keys.push({ kind: "text", text });
      return;
    }
    pushKey(keys, CONTROL_KEYS[this.#buffer.charAt(0)]);
    this.#buffer = this.#buffer.slice(1);
  }

  #readSequence(keys: Key[]): void {
    if (this.#buffer.startsWith(PASTE_START)) {
      this.#buffer = this.#buffer.slice(PASTE_START.length);
      this.#paste = "";
      this.#isCut = false;
      return;
    }
    const match = SEQUENCE.exec(this.#buffer);
    if (match !== null) {
      this.#buffer = this.#buffer.slice(match[0].length);
      pushKey(keys, nameSequence(match));
      return;
    }
    if (UNFINISHED.test(this.#buffer) && this.#buffer.length <= SEQUENCE_LIMIT) return;
    // Not a sequence: the escape character is dropped and the rest read as typed.
    this.#buffer = this.#buffer.slice(1);
  }
}

// --- internal ---

/** CSI parameters final · SS3 final · Alt and a character (but not the begin of a longer sequence). */
// oxlint-disable-next-line no-control-regex -- escape sequences are what it reads
const SEQUENCE = /^\u001B(?:\[([0-9;:<=>?]*)[ -/]*([@-~])|O([ -~])|([^[O\u001B]))/u;
// oxlint-disable-next-line no-control-regex -- escape sequences are what it reads
const UNFINISHED = /^\u001B(?:\[[0-9;:<=>?]*[ -/]*|O)?$/;

const CONTROL_KEYS: Readonly<Record<string, KeyName | undefined>> = {
  "\u0001": "home",
  "\u0002": "left",
  "\u0003": "interrupt",
  "\u0004": "end-of-input",
  "\u0005": "end",
  "\u0006": "right",
  "\u0008": "backspace",
  "\t": "tab",
  "\n": "submit",
  "\u000B": "delete-to-end",
  "\u000C": "clear-screen",
  "\r": "submit",
  "\u000E": "history-next",
  "\u0010": "history-previous",
  "\u0015": "delete-to-start",
  "\u0017": "delete-word-left",
  "\u0018": "edit",
  "\u001A": "suspend",
  "\u007F": "backspace",
};

const ALT_KEYS: Readonly<Record<string, KeyName | undefined>> = {
  b: "word-left",
  B: "word-left",
  f: "word-right",
  F: "word-right",
  d: "delete-word-right",
  D: "delete-word-right",
  "\u007F": "delete-word-left",
  "\u0008": "delete-word-left",
  "\r": "newline",
  "\n": "newline",
};

/** Final characters of CSI and SS3. */
const FINAL_KEYS: Readonly<Record<string, KeyName | undefined>> = {
  A: "up",
  B: "down",
  C: "right",
  D: "left",
  H: "home",
  F: "end",
};

/** Numbers of `CSI n ~`. */
const TILDE_KEYS: Readonly<Record<string, KeyName | undefined>> = {
  "1": "home",
  "3": "delete",
  "4": "end",
  "7": "home",
  "8": "end",
};

/** What a key means together with Ctrl or Alt. */
const MODIFIED_KEYS: Partial<Readonly<Record<KeyName, KeyName>>> = {
  left: "word-left",
  right: "word-right",
  delete: "delete-word-right",
};

/** Shift+Enter and Alt+Enter of terminals that report them (`CSI 13;2u`, `CSI 27;2;13~`). */
const MODIFIED_ENTER = /^(?:13;[2-9]u|27;[2-9];13~)$/;

function nameSequence(match: RegExpExecArray): KeyName | undefined {
  const [, parameters, final, ss3, alt] = match;
  if (alt !== undefined) return ALT_KEYS[alt];
  if (ss3 !== undefined) return FINAL_KEYS[ss3];
  if (MODIFIED_ENTER.test(`${parameters}${final}`)) return "newline";
  const [first = "", modifier = "1"] = (parameters ?? "").split(";");
  const name = final === "~" ? TILDE_KEYS[first] : FINAL_KEYS[final ?? ""];
  if (name === undefined) return undefined;
  // The modifier is 1 plus a bit field: 1 Shift, 2 Alt, 4 Ctrl.
  const isModified = ((Number.parseInt(modifier, 10) - 1) & 6) !== 0;
  return isModified ? (MODIFIED_KEYS[name] ?? name) : name;
}

function pushKey(keys: Key[], name: KeyName | undefined): void {
  if (name !== undefined) keys.push({ kind: "key", name });
}
