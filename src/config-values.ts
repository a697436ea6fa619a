/** How settings are read that are plain words, numbers and lists. Pure. @throws usage, each of them */
import { AppError } from "./errors.ts";
import { LOG_LEVELS, type LogLevel } from "./log.ts";

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
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new AppError("usage", "it is not a table", {
    hint: 'Write `[models."NAME"]` and one setting a line.',
  });
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
