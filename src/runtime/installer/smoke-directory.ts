/** Where an engine is tried: a short path, for the length of a socket's is limited, that nobody else can write to. */
import { lstat, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PREFIX = "tug-smoke-";
/** Longer than any engine is tried: who has made it was killed. */
const LEFT_AFTER_MS = 3_600_000;

/** Also removes what killed ones left. @param parent default: the system's directory for temporary files */
export async function makeSmokeDirectory(parent = tmpdir()): Promise<string> {
  await removeLeft(parent);
  return mkdtemp(join(parent, PREFIX));
}

// --- internal ---

async function removeLeft(parent: string): Promise<void> {
  const names = await readdir(parent).catch(() => []);
  for (const path of names
    .filter((name) => name.startsWith(PREFIX))
    .map((it) => join(parent, it))) {
    const facts = await lstat(path).catch(() => undefined);
    const isLeft = facts?.isDirectory() === true && Date.now() - facts.mtimeMs > LEFT_AFTER_MS;
    // Other users' are theirs to remove.
    if (isLeft) await rm(path, { recursive: true, force: true }).catch(() => undefined);
  }
}
