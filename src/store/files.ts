/** Files that survive a crash: written whole, synchronised, renamed into place. */
import { chmod, open, rename, rm, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../errors.ts";
import { pause } from "../pause.ts";

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
  await withPatience(() => rename(from, to));
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

/** Removes a file. @returns false if there was none */
export async function removeFile(path: string, platform = process.platform): Promise<boolean> {
  return orIfMissing(
    (async () => {
      // Windows does not remove what is read-only, as blobs are.
      if (platform === "win32") await chmod(path, 0o666);
      await unlink(path);
      return true;
    })(),
    false,
  );
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

/** Tries again for half a second on Windows while somebody holds the file; elsewhere nobody can. */
export async function withPatience(
  work: () => Promise<void>,
  platform = process.platform,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      const isHeld = /^(?:EPERM|EACCES|EBUSY)$/.test(errnoOf(error) ?? "");
      if (platform !== "win32" || !isHeld || attempt === RENAME_ATTEMPTS) throw error;
    }
    await pause(RENAME_PAUSE_MS);
  }
}
