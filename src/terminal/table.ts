/** Tables without borders. cli-table3 is heavy at start-up: commands import this file lazily. */
import Table from "cli-table3";

const BORDERLESS = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: "  ",
};

/**
 * Left aligned columns, two spaces between, headers as given, a newline after every line. No rows: the headers alone.
 * A cell is one line: control characters other than colours are taken out.
 */
export function renderTable(
  headers: readonly string[],
  rows: readonly (readonly (string | number | null | undefined)[])[],
): string {
  const table = new Table({
    chars: BORDERLESS,
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  const width = headers.length;
  table.push(toCells(headers, width), ...rows.map((row) => toCells(row, width)));
  return `${table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n")}\n`;
}

// --- internal ---

function toCells(
  row: readonly (string | number | null | undefined)[],
  width: number,
): { content: string }[] {
  return Array.from({ length: width }, (_, index) => ({ content: toCell(row[index]) }));
}

function toCell(value: string | number | null | undefined): string {
  const text = value === null || value === undefined ? "" : String(value);
  // oxlint-disable-next-line no-control-regex -- keeps `ESC[…m`, drops every other control character
  return text.replaceAll(/(\u001B\[[\d;]*m)|[\u0000-\u001F\u007F-\u009F]+/g, (_, color?: string) =>
    color === undefined ? " " : color,
  );
}
