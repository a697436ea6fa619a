/** Judges runtime flags of engines whose options are Python's argparse, before anything is loaded. Pure. */
import { AppError } from "../../src/errors.ts";
import { nearest } from "../../src/nearest.ts";
import type { FlagMemory, FlagOptions, ReadFlags } from "../../src/runtime/backend.ts";

export type FlagValue =
  /** Takes none; what it says is all it says. */
  | { readonly kind: "switch" }
  | { readonly kind: "integer"; readonly min: number; readonly max: number }
  | { readonly kind: "number"; readonly min: number; readonly max: number }
  /** A count that may end in k, m, g (thousands) or K, M, G (powers of 1024). */
  | { readonly kind: "size" }
  | { readonly kind: "choice"; readonly of: readonly string[] }
  | { readonly kind: "json" }
  | { readonly kind: "text" }
  /** The absolute path of a file to read. */
  | { readonly kind: "path" };

export interface FlagRule {
  readonly takes: FlagValue;
  /** Only for who owns the runner, and why: a clause. */
  readonly ownerOnly?: string | undefined;
}

export interface FlagTable {
  /** For people. */
  readonly engine: string;
  readonly rules: ReadonlyMap<string, FlagRule>;
  /** What Tug decides, and where to say it instead. */
  readonly owned: Readonly<Record<string, string>>;
  /** Flags that say a setting of Tug: the setting, `{}` for "as you like", undefined for a value that stays a flag. */
  readonly folds: Readonly<Record<string, (value: string) => ReadFlags["settings"] | undefined>>;
  /** They let a model read more than it was trained for. */
  readonly stretching: ReadonlySet<string>;
  /** What flags, by name, change of the memory that a run takes; of several of one name the last. */
  readonly memory?: (said: ReadonlyMap<string, string | undefined>) => FlagMemory;
}

/** Words of one model: no command line of a person has as many. */
const MAX_WORDS = 256;
/** A value may be a whole configuration in JSON. Characters. */
const MAX_WORD_LENGTH = 64 * 1024;
/** Characters of a user's word that are shown. */
const MAX_SHOWN = 100;

/**
 * Takes out what Tug has a setting for; what is left is what the engine gets.
 *
 * @param flags words; `--flag=value` is accepted and split, and `_` in a name is `-`, as engines have it
 * @throws invalid_request for a flag that is not in the table, a value it does not take, or two that contradict;
 *   forbidden for what only the owner may say
 */
export function readPythonFlags(
  flags: readonly string[],
  table: FlagTable,
  { allowPaths }: FlagOptions,
): ReadFlags {
  const left: string[] = [];
  const files: string[] = [];
  const settings: Record<string, unknown> = {};
  let stretchesContext = false;
  const split = splitFlags(flags, table);
  for (const { name, value, rule } of split) {
    if (!allowPaths) refuseForeign(name, rule);
    if (rule.takes.kind === "path" && value !== undefined) files.push(value);
    const folded = value === undefined ? undefined : table.folds[name]?.(value);
    if (folded !== undefined) {
      addFolded(settings, name, folded);
      continue;
    }
    left.push(...(value === undefined ? [name] : [name, value]));
    stretchesContext ||= table.stretching.has(name);
  }
  const memory = table.memory?.(new Map(split.map(({ name, value }) => [name, value])));
  return { flags: left, settings, files, stretchesContext, memory };
}

/** As `readPythonFlags`, for flags that were read before: those of the engine, once more judged. */
export function checkPythonFlags(flags: readonly string[], table: FlagTable): readonly string[] {
  return splitFlags(flags, table).flatMap(({ name, value }) =>
    value === undefined ? [name] : [name, value],
  );
}

/** One rule for names in a text, with spaces between. */
export function rules(
  lines: readonly (readonly [FlagValue, string, string?])[],
): ReadonlyMap<string, FlagRule> {
  return new Map(
    lines.flatMap(([takes, names, ownerOnly]) =>
      words(names).map((name) => [name, { takes, ownerOnly }] as const),
    ),
  );
}

export function choice(text: string): FlagValue {
  return { kind: "choice", of: words(text) };
}

export function integer(min: number, max: number): FlagValue {
  return { kind: "integer", min, max };
}

export function number(min: number, max: number): FlagValue {
  return { kind: "number", min, max };
}

/** `8192`, `8k`, `8K`; undefined if it is none. @see vllm/utils/argparse_utils.py, human_readable_int */
export function parseSize(text: string): number | undefined {
  const found = /^(\d{1,15}(?:\.\d{1,6})?)([kKmMgG]?)$/.exec(text);
  if (found === null) return undefined;
  const [, amount = "", unit = ""] = found;
  const factor = FACTORS[unit] ?? 1;
  const isDecimal = amount.includes(".");
  if (isDecimal && (unit === "" || unit === unit.toUpperCase())) return undefined;
  const size = Math.floor(Number(amount) * factor);
  return Number.isSafeInteger(size) ? size : undefined;
}

// --- internal ---

const FACTORS: Readonly<Record<string, number>> = {
  k: 1e3,
  m: 1e6,
  g: 1e9,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
};

interface Flag {
  readonly name: string;
  readonly value: string | undefined;
  readonly rule: FlagRule;
}

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}

function splitFlags(flags: readonly string[], table: FlagTable): readonly Flag[] {
  if (flags.length > MAX_WORDS) throw refuse(`more than ${MAX_WORDS} words of runtime flags`);
  const split: Flag[] = [];
  for (let index = 0; index < flags.length; index += 1) {
    const [name, inline] = splitWord(flags[index] ?? "");
    const rule = table.rules.get(name);
    const isSwitch = rule?.takes.kind === "switch";
    if (rule === undefined || (isSwitch && inline !== undefined)) {
      throw refusal(name, inline, table);
    }
    if (isSwitch) {
      split.push({ name, value: undefined, rule });
      continue;
    }
    if (inline === undefined) index += 1;
    split.push({ name, value: checkValue(name, inline ?? flags[index], rule.takes), rule });
  }
  return split;
}

/** `["--dtype", "half"]` of `--dtype=half`; the value is undefined where the word has none. */
function splitWord(word: string): readonly [string, string | undefined] {
  if (!word.startsWith("-")) return [word, undefined];
  const equals = word.indexOf("=");
  const name = equals === -1 ? word : word.slice(0, equals);
  return [name.replaceAll("_", "-"), equals === -1 ? undefined : word.slice(equals + 1)];
}

function checkValue(name: string, value: string | undefined, takes: FlagValue): string {
  if (value === undefined || /^--?[a-zA-Z]/.test(value)) {
    throw refuse(`the flag \`${name}\`: it needs a value`, `Write \`${name} VALUE\`.`);
  }
  // A zero byte would end the word in the engine's eyes.
  const isSane = value.length <= MAX_WORD_LENGTH && !value.includes("\0");
  if (isSane && accepts(takes, value)) return value;
  throw refuse(
    `the flag \`${name}\`: \`${shown(value)}\` is not a value of it`,
    `Give it ${describe(takes)}.`,
  );
}

function accepts(takes: FlagValue, value: string): boolean {
  switch (takes.kind) {
    case "integer":
      return /^-?\d{1,15}$/.test(value) && isWithin(takes, value);
    case "number":
      return /^-?(?:\d+\.?\d*|\.\d+)$/.test(value) && isWithin(takes, value);
    case "size":
      return parseSize(value) !== undefined;
    case "choice":
      return takes.of.includes(value);
    case "json":
      return isObject(value);
    case "path":
      return /^(?:\/|[a-zA-Z]:[\\/])/.test(value);
    case "text":
    case "switch":
      break;
  }
  // Another flag would be taken for one.
  return value !== "" && !value.startsWith("-");
}

function isWithin({ min, max }: { readonly min: number; readonly max: number }, value: string) {
  return Number(value) >= min && Number(value) <= max;
}

function isObject(value: string): boolean {
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}

function describe(takes: FlagValue): string {
  switch (takes.kind) {
    case "integer":
      return `a whole number from ${takes.min} to ${takes.max}`;
    case "number":
      return `a number from ${takes.min} to ${takes.max}`;
    case "size":
      return "a count such as 8192, 8k or 8K";
    case "choice":
      return `one of ${takes.of.join(", ")}`;
    case "json":
      return "an object in JSON";
    case "path":
      return "the absolute path of a file";
    case "text":
    case "switch":
      break;
  }
  return "a text";
}

function refuseForeign(name: string, { takes, ownerOnly }: FlagRule): void {
  const why = takes.kind === "path" ? "files are named only by their owner" : ownerOnly;
  if (why === undefined) return;
  throw new AppError("forbidden", `cannot use the flag \`${name}\`: ${why}`, {
    hint: "Set it with `tug configure` on the runner's own machine.",
  });
}

/** The last word of several would win in the engine; here they must agree. */
function addFolded(
  settings: Record<string, unknown>,
  name: string,
  folded: ReadFlags["settings"],
): void {
  for (const [setting, value] of Object.entries(folded)) {
    const before = settings[setting];
    if (before !== undefined && before !== value) {
      throw refuse(`the flag \`${name}\`: another flag sets it differently`, "Give it once.");
    }
    settings[setting] = value;
  }
}

function refusal(name: string, inline: string | undefined, table: FlagTable): AppError {
  const { engine, owned } = table;
  if (!name.startsWith("-")) {
    return refuse(`\`${shown(name)}\`: it belongs to no flag`, "Write `--flag VALUE`.");
  }
  if (table.rules.has(name) && inline !== undefined) {
    return refuse(`the flag \`${name}\`: it takes no value`, `Write \`${name}\` alone.`);
  }
  if (Object.hasOwn(owned, name)) {
    return refuse(`the flag \`${name}\`: Tug decides it itself`, owned[name]);
  }
  const close = nearest(shown(name), [...table.rules.keys()]);
  const hint =
    close === undefined
      ? `Leave it out; ${engine} gets only flags that are known to be harmless.`
      : `Did you mean \`${close}\`?`;
  return refuse(`the flag \`${shown(name)}\`: it is not allowed for ${engine}`, hint);
}

function refuse(what: string, hint?: string): AppError {
  return new AppError("invalid_request", `cannot use ${what}`, { hint });
}

function shown(text: string): string {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}
