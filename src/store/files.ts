/** Files that survive a crash: written whole, synchronised, renamed into place. */
import { chmod, open, rename, rm, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../errors.ts";

/** Virus scanners and readers hold a file on Windows for a moment; a rename over it fails meanwhile. */
const RENAME_ATTEMPTS = 20;
const RENAME_PAUSE_MS = 25;

/** Replaces `path` by a file with these bytes, atomically: a reader sees the old ones or the new ones. */
export async function replaceFile(
  path: string,
  temporary: string,
  bytes: Uint8Array,
): Promise<void> {
  try {
    const handle = await open(temporary, "w", 0o644);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await renameDurably(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Renames, and returns when the new name would survive a power failure. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await renameWithPatience(from, to);
  await syncDirectory(dirname(to));
}

/** Forces the names in a directory to disk; Windows has no such call and needs none. */
async function syncDirectory(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems have nothing to synchronise here.
    if (errnoOf(error) !== "EINVAL" && errnoOf(error) !== "ENOTSUP") throw error;
  } finally {
    await handle.close();
  }
}

/** Forces a file's bytes to disk. Windows wants a writable handle for that: there the file must not be read-only yet. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, process.platform === "win32" ? "r+" : "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Removes a file, a read-only one on Windows too. @returns false if there was none */
export async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    if (process.platform !== "win32" || errnoOf(error) !== "EPERM") throw error;
  }
  await chmod(path, 0o666);
  await unlink(path);
  return true;
}

/** The value, or `fallback` where nothing is at the path. */
export async function orIfMissing<T>(work: Promise<T>, fallback: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return fallback;
    throw error;
  }
}

// --- internal ---

async function renameWithPatience(from: string, to: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await rename(from, to);
    } catch (error) {
      const isHeld = /^(?:EPERM|EACCES|EBUSY)$/.test(errnoOf(error) ?? "");
      if (process.platform !== "win32" || !isHeld || attempt === RENAME_ATTEMPTS) throw error;
    }
    await Bun.sleep(RENAME_PAUSE_MS);
  }
}
