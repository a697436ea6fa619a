/** How settings are read that are plain words, numbers and lists. Pure. @throws usage, each of them */
import { AppError } from "./errors.ts";
import { LOG_LEVELS, type LogLevel } from "./log.ts";

/** What of a wrong name is shown. Characters. */
const MAX_SHOWN = 80;

/** Registries refuse clients with many more. */
const MAX_CONNECTIONS = 64;

/** Settings and long conversations fit. */
const MIN_BODY_BYTES = 1024 * 1024;
/** A body is held in memory several times over while it is read, and as one string, which cannot be longer. */
const MAX_BODY_BYTES = 1024 * 1024 * 1024;

/** Docker Model Runner's variable is true or false, for all registries. */
export function parseInsecure(text: string): readonly string[] {
  if (/^(1|true|yes|on)$/i.test(text.trim())) return ["*"];
  if (/^(0|false|no|off)$/i.test(text.trim())) return [];
  return parseList(text);
}

/** Tables only come from the file. */
export function parseNoText(): never {
  throw new AppError("usage", "it is not a table");
}

export function toTables(value: unknown): Readonly<Record<string, unknown>> {
  return toTable(value, 'Write `[models."NAME"]` and one setting a line.');
}

export function toEngineTables(value: unknown): Readonly<Record<string, unknown>> {
  return toTable(value, 'Write `[engines."NAME"]` and one setting a line.');
}

/** A name, or the beginning of names with a `*` at its end, to the name of a model. */
export function toAliases(value: unknown): Readonly<Record<string, string>> {
  const hint = 'Write `[aliases]` and lines such as `"claude-*" = "ai/qwen3"`.';
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new AppError("usage", "it is not a table", { hint });
  }
  for (const [name, model] of Object.entries(value)) {
    const shown = name.slice(0, MAX_SHOWN);
    if (typeof model !== "string" || model.trim() === "") {
      throw new AppError("usage", `\`${shown}\` is not the name of a model`, { hint });
    }
    if (/\*./.test(name) || name.trim() === "") {
      const reason = "is no name: a `*` can only stand at its end";
      throw new AppError("usage", `\`${shown}\` ${reason}`, { hint });
    }
  }
  return value as Record<string, string>;
}

export function parseCount(text: string): number {
  if (/^\d{1,10}$/.test(text.trim())) return Number(text);
  throw new AppError("usage", `\`${text}\` is not a whole number`);
}

export function oneOf<T extends string>(words: readonly T[]): (text: string) => T {
  return (text) => {
    const found = words.find((word) => word === text.trim().toLowerCase());
    if (found !== undefined) return found;
    throw new AppError("usage", `\`${text}\` is none of ${words.join(", ")}`);
  };
}

export function parsePositive(text: string): number {
  const number = /^\d{1,6}$/.test(text.trim()) ? Number(text) : 0;
  if (number < 1) throw new AppError("usage", `\`${text}\` is not a whole number above 0`);
  return number;
}

/** `256MiB`, `1GB`, `500kB` or a number of bytes. */
export function parseBodySize(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,3})?)\s*(?:([KMG])(i?)B?|B)?$/i.exec(text.trim());
  const [, number, unit = "", binary] = match ?? [];
  const exponent = unit === "" ? 0 : "KMG".indexOf(unit.toUpperCase()) + 1;
  const bytes = Math.round(Number(number) * (binary ? 1024 : 1000) ** exponent);
  if (bytes >= MIN_BODY_BYTES && bytes <= MAX_BODY_BYTES) return bytes;
  throw new AppError("usage", `\`${text}\` is not a size of requests`, {
    hint: "Write it as `256MiB` or `1GB`, from 1MiB to 1GiB.",
  });
}

export function parseBoolean(text: string): boolean {
  if (/^(1|true|yes|on)$/i.test(text.trim())) return true;
  if (/^(0|false|no|off)$/i.test(text.trim())) return false;
  throw new AppError("usage", `\`${text}\` is neither true nor false`);
}

export function parseLogLevel(text: string): LogLevel {
  const level = text.trim().toLowerCase();
  const found = LOG_LEVELS.find(
    (name) => name === level || (name === "warn" && level === "warning"),
  );
  if (found === undefined)
    throw new AppError("usage", `\`${text}\` is not a log level`, {
      hint: `Use one of ${LOG_LEVELS.join(", ")}.`,
    });
  return found;
}

/** A header carries it, so it is one word of printable ASCII. */
export function parseApiKey(text: string): string {
  if (/^[\x21-\x7e]*$/.test(text)) return text;
  throw new AppError("usage", "the API key has characters that a header cannot carry", {
    hint: "Use letters, digits and punctuation, without spaces.",
  });
}

export function parseList(text: string): readonly string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

/** `10M`, `1.5MiB`, `800KB` or a number of bytes, a second; 0 is no limit. @throws usage */
export function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([KMG])(i?)B?|B)?(?:\/s)?$/i.exec(text.trim());
  if (match === null) {
    throw new AppError("usage", `\`${text}\` is not a rate`, {
      hint: "Write bytes a second as `10MB`, `512KiB` or `0` for no limit.",
    });
  }
  const [, number, unit, binary] = match;
  const exponent = unit === undefined ? 0 : "KMG".indexOf(unit.toUpperCase()) + 1;
  return Math.round(Number(number) * (binary ? 1024 : 1000) ** exponent);
}

/** @throws usage */
export function parseConnections(text: string): number {
  const number = /^\d{1,3}$/.test(text.trim()) ? Number(text) : 0;
  if (number >= 1 && number <= MAX_CONNECTIONS) return number;
  throw new AppError("usage", `\`${text}\` is not a number of connections`, {
    hint: `Give a whole number from 1 to ${MAX_CONNECTIONS}.`,
  });
}

// --- internal ---

function toTable(value: unknown, hint: string): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new AppError("usage", "it is not a table", { hint });
}
