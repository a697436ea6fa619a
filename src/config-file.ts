/** Reads `config.toml`. */
import { readFileSync } from "node:fs";
import { AppError, errnoOf } from "./errors.ts";

/**
 * @param known names of settings; another one is a mistake
 * @returns {} if there is no file
 * @throws usage
 */
export function readConfigFile(
  path: string,
  known: ReadonlySet<string>,
): Readonly<Record<string, unknown>> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return {};
    throw new AppError("usage", `cannot read \`${path}\`: ${(error as Error).message}`, {
      hint: "Make it readable, or set HOME or TUG_HOME to a directory of your own.",
      cause: error,
    });
  }
  const values = parseToml(text, path);
  for (const key of Object.keys(values)) {
    if (known.has(key)) continue;
    throw new AppError("usage", `cannot read \`${path}\`: unknown setting \`${key}\``, {
      hint: `Known settings: ${[...known].join(", ")}.`,
    });
  }
  return values;
}

// --- internal ---

function parseToml(text: string, path: string): Readonly<Record<string, unknown>> {
  try {
    return Bun.TOML.parse(text) as Record<string, unknown>;
  } catch (cause) {
    throw new AppError("usage", `cannot read \`${path}\`: ${(cause as Error).message}`, {
      hint: "Correct the file; it is TOML.",
      cause,
    });
  }
}
