/**
 * Strict parsing of a command's arguments. citty's own parser accepts unknown flags and surplus words in silence and
 * keeps only the last of a repeated flag; Node's tokenizer says what was typed, and this decides what it means. Pure.
 */
import { parseArgs } from "node:util";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type {
  ArgumentDefinition,
  ArgumentDefinitions,
  ArgumentValues,
  BooleanFlag,
  StringFlag,
} from "./command.ts";

type Flag = StringFlag | BooleanFlag;
type Token =
  | {
      kind: "option";
      name: string;
      rawName: string;
      value?: string | undefined;
      inlineValue?: boolean | undefined;
    }
  | { kind: "positional"; value: string }
  | { kind: "option-terminator" };

/** @throws usage, with the nearest flag as the hint */
export function parseArguments<T extends ArgumentDefinitions>(
  definitions: T,
  words: readonly string[],
): ArgumentValues<T> {
  const values: Record<string, unknown> = emptyValues(definitions);
  const positionals: string[] = [];
  for (const token of tokenize(definitions, words)) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind === "option") assignFlag(definitions, token, values);
  }
  assignPositionals(definitions, positionals, values);
  return values as ArgumentValues<T>;
}

// --- internal ---

function emptyValues(definitions: ArgumentDefinitions): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(definitions).map(([name, definition]) => [
      name,
      isList(definition) ? [] : undefined,
    ]),
  );
}

function isList(definition: ArgumentDefinition): boolean {
  if (definition.type === "string") return definition.multiple === true;
  return definition.type === "positional" && definition.rest === true;
}

function tokenize(definitions: ArgumentDefinitions, words: readonly string[]): Token[] {
  const options: Record<string, { type: "string" | "boolean"; short?: string }> = {};
  for (const [name, definition] of Object.entries(definitions)) {
    if (definition.type === "positional") continue;
    options[name] = {
      type: definition.type,
      ...(definition.alias === undefined ? {} : { short: definition.alias }),
    };
  }
  const { tokens } = parseArgs({
    args: [...words],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  return tokens;
}

function assignFlag(
  definitions: ArgumentDefinitions,
  token: Token & { kind: "option" },
  values: Record<string, unknown>,
): void {
  const { name, negated } = resolveFlag(definitions, token);
  const flag = definitions[name] as Flag;
  if (flag.type === "boolean") {
    values[name] = booleanValue(token, negated);
    return;
  }
  if (token.value === undefined) {
    throw new AppError("usage", `\`${token.rawName}\` needs a value`, {
      hint: `Write \`${token.rawName} ${flag.valueHint ?? "VALUE"}\`.`,
    });
  }
  if (flag.options !== undefined && !flag.options.includes(token.value)) {
    throw new AppError("usage", `\`${token.value}\` is not a value of \`${token.rawName}\``, {
      hint: `Use one of ${flag.options.join(", ")}.`,
    });
  }
  if (flag.multiple) {
    (values[name] as string[]).push(token.value);
    return;
  }
  if (values[name] !== undefined) {
    throw new AppError("usage", `\`${token.rawName}\` is given twice`, { hint: "Give it once." });
  }
  values[name] = token.value;
}

function resolveFlag(
  definitions: ArgumentDefinitions,
  token: Token & { kind: "option" },
): { name: string; negated: boolean } {
  const definition = own(definitions, token.name);
  if (definition !== undefined && definition.type !== "positional")
    return { name: token.name, negated: false };
  const positive = token.name.startsWith("no-") ? token.name.slice(3) : undefined;
  const negatable = positive === undefined ? undefined : own(definitions, positive);
  if (positive !== undefined && negatable?.type === "boolean" && negatable.negatable)
    return { name: positive, negated: true };
  const flags = Object.entries(definitions)
    .filter(([, { type }]) => type !== "positional")
    .map(([name]) => name);
  const guess = nearest(token.name, [...flags, "help"]);
  throw new AppError("usage", `unknown flag \`${token.rawName}\``, {
    hint:
      guess === undefined
        ? "Run the command with `--help` for its flags; put words that begin with a dash behind `--`."
        : `Did you mean \`--${guess}\`?`,
  });
}

/** Not what every object has, such as `constructor`. */
function own(definitions: ArgumentDefinitions, name: string): ArgumentDefinition | undefined {
  return Object.hasOwn(definitions, name) ? definitions[name] : undefined;
}

function booleanValue(token: Token & { kind: "option" }, negated: boolean): boolean {
  if (token.value === undefined) return !negated;
  if (token.value === "true" || token.value === "false")
    return (token.value === "true") !== negated;
  throw new AppError("usage", `\`${token.rawName}\` takes no value`, {
    hint: `Write \`${token.rawName}\` alone, or \`=false\`.`,
  });
}

function assignPositionals(
  definitions: ArgumentDefinitions,
  words: readonly string[],
  values: Record<string, unknown>,
): void {
  const left = [...words];
  for (const [name, definition] of Object.entries(definitions)) {
    if (definition.type !== "positional") continue;
    const required = definition.required !== false;
    if (required && left.length === 0) {
      throw new AppError("usage", `${name.toUpperCase()} is missing`, {
        hint: "Run the command with `--help` for how it is used.",
      });
    }
    values[name] = definition.rest ? left.splice(0) : left.shift();
  }
  if (left.length > 0) {
    throw new AppError("usage", `unexpected argument \`${left[0]}\``, {
      hint: "Run the command with `--help` for how it is used.",
    });
  }
}
