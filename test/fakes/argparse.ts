/**
 * Python's argparse as far as engines use it, over a table that was recorded from a real parser: it refuses what that
 * one refuses, in its words.
 */

export interface ParsedArgs {
  /** By the first name of an option; empty for a switch. The last of several holds. */
  readonly options: ReadonlyMap<string, readonly string[]>;
  readonly positionals: readonly string[];
}

export class ArgumentError extends Error {}

/**
 * @param table a line an option: its names, its kind (`switch`, `integer`, `number`, `size`, `si-size`, `json`, `text`; with
 *   `optional-` in front it may be empty; with `+`, `*` or `?` behind it takes so many), its choices
 * @throws ArgumentError
 */
export function parseLike(
  table: string,
  argv: readonly string[],
  { maxPositionals }: { readonly maxPositionals: number },
): ParsedArgs {
  const known = readTable(table);
  const options = new Map<string, readonly string[]>();
  const positionals: string[] = [];
  const unknown: string[] = [];
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (!isOption(word)) {
      (positionals.length < maxPositionals ? positionals : unknown).push(word);
      continue;
    }
    const [name, inline] = splitWord(word);
    const option = find(name, known);
    if (option === undefined) {
      unknown.push(word);
      continue;
    }
    const taken = inline === undefined ? takeWords(option, argv.slice(index + 1)) : [inline];
    check(option, name, { values: taken, isInline: inline !== undefined });
    options.set(option.names[0] ?? "", option.kind === "switch" ? [name] : taken);
    if (inline === undefined) index += taken.length;
  }
  if (unknown.length > 0) throw new ArgumentError(`unrecognized arguments: ${unknown.join(" ")}`);
  return { options, positionals };
}

/** The options of a table by each of their names. */
export function readTable(table: string): ReadonlyMap<string, OptionRow> {
  const rows = table
    .trim()
    .split("\n")
    .map((line): OptionRow => {
      const [names = "", kind = "", choices] = line.split("|");
      const [, isOptional, plain = "", count] = /^(optional-)?([a-z-]+)([+*?]?)$/.exec(kind) ?? [];
      return {
        names: names.split(" "),
        kind: plain,
        isOptional: isOptional !== undefined,
        count: count ?? "",
        choices: choices?.split(","),
      };
    });
  return new Map(rows.flatMap((row) => row.names.map((name) => [name, row] as const)));
}

export interface OptionRow {
  readonly names: readonly string[];
  readonly kind: string;
  readonly isOptional: boolean;
  readonly count: string;
  readonly choices: readonly string[] | undefined;
}

// --- internal ---

/** What looks like a negative number is a value. */
function isOption(word: string): boolean {
  return word.startsWith("-") && word !== "-" && !/^-\d+$|^-\d*\.\d+$/.test(word);
}

function splitWord(word: string): readonly [string, string | undefined] {
  const equals = word.startsWith("--") ? word.indexOf("=") : -1;
  return equals === -1 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)];
}

/** A long name may be cut short, where it is still one name. */
function find(name: string, known: ReadonlyMap<string, OptionRow>): OptionRow | undefined {
  const exact = known.get(name);
  if (exact !== undefined || !name.startsWith("--")) return exact;
  const longer = [...known.keys()].filter((one) => one.startsWith(name));
  if (longer.length > 1) {
    throw new ArgumentError(`ambiguous option: ${name} could match ${longer.join(", ")}`);
  }
  return known.get(longer[0] ?? "");
}

function takeWords({ kind, count }: OptionRow, words: readonly string[]): readonly string[] {
  if (kind === "switch") return [];
  const end = words.findIndex(isOption);
  const values = end === -1 ? words : words.slice(0, end);
  return count === "+" || count === "*" ? values : values.slice(0, 1);
}

function check(
  option: OptionRow,
  name: string,
  { values, isInline }: { readonly values: readonly string[]; readonly isInline: boolean },
): void {
  const refuse = (why: string): never => {
    throw new ArgumentError(`argument ${name}: ${why}`);
  };
  if (option.kind === "switch") {
    if (isInline) refuse("ignored explicit argument");
    return;
  }
  if (values.length === 0 && option.count === "+") refuse("expected at least one argument");
  if (values.length === 0 && option.count === "") refuse("expected one argument");
  for (const value of values) {
    if (option.isOptional && (value === "" || value === "None")) continue;
    if (!KINDS[option.kind]?.(value)) refuse(`invalid ${option.kind} value: '${value}'`);
    if (option.choices?.includes(value) === false) refuse(`invalid choice: '${value}'`);
  }
}

const SIZE = /^\d+(?:\.\d+[kmgt]|[kKmMgGtT])?$/;

const KINDS: Readonly<Record<string, (value: string) => boolean>> = {
  integer: (value) => /^\s*[+-]?\d+\s*$/.test(value),
  number: (value) => value.trim() !== "" && Number.isFinite(Number(value)),
  size: (value) => SIZE.test(value),
  "si-size": (value) => /^\d+(?:[kMGT]i?|Ki)?$/.test(value),
  "size-or-auto": (value) => SIZE.test(value) || value === "auto" || value === "-1",
  json: (value) => {
    try {
      JSON.parse(value);
      return true;
    } catch {
      return false;
    }
  },
  text: () => true,
};
