/**
 * What a server wants to know before it answers.
 *
 * ```
 * WWW-Authenticate := challenge *("," challenge)
 * challenge        := scheme [SP (token68 | param *("," param))]
 * param            := token "=" (token | quoted-string)
 * ```
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
 */

export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case; of a name that comes twice, the first. */
  readonly params: ReadonlyMap<string, string>;
}

/** Real ones have a few hundred characters. What is longer is no challenge. */
const MAX_LENGTH = 8 * 1024;
const MAX_CHALLENGES = 8;
const MAX_PARAMS = 16;

/** Reads as far as it can be understood: servers are sloppy with quotes, and one good challenge is enough. */
export function parseChallenges(header: string | null): readonly Challenge[] {
  if (header === null || header.length > MAX_LENGTH) return [];
  const scanner = new Scanner(header);
  const challenges: Challenge[] = [];
  while (challenges.length < MAX_CHALLENGES) {
    scanner.take(SEPARATORS);
    const scheme = scanner.take(TOKEN);
    if (scheme === undefined) break;
    if (scanner.take(TOKEN68) !== undefined) {
      challenges.push({ scheme: scheme.toLowerCase(), params: new Map() });
      continue;
    }
    challenges.push({ scheme: scheme.toLowerCase(), params: takeParams(scanner) });
  }
  return challenges;
}

// --- internal ---

const SEPARATORS = /[\s,]*/y;
const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
/** It stands alone between a scheme and the next comma. */
const TOKEN68 = /[ \t]+[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/y;
const NAME = /[\s,]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/sy;
/** More than the grammar has: addresses are often not quoted. */
const BARE = /[^\s,"]+/y;

class Scanner {
  #at = 0;
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** @returns the first group, or the whole match; undefined, without moving, if it does not stand here */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.#at += match[0].length;
    return match[1] ?? match[0];
  }
}

function takeParams(scanner: Scanner): ReadonlyMap<string, string> {
  const params = new Map<string, string>();
  while (params.size < MAX_PARAMS) {
    const name = scanner.take(NAME)?.toLowerCase();
    if (name === undefined) break;
    const value = scanner.take(QUOTED)?.replaceAll(/\\(.)/gs, "$1") ?? scanner.take(BARE);
    if (value === undefined) break;
    if (!params.has(name)) params.set(name, value);
  }
  return params;
}
