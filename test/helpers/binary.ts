import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BINARY, ensureCompiled } from "../../scripts/compile/freshness.ts";
import { acquireLock } from "../../src/lock.ts";

/** Installing dependencies and compiling, for another process on a slow machine. */
const COMPILE_WAIT_MS = 180_000;

let ready: Promise<string> | undefined;

/** Path of `dist/tug`, compiled first if it is missing or older than the sources; once per process. */
export function tugBinary(): Promise<string> {
  ready ??= compileOnce();
  return ready;
}

// --- internal ---

/** One process at a time; the others then find it fresh. */
async function compileOnce(): Promise<string> {
  const directory = dirname(BINARY);
  await mkdir(directory, { recursive: true });
  using _lock = await acquireLock(join(directory, "compile.lock"), { waitMs: COMPILE_WAIT_MS });
  await ensureCompiled();
  return BINARY;
}
