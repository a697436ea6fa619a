/** Holds an engine's table of allowed flags against the options that its own parser has. */
import type { FlagTable, FlagValue } from "../../backends/python/flags.ts";
import { type OptionRow, readTable } from "./argparse.ts";

/** @throws Error naming all flags that the parser would refuse, also by their values */
export function requireKnownFlags(table: FlagTable, options: string): void {
  const known = readTable(options);
  const wrong = [...table.rules].flatMap(([name, { takes }]) => {
    const option = known.get(name);
    if (option === undefined) return [`${name}: there is none`];
    const reason = mismatch(takes, option);
    return reason === undefined ? [] : [`${name}: ${reason}`];
  });
  const owned = Object.keys(table.owned).filter((name) => !known.has(name));
  const all = [...wrong, ...owned.map((name) => `${name}: there is none`)];
  if (all.length > 0) throw new Error(all.join("\n"));
}

// --- internal ---

/** Kinds of the parser that take what a rule lets through. */
const TAKEN: Readonly<Record<FlagValue["kind"], readonly string[]>> = {
  switch: ["switch"],
  integer: ["integer", "size", "si-size", "number", "text"],
  number: ["number"],
  size: ["size", "size-or-auto"],
  choice: ["text"],
  json: ["json", "text"],
  text: ["text"],
  path: ["text"],
};

function mismatch(takes: FlagValue, { kind, choices, count }: OptionRow): string | undefined {
  if (!TAKEN[takes.kind].includes(kind)) return `it takes ${kind}, not ${takes.kind}`;
  if (count === "+" || count === "*") return "it takes several";
  if (choices === undefined || takes.kind === "switch") return undefined;
  if (takes.kind !== "choice") return `it takes one of ${choices.join(", ")}`;
  const unknown = takes.of.filter((value) => !choices.includes(value));
  return unknown.length === 0 ? undefined : `it has no ${unknown.join(", ")}`;
}
