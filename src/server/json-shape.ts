/**
 * How deep and how large a JSON text is, before anybody parses it: parsers and engines recurse into what is deep, and a
 * body of nothing but brackets takes twenty times its size once it is parsed. Pure.
 */
import { AppError } from "../errors.ts";

/**
 * The schemas of tools are the deepest that requests hold, at some dozens. llama-server takes seconds for the grammar
 * of a schema 4000 deep, and dies of one that is 40,000 deep.
 */
export const MAX_JSON_DEPTH = 256;
/** Token arrays of a thousand long texts; as values they take some hundred MiB. Counted by their commas. */
export const MAX_JSON_VALUES = 4 * 1024 * 1024;

/** From here on the end of a string is searched for, which costs more to begin and less a byte. Bytes. */
const SHORT_STRING = 32;

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;

/** Text that is no JSON passes: the parser says what is wrong with it. @throws invalid_request */
export function checkJsonShape(bytes: Uint8Array): void {
  let depth = 0;
  let values = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte === QUOTE) at = endOfString(bytes, at);
    else if (byte === COMMA) values += 1;
    // `[` and `{` differ in one bit from one another, and so do `]` and `}`.
    else if ((byte | 0x20) === 0x7b) depth += 1;
    else if ((byte | 0x20) === 0x7d) depth -= 1;
    if (depth > MAX_JSON_DEPTH) throw refused(`it is nested deeper than ${MAX_JSON_DEPTH} levels`);
    if (values > MAX_JSON_VALUES) throw refused(`it has more than ${MAX_JSON_VALUES} values`);
  }
}

// --- internal ---

/** @param start where it opens @returns where it closes, or the end of the text */
function endOfString(bytes: Uint8Array, start: number): number {
  const near = Math.min(bytes.length, start + SHORT_STRING);
  for (let at = start + 1; at < near; at += 1) {
    if (bytes[at] === BACKSLASH) at += 1;
    else if (bytes[at] === QUOTE) return at;
  }
  return farEnd(bytes, start);
}

function farEnd(bytes: Uint8Array, start: number): number {
  for (let at = bytes.indexOf(QUOTE, start + 1); at >= 0; at = bytes.indexOf(QUOTE, at + 1)) {
    if (!isEscaped(bytes, at, start)) return at;
  }
  return bytes.length;
}

/** An odd number of backslashes before it. */
function isEscaped(bytes: Uint8Array, at: number, start: number): boolean {
  let before = at;
  while (before - 1 > start && bytes[before - 1] === BACKSLASH) before -= 1;
  return (at - before) % 2 === 1;
}

function refused(reason: string): AppError {
  return new AppError("invalid_request", `cannot read the request: ${reason}`, {
    hint: "Send a simpler one.",
  });
}
