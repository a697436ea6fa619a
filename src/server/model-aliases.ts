/** Names that clients ask for and that stand for models of this machine, as the user says in `[aliases]`. */
import { AppError, toAppError } from "../errors.ts";

export type Aliases = Readonly<Record<string, string>>;

/**
 * @param resolve asked first: a model of the store wins over an alias of its name
 * @returns the same, for aliases too. An alias stands for a model, not for another alias.
 */
export function withAliases<Rest extends readonly unknown[], Found>(
  aliases: Aliases,
  resolve: (name: string, ...rest: Rest) => Promise<Found>,
): (name: string, ...rest: Rest) => Promise<Found> {
  if (Object.keys(aliases).length === 0) return resolve;
  return async (name, ...rest) => {
    try {
      return await resolve(name, ...rest);
    } catch (thrown) {
      const error = toAppError(thrown);
      const target = isUnknown(error) ? findAlias(aliases, name) : undefined;
      if (target === undefined) throw error;
      return resolveTarget(() => resolve(target, ...rest), name);
    }
  };
}

/** The name itself wins, then the longest beginning of it. */
export function findAlias(aliases: Aliases, name: string): string | undefined {
  if (Object.hasOwn(aliases, name)) return aliases[name];
  const patterns = Object.keys(aliases).filter(
    (key) => key.endsWith("*") && name.startsWith(key.slice(0, -1)),
  );
  const longest = patterns.toSorted((one, other) => other.length - one.length)[0];
  return longest === undefined ? undefined : aliases[longest];
}

// --- internal ---

/** What a client is shown of a name. Characters. */
const MAX_SHOWN = 80;

/** Names of hosted models need not be references at all. */
function isUnknown({ code }: AppError): boolean {
  return code === "model_not_found" || code === "invalid_reference";
}

async function resolveTarget<Found>(find: () => Promise<Found>, name: string): Promise<Found> {
  try {
    return await find();
  } catch (thrown) {
    const { code, message, hint, details } = toAppError(thrown);
    const why = `\`[aliases]\` gives it for \`${name.slice(0, MAX_SHOWN)}\``;
    throw new AppError(code, `${message} (${why})`, { hint, details, cause: thrown });
  }
}
