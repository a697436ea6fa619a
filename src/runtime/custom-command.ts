/** The command of an engine of the user's own: words with placeholders. Pure. */
import type { ArgsInput } from "./backend.ts";

/** What may stand in `${…}`, and what it means. */
export const PLACEHOLDERS = {
  SOCKET: "path of the unix socket to listen on",
  PORT: "port of 127.0.0.1 to listen on",
  MODEL: "the first file of the weights; of safetensors their directory",
  MODEL_DIR: "the directory of the model's files",
  MODEL_NAME: "the name it was asked for by",
  CONTEXT: "tokens of context; -1 for the model's own maximum",
  CORES: "processors it may use",
} as const;

export type Placeholder = keyof typeof PLACEHOLDERS;

/** In order, each once; and the first of those that there are none of, as written. */
export interface FoundPlaceholders {
  readonly known: ReadonlySet<Placeholder>;
  readonly unknown: string | undefined;
}

/** `$${` is a `${` and no placeholder; one without its end is an unknown one. */
export function findPlaceholders(words: readonly string[]): FoundPlaceholders {
  const known = new Set<Placeholder>();
  let unknown: string | undefined;
  for (const word of words) {
    for (const [whole, name] of word.matchAll(PLACEHOLDER)) {
      if (whole === ESCAPED) continue;
      if (isPlaceholder(name)) known.add(name);
      else unknown ??= whole;
    }
  }
  return { known, unknown };
}

/** @param values those that are not there yet stay as they are written */
export function expand(
  word: string,
  values: Readonly<Partial<Record<Placeholder, string>>>,
): string {
  return word.replaceAll(PLACEHOLDER, (whole: string, name: string | undefined) => {
    if (whole === ESCAPED) return "${";
    return (isPlaceholder(name) ? values[name] : undefined) ?? whole;
  });
}

/** What they stand for in one run. */
export function valuesOf(input: ArgsInput): Readonly<Partial<Record<Placeholder, string>>> {
  const { bundle, alias, settings, cores, socket, port } = input;
  return {
    SOCKET: socket,
    // Each run has another one: who only explains has none.
    ...(port === undefined ? {} : { PORT: String(port) }),
    MODEL: bundle.format === "safetensors" ? bundle.directory : bundle.model,
    MODEL_DIR: bundle.directory,
    MODEL_NAME: alias,
    CONTEXT: String(settings.contextTokens ?? -1),
    CORES: String(cores),
  };
}

// --- internal ---

const PLACEHOLDER = /\$\$\{|\$\{([^}]*)\}?/g;
const ESCAPED = "$${";

function isPlaceholder(name: string | undefined): name is Placeholder {
  return name !== undefined && Object.hasOwn(PLACEHOLDERS, name);
}
