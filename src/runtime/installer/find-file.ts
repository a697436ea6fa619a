/** Looks for a program in what was unpacked. */
import { readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";

/** The one nearest to the top, relative to `directory`. */
export async function findFile(directory: string, name: string): Promise<string | undefined> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  const paths = entries
    .filter((entry) => entry.isFile() && entry.name === name)
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)));
  return paths.toSorted((left, right) => left.split(sep).length - right.split(sep).length)[0];
}
