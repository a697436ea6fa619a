/** Splits text into words as a shell does, without expanding anything. Pure. */
import { AppError } from "../errors.ts";

/** What is split, for messages. */
export interface SplitText {
  /** Such as `the runtime flags`. */
  readonly name: string;
  readonly hint: string;
}

/** A command line nobody would type. Characters. */
const MAX_TEXT = 64 * 1024;
const RUNTIME_FLAGS: SplitText = {
  name: "the runtime flags",
  hint: "Write them as for a shell, or as a list in `runtime-flags`.",
};

/**
 * Words are parted by white space; single quotes keep everything, double quotes all but a backslash before `"`, `\`, `$`
 * and a backtick.
 *
 * @throws invalid_request (a quote without its end, a backslash at the end, or too long)
 * @see https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html#tag_18_02
 */
export function splitShellWords(text: string, what: SplitText = RUNTIME_FLAGS): readonly string[] {
  if (text.length > MAX_TEXT) throw refuse(what, `it is longer than ${MAX_TEXT} characters`);
  const words: string[] = [];
  let rest = text.trimStart();
  while (rest !== "") {
    const [word, length] = readWord(rest, what);
    words.push(word);
    rest = rest.slice(length).trimStart();
  }
  return words;
}

// --- internal ---

/** A run of plain characters, one escaped character, or a quoted part. */
const PART = /^(?:([^\s'"\\]+)|\\([^])|'([^']*)'|"((?:[^"\\]|\\[^])*)")/;

/** @returns the word, and how much of the text it took */
function readWord(text: string, what: SplitText): readonly [string, number] {
  let word = "";
  let at = 0;
  while (at < text.length && !/\s/.test(text.charAt(at))) {
    const part = PART.exec(text.slice(at));
    if (part === null) {
      const isBackslash = text.charAt(at) === "\\";
      throw refuse(what, isBackslash ? "it ends in a backslash" : "a quote has no end");
    }
    const [whole, plain, escaped, single, double] = part;
    word += plain ?? escaped ?? single ?? double?.replaceAll(/\\(["\\$`])/g, "$1") ?? "";
    at += whole.length;
  }
  return [word, at];
}

function refuse({ name, hint }: SplitText, reason: string): AppError {
  return new AppError("invalid_request", `cannot split ${name} into words: ${reason}`, { hint });
}
