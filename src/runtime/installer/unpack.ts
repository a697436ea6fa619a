/** What unpackers share: limits, and the rule that nothing leaves the directory. */
import { type FileHandle, mkdir, open, realpath, symlink } from "node:fs/promises";
import { basename, dirname, join, normalize, sep } from "node:path";

import { AppError, errnoOf } from "../../errors.ts";

export interface UnpackRequest {
  readonly archive: string;
  /** Exists and is empty. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

/** The largest engine builds (CUDA) unpack to about 1 GiB; an archive that grows beyond this is a bomb. */
export const UNPACKED_LIMIT_BYTES = 8 * 1024 ** 3;
export const ENTRY_LIMIT = 10_000;

export interface Link {
  readonly path: string;
  readonly target: string;
}

export function refuse(reason: string): AppError {
  return new AppError("install_failed", `cannot unpack the archive: ${reason}`);
}

/**
 * The place of an entry below `directory`.
 *
 * @throws install_failed for a name that is absolute, climbs, or means something else on another platform
 */
export function placeOf(directory: string, name: string): string {
  const bad = name === "" || /[\0\\:]/.test(name) || name.startsWith("/");
  if (bad || name.split("/").includes("..")) throw refuse(`\`${name}\` leads out of it`);
  return join(directory, name);
}

/** A new file, in a directory that is made if need be. @throws install_failed if something of the archive is there */
export async function createFile(path: string, isExecutable: boolean): Promise<FileHandle> {
  try {
    await mkdir(dirname(path), { recursive: true });
    return await open(path, "wx", isExecutable ? 0o755 : 0o644);
  } catch (error) {
    if (!/^(?:EEXIST|ENOTDIR|EISDIR)$/.test(errnoOf(error) ?? "")) throw error;
    throw refuse(`two things in it are called \`${basename(path)}\``);
  }
}

/**
 * Links are made when all files are there, so that no file can be written through one; nor is a link made through one.
 *
 * @throws install_failed if one leads out of the directory, by itself or by way of others
 */
export async function makeLinks(directory: string, links: readonly Link[]): Promise<void> {
  const paths = new Set(links.map(({ path }) => path));
  for (const { path, target } of links) {
    const end = normalize(join(dirname(path), target));
    const inside = end.startsWith(directory + sep);
    if (target.startsWith("/") || target.includes("\0") || !inside) throw leadsOut(target);
    for (let at = dirname(path); at.startsWith(directory + sep); at = dirname(at))
      if (paths.has(at)) throw refuse("something in it lies below a link");
    await mkdir(dirname(path), { recursive: true });
    await symlink(target, path);
  }
  const root = await realpath(directory);
  for (const { path, target } of links) {
    // One that leads nowhere does no harm.
    const end = await realpath(path).catch((error: unknown) => {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw leadsOut(target);
    });
    if (end !== undefined && !end.startsWith(root + sep)) throw leadsOut(target);
  }
}

// --- internal ---

function leadsOut(target: string): AppError {
  return refuse(`the link \`${target}\` leads out of it`);
}
