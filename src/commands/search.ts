import type { SearchResult } from "../api/models.ts";
import { connect } from "../client/connect.ts";
import { AppError } from "../errors.ts";
import { printJson } from "../terminal/json.ts";
import { print } from "../terminal/output.ts";
import { createProgress } from "../terminal/progress.ts";
import { JSON_FLAG, defineCommand } from "./command.ts";

const HEADERS = ["NAME", "DESCRIPTION", "DOWNLOADS", "LIKES", "UPDATED"];
const DEFAULT_LIMIT = 25;
const MAX_LIMIT = 1000;
/** A description is for choosing by; whoever wants to read it all asks for JSON. Cells. */
const MAX_DESCRIPTION = 60;

const COUNT_UNITS = ["", "K", "M", "B"] as const;

export const command = defineCommand({
  args: {
    query: {
      type: "positional",
      required: false,
      rest: true,
      description: "Words to look for; without any, what is pulled most",
    },
    source: {
      type: "string",
      options: ["docker", "huggingface", "all"],
      description: "Where to look (everywhere unless given)",
    },
    limit: {
      type: "string",
      alias: "n",
      valueHint: "N",
      description: `How many at most (${DEFAULT_LIMIT} unless given)`,
    },
    json: JSON_FLAG,
  },
  async run({ args, config, paths, signal }) {
    const limit = parseLimit(args.limit);
    const client = await connect("transfer", { config, paths, signal });
    const query = { text: args.query.join(" "), source: args.source ?? "all", limit };
    using progress = createProgress({ quiet: true });
    const results = await client.search(query, {
      signal,
      onWarning: (message) => progress.listener({ type: "warning", message }),
    });
    if (args.json === true) return await printJson(results);
    if (results.length === 0) process.stderr.write("Nothing found.\n");
    const { renderTable } = await import("../terminal/table.ts");
    await print(renderTable(HEADERS, results.map(toRow)));
  },
});

/** @throws usage */
export function parseLimit(text: string | undefined): number {
  if (text === undefined) return DEFAULT_LIMIT;
  const limit = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (limit >= 1 && limit <= MAX_LIMIT) return limit;
  throw new AppError("usage", `\`${text}\` is not a number of results`, {
    hint: `Give a whole number from 1 to ${MAX_LIMIT}.`,
  });
}

/** `999`, `1.2K`, `35M`. */
export function formatCount(count: number | null): string {
  if (count === null) return "";
  let value = count;
  let unit = 0;
  // 999.95 would print as 1000, hence not 1000.
  while (value >= 999.5 && unit < COUNT_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit > 0 && value < 9.95 ? 1 : 0;
  return `${value.toFixed(digits).replace(/\.0$/, "")}${COUNT_UNITS[unit] ?? ""}`;
}

// --- internal ---

function toRow(result: SearchResult): string[] {
  return [
    result.name,
    shorten(result.description ?? ""),
    formatCount(result.downloads),
    formatCount(result.likes),
    dayOf(result.updated),
  ];
}

/** Of untrusted text: on one line, and cut in full cells. */
function shorten(text: string): string {
  const line = Bun.stripANSI(text).replaceAll(/\s+/g, " ").trim();
  if (Bun.stringWidth(line) <= MAX_DESCRIPTION) return line;
  return `${Bun.sliceAnsi(line, 0, MAX_DESCRIPTION - 1)}…`;
}

function dayOf(time: string | null): string {
  const at = time === null ? Number.NaN : Date.parse(time);
  return Number.isNaN(at) ? "" : new Date(at).toISOString().slice(0, 10);
}
