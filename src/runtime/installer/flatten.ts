/** Gathers chosen files of an unpacked tree in one flat directory, where a loader finds all of them. */
import { lstat, readlink, rename, symlink } from "node:fs/promises";
import { basename, join } from "node:path";

export interface FlattenInput {
  readonly tree: string;
  /** Globs relative to the tree. */
  readonly patterns: readonly string[];
  readonly directory: string;
}

/**
 * Moves the files; a link is made again if what it names was moved too, and is dropped otherwise.
 *
 * @returns the names now in the directory
 */
export async function flatten(input: FlattenInput): Promise<readonly string[]> {
  const names = new Set<string>();
  const links = new Map<string, string>();
  for (const path of await matches(input)) {
    const from = join(input.tree, path);
    const entry = await lstat(from);
    if (entry.isSymbolicLink()) links.set(basename(path), basename(await readlink(from)));
    if (!entry.isFile() || names.has(basename(path))) continue;
    await rename(from, join(input.directory, basename(path)));
    names.add(basename(path));
  }
  const linked = [...links].filter(([name, target]) => !names.has(name) && names.has(target));
  for (const [name, target] of linked) {
    await symlink(target, join(input.directory, name));
    names.add(name);
  }
  return [...names].toSorted();
}

// --- internal ---

async function matches({ tree, patterns }: FlattenInput): Promise<readonly string[]> {
  const found = new Set<string>();
  for (const pattern of patterns) {
    const glob = new Bun.Glob(pattern);
    const paths = glob.scan({ cwd: tree, onlyFiles: false, followSymlinks: false });
    for await (const path of paths) found.add(path);
  }
  return [...found].toSorted();
}
