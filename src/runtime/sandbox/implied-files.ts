/** Files that an engine opens though neither its command nor its model's bundle names them. */
import { readdir, readlink, realpath } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";

import type { Bundle, Installation, WorkerSettings } from "../backend.ts";

export interface NamedFiles {
  readonly installation: Installation;
  readonly bundles: readonly Bundle[];
  readonly settings: WorkerSettings;
  /** The user's, which no engine is shown as a whole. */
  readonly home: string;
}

/** Entries of a directory that are looked at; models and engines have tens. */
const MAX_ENTRIES = 10_000;

/** Paths, absolute, of which some may be missing. A directory that cannot be read implies nothing. */
export async function impliedFiles(named: NamedFiles): Promise<readonly string[]> {
  const { installation, bundles, settings, home } = named;
  const directories = bundles.filter(({ format }) => format !== "gguf");
  const found = await Promise.all([
    installation.source === "path"
      ? librariesAround(installation, home)
      : linkTargets(installation.directory, { recursive: false }),
    ...directories.map(({ directory }) => linkTargets(directory, { recursive: true })),
  ]);
  return [...new Set([...found.flat(), ...flagPaths(settings.runtimeFlags)])];
}

// --- internal ---

/**
 * Of an engine of the user's own, which may lie in the middle of that user's things: the shared libraries beside the
 * program, where it is and where it is linked to, and `lib` beside a `bin`.
 */
async function librariesAround(
  { command }: Installation,
  home: string,
): Promise<readonly string[]> {
  const [program = ""] = command;
  const target = await realpath(program).catch(() => program);
  const found: string[] = [];
  for (const place of new Set([dirname(program), dirname(target)])) {
    found.push(...(await libraries(place)));
    const beside = join(dirname(place), "lib");
    if (basename(place) === "bin" && !contains(beside, home)) found.push(beside);
  }
  return found;
}

async function libraries(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory).catch((): string[] => []);
  return names
    .filter((name) => /\.(?:so(?:\.[\d.]+)?|dylib|metallib)$/.test(name))
    .slice(0, MAX_ENTRIES)
    .map((name) => join(directory, name));
}

/** Links stay links inside, so what they point to must be there under that path; within the directory it is. */
async function linkTargets(
  directory: string,
  { recursive }: { readonly recursive: boolean },
): Promise<readonly string[]> {
  const entries = await readdir(directory, { recursive, withFileTypes: true }).catch(() => []);
  const targets: string[] = [];
  for (const entry of entries.slice(0, MAX_ENTRIES)) {
    if (!entry.isSymbolicLink()) continue;
    const target = await readlink(join(entry.parentPath, entry.name)).catch(() => undefined);
    if (target !== undefined) targets.push(resolve(entry.parentPath, target));
  }
  return targets.filter((target) => !contains(directory, target));
}

/** `--flag /file`, `--flag=/file`, and lists of files; the backend has checked that the flag may name one. */
function flagPaths(flags: readonly string[]): readonly string[] {
  return flags
    .flatMap((flag) => flag.replace(/^-[^=]*=/, "").split(","))
    .map((word) => word.replace(/^"(.*)"$/, "$1"))
    .filter((word) => isAbsolute(word) && word !== "/");
}

/** Whether `inner` is `place` or in it. */
function contains(place: string, inner: string): boolean {
  const way = relative(place, inner);
  return !way.startsWith("..") && !isAbsolute(way);
}
