/** Enough of a VT100 to see what a person would see: text, line breaks, cursor moves and erasing. */
const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "grapheme" });
// oxlint-disable-next-line no-control-regex -- escape sequences are what it reads
const TOKEN = /\u001B\[[?\d;]*[A-Za-z]|\r\n|[\r\n\u0008]|[^\u001B\r\n\u0008]+/g;

export class Emulator {
  readonly #columns: number;
  #rows: string[][] = [[]];
  #row = 0;
  #column = 0;

  constructor(columns = 80) {
    this.#columns = columns;
  }

  /** The rows, without white space at their ends and without empty rows at the end. */
  get lines(): string[] {
    const lines = this.#rows.map((cells) =>
      Array.from(cells, (cell) => cell ?? " ")
        .join("")
        .trimEnd(),
    );
    while (lines.at(-1) === "") lines.pop();
    return lines;
  }

  get cursor(): { row: number; column: number } {
    return { row: this.#row, column: this.#column };
  }

  write(text: string): this {
    for (const [token] of text.matchAll(TOKEN)) this.#apply(token);
    return this;
  }

  #apply(token: string): void {
    if (token === "\r\n") this.#moveTo(this.#row + 1, 0);
    else if (token === "\n") this.#moveTo(this.#row + 1, 0);
    else if (token === "\r") this.#column = 0;
    else if (token.startsWith("\u001B")) this.#control(token.slice(2, -1), token.at(-1) ?? "");
    else for (const { segment } of SEGMENTER.segment(token)) this.#put(segment);
  }

  #put(segment: string): void {
    const width = Bun.stringWidth(segment);
    if (this.#column + width > this.#columns) this.#moveTo(this.#row + 1, 0);
    const cells = this.#rows[this.#row] ?? [];
    while (cells.length < this.#column) cells.push(" ");
    cells[this.#column] = segment;
    for (let extra = 1; extra < width; extra += 1) cells[this.#column + extra] = "";
    this.#column += width;
  }

  #control(parameters: string, final: string): void {
    const count = Number.parseInt(parameters, 10) || 1;
    if (final === "A") this.#moveTo(Math.max(0, this.#row - count), this.#column);
    else if (final === "C") this.#column = Math.min(this.#columns, this.#column + count);
    else if (final === "H") this.#moveTo(0, 0);
    else if (final === "K") this.#eraseLine();
    else if (final === "J" && parameters === "2") this.#rows = [[]];
    else if (final === "J") {
      this.#eraseLine();
      this.#rows.length = this.#row + 1;
    }
  }

  #eraseLine(): void {
    const cells = this.#rows[this.#row];
    if (cells !== undefined && cells.length > this.#column) cells.length = this.#column;
  }

  #moveTo(row: number, column: number): void {
    while (this.#rows.length <= row) this.#rows.push([]);
    this.#row = row;
    this.#column = column;
  }
}
