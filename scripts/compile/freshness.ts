/** Whether `dist/tug` is what the sources say. Built-ins only: it runs where node_modules may be absent. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "..", "..");
export const BINARY = join(ROOT, "dist", process.platform === "win32" ? "tug.exe" : "tug");

/** What goes into the executable, relative to the root. */
const INPUTS = ["src", "backends", "scripts/compile", "package.json", "bun.lock", "tsconfig.json"];

/**
 * True if `binary` exists and nothing it is made of has changed since. Directories count too: deleting or renaming a
 * file changes its directory.
 */
export async function isFresh(binary: string, root: string): Promise<boolean> {
  const built = await modifiedAt(binary);
  if (built === undefined) return false;
  for (const input of INPUTS) {
    if ((await newest(join(root, input))) >= built) return false;
  }
  return true;
}

/**
 * Makes `dist/tug` fresh, installing the dependencies first where they are missing or older than the lockfile.
 *
 * @returns whether it compiled
 */
export async function ensureCompiled(): Promise<boolean> {
  if (await isFresh(BINARY, ROOT)) return false;
  const installed = await modifiedAt(join(ROOT, "node_modules"));
  if (installed === undefined || installed < (await newest(join(ROOT, "bun.lock")))) {
    await runBun(["install", "--frozen-lockfile"]);
  }
  await runBun([join(ROOT, "scripts", "compile", "index.ts")]);
  return true;
}

// --- internal ---

/** With the Bun that runs this, whatever `bun` on PATH is. Its output goes to stderr: stdout is for the answer. */
async function runBun(args: readonly string[]): Promise<void> {
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: ROOT,
    stdio: ["ignore", 2, 2],
  });
  const exitCode = await child.exited;
  if (exitCode !== 0) throw new Error(`\`bun ${args.join(" ")}\` left with ${exitCode}`);
}

async function newest(path: string): Promise<number> {
  let latest = (await modifiedAt(path)) ?? 0;
  const entries = await readdir(path, { withFileTypes: true, recursive: true }).catch(() => []);
  for (const entry of entries) {
    latest = Math.max(latest, (await modifiedAt(join(entry.parentPath, entry.name))) ?? 0);
  }
  return latest;
}

/** Milliseconds, or undefined if there is no such file. */
async function modifiedAt(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined;
  }
}
