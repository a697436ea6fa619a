/**
 * Installed engines on disk.
 *
 *     <root>/<backend>/<version>-<variant>/install.json   and the engine's files beside it
 *     <root>/<backend>/active.json                        which of them is used, and the one before it
 *     <root>/<backend>/.staging-<random>/                 being installed; whoever holds the lock may remove it
 *     <root>/<backend>/lock                               held while anything here changes
 */
import { open, readdir, rename, rm, stat } from "node:fs/promises";
import { join, sep } from "node:path";

import type { Installation } from "../backend.ts";
import { errnoOf } from "../../errors.ts";
import { DIRECTORY } from "./source.ts";

export const STAGING_PREFIX = ".staging-";
/** Before the name of an installation that is being replaced by a new one of the same version. */
export const RETIRED_PREFIX = ".retired-";
const RECORD = "install.json";
const POINTER = "active.json";
/** How large an installation was made: adding up the files of a Python environment takes seconds. */
const SIZE = "size.json";
/** Ends the name of a file that is being written. */
const TEMPORARY = ".tmp";

/** What `active.json` holds. An engine used in place has no directory of ours, so the whole record is in the pointer. */
export interface Pointer {
  readonly active: Installation;
  /** The last one that worked before `active`. */
  readonly previous: Installation | null;
}

export function lockPath(root: string, backend: string): string {
  return join(root, backend, "lock");
}

export function installationDirectory(
  root: string,
  backend: string,
  { version, variant }: { readonly version: string; readonly variant: string },
): string {
  return join(root, backend, `${safeName(version)}-${safeName(variant)}`);
}

export function pointerPath(root: string, backend: string): string {
  return join(root, backend, POINTER);
}

/** @returns undefined where there is none or it cannot be read: it is then as good as not installed */
export async function readPointer(root: string, backend: string): Promise<Pointer | undefined> {
  const stored = (await readJson(pointerPath(root, backend))) as Partial<Pointer> | undefined;
  if (!isInstallation(stored?.active)) return undefined;
  const { active, previous } = stored;
  const home = join(root, backend);
  return {
    active: locate(active, home),
    previous: isInstallation(previous) ? locate(previous, home) : null,
  };
}

export async function writePointer(
  root: string,
  backend: string,
  pointer: Pointer | undefined,
): Promise<void> {
  const path = pointerPath(root, backend);
  if (pointer === undefined) {
    await rm(path, { force: true });
    return;
  }
  const home = join(root, backend);
  const { active, previous } = pointer;
  await writeJson(path, {
    active: relocatable(active, home),
    previous: previous === null ? null : relocatable(previous, home),
  });
}

/** Writes `install.json`. Its directory is not read back: a record describes the directory it lies in. */
export async function writeRecord(directory: string, installation: Installation): Promise<void> {
  await writeJson(join(directory, SIZE), { bytes: await sizeOf(directory) });
  await writeJson(join(directory, RECORD), installation);
}

/** The installation in a directory, or undefined if it is not a usable one. */
export async function readRecord(directory: string): Promise<Installation | undefined> {
  const stored = await readJson(join(directory, RECORD));
  if (!isInstallation(stored)) return undefined;
  const found = bind({ ...stored, directory }, directory);
  return (await isUsable(found)) ? found : undefined;
}

export async function readInstallations(root: string, backend: string): Promise<Installation[]> {
  const names = await readdir(join(root, backend)).catch(missingIsEmpty);
  const directories = names.filter((name) => !name.startsWith(".")).toSorted();
  const found = await Promise.all(directories.map((name) => readRecord(join(root, backend, name))));
  return found.filter((installation) => installation !== undefined);
}

/** Replaces `{directory}` in a command. */
export function bind(installation: Installation, directory: string): Installation {
  const command = installation.command.map((word) => word.replace(DIRECTORY, () => directory));
  return { ...installation, directory, command };
}

/** True if its program is still there. */
export async function isUsable({ command }: Installation): Promise<boolean> {
  const found = await stat(command[0] ?? "").catch(() => undefined);
  return found?.isFile() === true;
}

/** True if both run the same program. */
export function sameEngine(left: Installation, right: Installation): boolean {
  return left.command.join("\0") === right.command.join("\0");
}

/** Bytes of an installation when it was made, else now. */
export async function installedSize(directory: string): Promise<number> {
  const stored = await readJson(join(directory, SIZE)).catch(() => undefined);
  const { bytes } = (stored ?? {}) as { readonly bytes?: unknown };
  return Number.isSafeInteger(bytes) && Number(bytes) >= 0 ? Number(bytes) : sizeOf(directory);
}

/** Bytes of all files below, links not followed: environments of Python have a directory under two names. */
async function sizeOf(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) bytes += await sizeOf(path);
    else if (entry.isFile()) bytes += (await stat(path).catch(() => undefined))?.size ?? 0;
  }
  return bytes;
}

/** Removes what interrupted installs left. The caller holds the lock. */
export async function removeDebris(root: string, backend: string): Promise<void> {
  const names = await readdir(join(root, backend)).catch(missingIsEmpty);
  for (const name of names.filter((one) => one.startsWith(RETIRED_PREFIX))) {
    const successor = name.slice(RETIRED_PREFIX.length);
    // Interrupted before the new one was in place: the old one is still good.
    if (!names.includes(successor)) {
      await rename(join(root, backend, name), join(root, backend, successor));
    }
  }
  for (const name of names.filter(isDebris)) {
    await rm(join(root, backend, name), { recursive: true, force: true });
  }
}

/** Staged and set aside directories, and a pointer that was being written. */
function isDebris(name: string): boolean {
  const isAside = name.startsWith(STAGING_PREFIX) || name.startsWith(RETIRED_PREFIX);
  return isAside || (name.startsWith(`${POINTER}.`) && name.endsWith(TEMPORARY));
}

// --- internal ---

/** Versions come from tags and package lists: they must not become paths. */
function safeName(text: string): string {
  const safe = text.replaceAll(/[^\w.+~-]/g, "_").replace(/^\.+/, "_");
  return safe === "" ? "_" : safe;
}

/** Stores paths relative to `home`, so that a moved TUG_HOME keeps its engines. */
function relocatable(installation: Installation, home: string): Installation {
  const { directory } = installation;
  if (!directory.startsWith(home + sep)) return installation;
  return {
    ...installation,
    directory: directory.slice(home.length + 1),
    command: installation.command.map((word) => word.replace(directory, () => DIRECTORY)),
  };
}

function locate(installation: Installation, home: string): Installation {
  const relative = installation.command.some((word) => word.includes(DIRECTORY));
  return relative ? bind(installation, join(home, installation.directory)) : installation;
}

function isInstallation(value: unknown): value is Installation {
  const found = value as Partial<Record<keyof Installation, unknown>> | null | undefined;
  return (
    typeof found?.backend === "string" &&
    typeof found.version === "string" &&
    typeof found.variant === "string" &&
    typeof found.directory === "string" &&
    ["string", "undefined"].includes(typeof found.reason) &&
    Array.isArray(found.command) &&
    found.command.every((word) => typeof word === "string")
  );
}

async function readJson(path: string): Promise<unknown> {
  try {
    return await Bun.file(path).json();
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Written aside, synced, renamed: a reader sees the old content or the new. */
async function writeJson(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.${process.pid}${TEMPORARY}`;
  const file = await open(temporary, "w", 0o644);
  try {
    await file.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

function missingIsEmpty(error: unknown): string[] {
  if (errnoOf(error) === "ENOENT") return [];
  throw error;
}
