/**
 * Environment markers of Python's packages, as far as lock files have them. Pure.
 *
 * @see https://packaging.python.org/en/latest/specifications/dependency-specifiers/#environment-markers
 */

export type MarkerEnvironment = Readonly<Record<string, string>>;

/** Whether a marker holds there. @throws Error for what it does not understand */
export function holds(marker: string, environment: MarkerEnvironment): boolean {
  const reader = new Reader(wordsOf(marker), environment);
  const result = reader.either();
  reader.end();
  return result;
}

// --- internal ---

const WORD = /\s*(\(|\)|===|==|!=|<=|>=|~=|<|>|'[^']*'|"[^"]*"|[a-z_]+)/y;

function wordsOf(marker: string): readonly string[] {
  const words: string[] = [];
  WORD.lastIndex = 0;
  while (marker.slice(WORD.lastIndex).trim() !== "") {
    const at = WORD.lastIndex;
    const word = WORD.exec(marker)?.[1];
    if (word === undefined) throw new Error(`cannot read the marker at \`${marker.slice(at)}\``);
    words.push(word);
  }
  return words;
}

class Reader {
  readonly #words: readonly string[];
  readonly #environment: MarkerEnvironment;
  #next = 0;

  constructor(words: readonly string[], environment: MarkerEnvironment) {
    this.#words = words;
    this.#environment = environment;
  }

  either(): boolean {
    let result = this.#both();
    // What follows is read in any case.
    while (this.#takes("or")) result = this.#both() || result;
    return result;
  }

  end(): void {
    if (this.#next < this.#words.length) throw new Error(`stray \`${this.#words[this.#next]}\``);
  }

  #both(): boolean {
    let result = this.#one();
    while (this.#takes("and")) result = this.#one() && result;
    return result;
  }

  #one(): boolean {
    if (this.#takes("(")) {
      const result = this.either();
      if (!this.#takes(")")) throw new Error("a bracket is left open");
      return result;
    }
    const left = this.#value();
    const isNegated = this.#takes("not");
    const operator = this.#word();
    const right = this.#value();
    if (operator === "in") return right.includes(left) !== isNegated;
    return compare(left, operator, right);
  }

  #value(): string {
    const word = this.#word();
    if (/^['"]/.test(word)) return word.slice(1, -1);
    const value = this.#environment[word];
    if (value === undefined) throw new Error(`nobody says what \`${word}\` is`);
    return value;
  }

  #word(): string {
    const word = this.#words[this.#next];
    if (word === undefined) throw new Error("it ends too early");
    this.#next += 1;
    return word;
  }

  #takes(word: string): boolean {
    if (this.#words[this.#next] !== word) return false;
    this.#next += 1;
    return true;
  }
}

const VERSION = /^\d+(?:\.\d+)*$/;

/** As versions if both are; `3.11.*` is any that begins like that. */
function compare(left: string, operator: string, right: string): boolean {
  if (right.endsWith(".*")) {
    const isAny = `${left}.`.startsWith(right.slice(0, -1));
    if (operator !== "==" && operator !== "!=") throw new Error(`\`${operator}\` takes no \`*\``);
    return isAny === (operator === "==");
  }
  const areVersions = VERSION.test(left) && VERSION.test(right);
  const order = areVersions ? orderOf(left, right) : Number(left > right) - Number(left < right);
  switch (operator) {
    case "==":
      return order === 0;
    case "!=":
      return order !== 0;
    case "<":
      return order < 0;
    case "<=":
      return order <= 0;
    case ">":
      return order > 0;
    case ">=":
      return order >= 0;
    default:
      throw new Error(`nobody knows the operator \`${operator}\``);
  }
}

function orderOf(left: string, right: string): number {
  const [one, other] = [left.split(".").map(Number), right.split(".").map(Number)];
  for (let index = 0; index < Math.max(one.length, other.length); index += 1) {
    const difference = (one[index] ?? 0) - (other[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
