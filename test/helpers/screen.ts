/**
 * What a terminal shows after the bytes written to it: enough of ECMA-48 and xterm for line editors, progress bars and
 * coloured text. Colours are dropped.
 */
export class Screen {
  readonly columns: number;
  readonly rows: number;
  /** Rows that went out at the top, oldest first. */
  readonly #scrollback: string[] = [];
  #cells: string[][] = [[]];
  #row = 0;
  #column = 0;
  /** The beginning of an escape sequence or character whose rest has not come yet. */
  #pending = "";

  constructor({ columns, rows }: { columns: number; rows: number }) {
    this.columns = columns;
    this.rows = rows;
  }

  get cursor(): { readonly row: number; readonly column: number } {
    return { row: this.#row, column: this.#column };
  }

  write(text: string): void {
    let rest = this.#pending + text;
    this.#pending = "";
    while (rest !== "") {
      const length = this.#step(rest);
      if (length === 0) {
        this.#pending = rest;
        return;
      }
      rest = rest.slice(length);
    }
  }

  /** The visible rows without trailing blanks; empty rows at the end are left out. */
  lines(): string[] {
    const lines = this.#cells.map((row) => rowText(row));
    while (lines.at(-1) === "") lines.pop();
    return lines;
  }

  text(): string {
    return this.lines().join("\n");
  }

  /** Scrolled-out rows and visible ones. */
  history(): string {
    return [...this.#scrollback, ...this.lines()].join("\n");
  }

  /** Consumes one character or sequence; 0 says that it is not complete. */
  #step(text: string): number {
    if (text[0] === "\u001B") return this.#escape(text);
    const control = CONTROLS[text[0] ?? ""];
    if (control !== undefined) {
      this.#control(control);
      return 1;
    }
    if (text < " ") return 1;
    const [{ segment } = { segment: text }] = GRAPHEMES.segment(text.slice(0, MAX_GRAPHEME));
    this.#put(segment);
    return segment.length;
  }

  #escape(text: string): number {
    if (text.length < 2) return 0;
    if (text[1] === "[") {
      // oxlint-disable-next-line no-control-regex -- escape sequences are made of control characters
      const match = /^\u001B\[([?>=]?)([\d;]*)([ -/]*)([@-~])/.exec(text);
      if (match === null) return text.length > 64 ? 1 : 0;
      const [all, marker = "", parameters = "", , final = ""] = match;
      if (marker === "") this.#sequence(final, parameters.split(";").map(Number));
      return all.length;
    }
    if (text[1] === "]") {
      // oxlint-disable-next-line no-control-regex -- as above
      const match = /^\u001B\][^\u0007\u001B]*(\u0007|\u001B\\)/.exec(text);
      return match?.[0].length ?? 0;
    }
    if (text[1] === "(" || text[1] === ")") return text.length < 3 ? 0 : 3;
    if (text[1] === "7") this.#saved = { row: this.#row, column: this.#column };
    if (text[1] === "8") this.#moveTo(this.#saved.row, this.#saved.column);
    return 2;
  }

  #saved = { row: 0, column: 0 };

  #control(control: Control): void {
    if (control === "return") this.#column = 0;
    if (control === "back") this.#column = Math.max(0, this.#column - 1);
    if (control === "tab")
      this.#column = Math.min(this.columns - 1, (Math.floor(this.#column / 8) + 1) * 8);
    if (control === "feed") this.#lineFeed();
  }

  #sequence(final: string, parameters: readonly number[]): void {
    const first = parameters[0] ?? 0;
    const count = Math.max(1, first);
    const moves: Readonly<Record<string, () => void>> = {
      A: () => this.#moveTo(this.#row - count, this.#column),
      B: () => this.#moveTo(this.#row + count, this.#column),
      C: () => this.#moveTo(this.#row, this.#column + count),
      D: () => this.#moveTo(this.#row, this.#column - count),
      E: () => this.#moveTo(this.#row + count, 0),
      F: () => this.#moveTo(this.#row - count, 0),
      G: () => this.#moveTo(this.#row, count - 1),
      H: () => this.#moveTo(count - 1, Math.max(1, parameters[1] ?? 1) - 1),
      d: () => this.#moveTo(count - 1, this.#column),
      J: () => this.#eraseScreen(first),
      K: () => this.#eraseLine(first),
      P: () => void this.#rowAt(this.#row).splice(this.#column, count),
      "@": () =>
        void this.#rowAt(this.#row).splice(this.#column, 0, ...Array<string>(count).fill(" ")),
      X: () => this.#fill(this.#column, this.#column + count),
      s: () => void (this.#saved = { row: this.#row, column: this.#column }),
      u: () => this.#moveTo(this.#saved.row, this.#saved.column),
    };
    moves[final]?.();
  }

  #put(grapheme: string): void {
    const width = Math.max(Bun.stringWidth(grapheme), 0);
    if (width === 0) {
      const row = this.#rowAt(this.#row);
      const last = this.#column - 1;
      if (last >= 0) row[last] = (row[last] ?? " ") + grapheme;
      return;
    }
    if (this.#column + width > this.columns) {
      this.#column = 0;
      this.#lineFeed();
    }
    const row = this.#rowAt(this.#row);
    while (row.length < this.#column) row.push(" ");
    row[this.#column] = grapheme;
    // The second half of a wide character holds nothing of its own.
    if (width === 2) row[this.#column + 1] = "";
    this.#column += width;
  }

  #lineFeed(): void {
    this.#row += 1;
    if (this.#row < this.rows) return void this.#rowAt(this.#row);
    this.#row = this.rows - 1;
    this.#scrollback.push(rowText(this.#cells.shift() ?? []));
    this.#rowAt(this.#row);
  }

  #moveTo(row: number, column: number): void {
    this.#row = Math.min(Math.max(row, 0), this.rows - 1);
    this.#column = Math.min(Math.max(column, 0), this.columns - 1);
  }

  #eraseLine(mode: number): void {
    if (mode === 0)
      this.#rowAt(this.#row).length = Math.min(this.#column, this.#rowAt(this.#row).length);
    if (mode === 1) this.#fill(0, this.#column + 1);
    if (mode === 2) this.#rowAt(this.#row).length = 0;
  }

  #eraseScreen(mode: number): void {
    if (mode === 0) {
      this.#eraseLine(0);
      this.#cells.length = Math.min(this.#cells.length, this.#row + 1);
    }
    if (mode === 1) {
      for (let row = 0; row < this.#row; row += 1) this.#rowAt(row).length = 0;
      this.#eraseLine(1);
    }
    if (mode >= 2) this.#cells = [];
  }

  #fill(from: number, to: number): void {
    const row = this.#rowAt(this.#row);
    for (let column = from; column < Math.min(to, this.columns); column += 1) row[column] = " ";
  }

  #rowAt(index: number): string[] {
    while (this.#cells.length <= index) this.#cells.push([]);
    return this.#cells[index] ?? [];
  }
}

// --- internal ---

type Control = "return" | "back" | "tab" | "feed";

const CONTROLS: Readonly<Record<string, Control>> = {
  "\r": "return",
  "\b": "back",
  "\t": "tab",
  "\n": "feed",
};

/** Code units: the longest emoji sequences have under 30. */
const MAX_GRAPHEME = 64;
const GRAPHEMES = new Intl.Segmenter(undefined, { granularity: "grapheme" });

function rowText(row: readonly string[]): string {
  return Array.from(row, (cell) => cell ?? " ")
    .join("")
    .trimEnd();
}
