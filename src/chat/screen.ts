/** Lays the message being typed out on a terminal. Pure; widths are those of cells, not of characters. */

export interface ScreenOptions {
  readonly columns: number;
  /** Rows that may be used; a longer text is shown around the cursor. */
  readonly rows: number;
  /** Before the first line, such as `> `. */
  readonly prompt: string;
  /** Before every other line, such as `. `. */
  readonly continuation: string;
}

export interface Layout {
  readonly rows: readonly string[];
  /** Where the cursor is: index into rows, and cells from the left. */
  readonly row: number;
  readonly column: number;
}

interface Cell {
  readonly text: string;
  readonly width: number;
  /** UTF-16 offset in its line. */
  readonly offset: number;
}

const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const TAB_CELLS = 4;

/** @param cursor UTF-16 offset into `text` */
export function layOut(text: string, cursor: number, options: ScreenOptions): Layout {
  const height = Math.max(1, options.rows);
  const before = text.slice(0, cursor).split("\n");
  const at = before.length - 1;
  const lines = text.split("\n");
  // Lines further away than the screen is high cannot be seen.
  const first = Math.max(0, at - height);
  const rows: string[] = [];
  let position = { row: 0, column: 0 };
  for (const [index, line] of lines.slice(first, at + height).entries()) {
    const number = first + index;
    const prefix = number === 0 ? options.prompt : options.continuation;
    const offset = number === at ? (before[at]?.length ?? 0) : undefined;
    const wrapped = wrapLine(line, { prefix, columns: options.columns, cursor: offset });
    if (wrapped.position !== undefined)
      position = { row: rows.length + wrapped.position.row, column: wrapped.position.column };
    rows.push(...wrapped.rows);
  }
  const top = Math.max(0, Math.min(position.row - height + 1, rows.length - height));
  const start = rows.length <= height ? 0 : Math.max(top, position.row - height + 1);
  return {
    rows: rows.slice(start, start + height),
    row: position.row - start,
    column: position.column,
  };
}

/**
 * Where the cursor of a drawn layout is once the terminal has become `columns` wide: a terminal breaks rows that no longer
 * fit, and never joins those that were written as rows.
 */
export function reflow(layout: Layout, columns: number): Layout {
  const above = layout.rows.slice(0, layout.row);
  const row = above.reduce(
    (sum, text) => sum + Math.max(1, Math.ceil(Bun.stringWidth(text) / columns)),
    Math.floor(layout.column / columns),
  );
  return { ...layout, row, column: layout.column % columns };
}

/** Moves from where the last layout left the cursor, erases it and draws `next`. */
export function redraw(previous: Layout | undefined, next: Layout, suffix = ""): string {
  const up = previous === undefined || previous.row === 0 ? "" : `\u001B[${previous.row}A`;
  const below = next.rows.length - 1 - next.row;
  const back = below > 0 ? `\u001B[${below}A` : "";
  const right = next.column > 0 ? `\u001B[${next.column}C` : "";
  return `${up}\r\u001B[J${next.rows.join("\r\n")}${suffix}${back}\r${right}`;
}

// --- internal ---

function wrapLine(
  line: string,
  options: { prefix: string; columns: number; cursor: number | undefined },
): { rows: string[]; position: { row: number; column: number } | undefined } {
  const { prefix, cursor } = options;
  const columns = Math.max(Bun.stringWidth(prefix) + 2, options.columns);
  const rows = [prefix];
  let column = Bun.stringWidth(prefix);
  let position: { row: number; column: number } | undefined;
  for (const { text, width, offset } of toCells(line)) {
    if (column + width > columns) {
      rows.push("");
      column = 0;
    }
    if (offset === cursor) position = { row: rows.length - 1, column };
    rows[rows.length - 1] += text;
    column += width;
  }
  if (cursor !== undefined && position === undefined) {
    // A cursor after a full row stands at the begin of the next one.
    if (column >= columns) {
      rows.push("");
      column = 0;
    }
    position = { row: rows.length - 1, column };
  }
  return { rows, position };
}

function* toCells(line: string): Generator<Cell> {
  // Pasted logs have lines of a million characters, and segmenting them at every key would be felt.
  if (/^[ -~]*$/.test(line)) {
    for (let offset = 0; offset < line.length; offset += 1)
      yield { text: line.charAt(offset), width: 1, offset };
    return;
  }
  for (const { segment, index } of SEGMENTER.segment(line)) {
    if (segment === "\t") yield { text: " ".repeat(TAB_CELLS), width: TAB_CELLS, offset: index };
    else yield { text: segment, width: Bun.stringWidth(segment), offset: index };
  }
}
