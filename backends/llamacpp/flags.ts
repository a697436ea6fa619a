/** Judges runtime flags, before anything is loaded. Pure. The flags themselves are in `flag-table.ts`. */
import { AppError } from "../../src/errors.ts";
import { nearest } from "../../src/nearest.ts";
import type { FlagOptions, ReadFlags } from "../../src/runtime/backend.ts";
import { FLAGS, type FlagValue, OWNED, STRETCHING, TELLING } from "./flag-table.ts";
import { foldFlag, MODE_FLAGS } from "./folded-flags.ts";
import { memoryOf } from "./memory-flags.ts";

/** Words of one model: no command line of a person has as many. */
const MAX_WORDS = 512;
/** A value may be a grammar or a schema. Characters. */
const MAX_WORD_LENGTH = 256 * 1024;
/** Characters of a user's word that are shown. */
const MAX_SHOWN = 100;

export interface Flag {
  readonly name: string;
  readonly value: string | undefined;
}

/**
 * @param flags already split into words; `--flag=value` is accepted and split, which llama-server itself does not do
 * @returns the words to pass on
 * @throws invalid_request for a flag that is not allowed, a value it does not take, or a value without a flag
 */
export function checkFlags(flags: readonly string[]): readonly string[] {
  return splitFlags(flags).flatMap(({ name, value }) =>
    value === undefined ? [name] : [name, value],
  );
}

/**
 * Judges them, and takes out what Tug has a setting for: said in two places, one would be wrong.
 *
 * @throws invalid_request as `checkFlags`, and for two flags that set the same differently; forbidden for a path from
 *   who may not name files
 */
export function readFlags(flags: readonly string[], { allowPaths }: FlagOptions): ReadFlags {
  const read: Reading = { flags: [], settings: {}, files: [], stretchesContext: false };
  const split = splitFlags(flags);
  for (const flag of split) {
    if (FLAGS.get(flag.name)?.kind === "path") checkPath(flag, allowPaths);
    if (TELLING.has(flag.name) && !allowPaths) throw tellsPrompts(flag);
    addFlag(read, flag);
  }
  return { ...read, memory: memoryOf(split) };
}

// --- internal ---

interface Reading {
  readonly flags: string[];
  readonly settings: Record<string, unknown>;
  readonly files: string[];
  mode?: ReadFlags["mode"];
  stretchesContext: boolean;
}

function addFlag(read: Reading, { name, value }: Flag): void {
  const mode = Object.hasOwn(MODE_FLAGS, name) ? MODE_FLAGS[name] : undefined;
  if (mode !== undefined) {
    // Reranking is said together with embedding, whichever comes first.
    if (read.mode !== "reranking") read.mode = mode;
    return;
  }
  const folded = value === undefined ? undefined : foldFlag(name, value);
  if (folded !== undefined) {
    addFolded(read.settings, name, Object.entries(folded));
    return;
  }
  read.flags.push(...(value === undefined ? [name] : [name, value]));
  if (value !== undefined && FLAGS.get(name)?.kind === "path") read.files.push(...value.split(","));
  read.stretchesContext ||= STRETCHING.has(name);
}

function splitFlags(flags: readonly string[]): readonly Flag[] {
  if (flags.length > MAX_WORDS) throw refuse(`more than ${MAX_WORDS} words of runtime flags`);
  const split: Flag[] = [];
  for (let index = 0; index < flags.length; index += 1) {
    const [name, inline] = splitFlag(flags[index] ?? "");
    const takes = FLAGS.get(name);
    if (takes?.kind === "switch" && inline === undefined) {
      split.push({ name, value: undefined });
      continue;
    }
    if (takes === undefined || takes.kind === "switch") throw refusal(name, inline);
    if (inline === undefined) index += 1;
    split.push({ name, value: checkValue(name, inline ?? flags[index], takes) });
  }
  return split;
}

function isFlag(word: string): boolean {
  return /^--?[a-zA-Z]/.test(word);
}

/** `["--top-k", "40"]` of `--top-k=40`; the value is undefined where the word has none. */
function splitFlag(word: string): readonly [string, string | undefined] {
  const equals = isFlag(word) ? word.indexOf("=") : -1;
  return equals === -1 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)];
}

function checkValue(name: string, value: string | undefined, takes: FlagValue): string {
  if (value === undefined || isFlag(value)) {
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
  if (takes.kind === "integer" || takes.kind === "number") {
    const isWritten = takes.kind === "integer" ? /^-?\d+$/.test(value) : isNumber(value);
    return isWritten && Number(value) >= takes.min && Number(value) <= takes.max;
  }
  if (takes.kind === "choice") return takes.of.includes(value);
  if (takes.kind === "numbers") return value.split(/[,/]/).every(isNumber);
  return takes.kind !== "path" || value !== "";
}

function isNumber(text: string): boolean {
  return /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
}

function describe(takes: FlagValue): string {
  if (takes.kind === "integer") return `a whole number from ${takes.min} to ${takes.max}`;
  if (takes.kind === "number") return `a number from ${takes.min} to ${takes.max}`;
  if (takes.kind === "choice") return `one of ${takes.of.join(", ")}`;
  if (takes.kind === "numbers") return "numbers with commas between them";
  return takes.kind === "path" ? "the absolute path of a file" : "a text";
}

/** What a runner reads for a client must be the client's to read. */
function checkPath({ name, value = "" }: Flag, allowPaths: boolean): void {
  if (!allowPaths) {
    throw new AppError(
      "forbidden",
      `cannot use the flag \`${name}\`: files are named only by their owner`,
      { hint: "Set it with `tug configure` on the runner's own machine." },
    );
  }
  for (const path of value.split(",")) {
    if (/^(\/|[a-zA-Z]:[\\/]|\\\\)/.test(path)) continue;
    throw refuse(
      `the flag \`${name}\`: \`${shown(path)}\` is not an absolute path`,
      "Write the whole path: an engine does not run where you are.",
    );
  }
}

function tellsPrompts({ name }: Flag): AppError {
  return new AppError(
    "forbidden",
    `cannot use the flag \`${name}\`: it writes prompts to the log, which only their owner may want`,
    { hint: "Set it with `tug configure` on the runner's own machine." },
  );
}

/** The last word of several would win in the engine; here they must agree. */
function addFolded(
  settings: Record<string, unknown>,
  name: string,
  folded: readonly (readonly [string, unknown])[],
): void {
  for (const [setting, value] of folded) {
    const before = settings[setting];
    if (Array.isArray(before) && Array.isArray(value)) {
      settings[setting] = [...(before as unknown[]), ...(value as unknown[])];
      continue;
    }
    if (before !== undefined && before !== value) {
      throw refuse(`the flag \`${name}\`: another flag sets it differently`, "Give it once.");
    }
    settings[setting] = value;
  }
}

function refusal(name: string, inline: string | undefined): AppError {
  if (FLAGS.has(name)) {
    return refuse(
      `the flag \`${name}=${shown(inline ?? "")}\`: it takes no value`,
      `Write \`${name}\` alone.`,
    );
  }
  if (!isFlag(name)) {
    return refuse(
      `\`${shown(name)}\` as a runtime flag: no flag precedes it`,
      "Write flags as `--name VALUE`.",
    );
  }
  const owned = Object.hasOwn(OWNED, name) ? OWNED[name] : undefined;
  if (owned !== undefined) return refuse(`the flag \`${name}\`: Tug sets it itself`, owned);
  const guess = name.length <= MAX_SHOWN ? nearest(name, longNames()) : undefined;
  return refuse(
    `the flag \`${shown(name)}\`: it is not among those a model may set`,
    guess === undefined
      ? "Leave it out; flags that open the network, run tools or write files are never allowed."
      : `Did you mean \`${guess}\`?`,
  );
}

function longNames(): readonly string[] {
  return [...FLAGS.keys()].filter((name) => name.startsWith("--"));
}

function shown(word: string): string {
  return word.length > MAX_SHOWN ? `${word.slice(0, MAX_SHOWN)}…` : word;
}

function refuse(what: string, hint?: string): AppError {
  return new AppError("invalid_request", `cannot use ${what}`, { hint });
}
