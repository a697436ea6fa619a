/**
 * Pebble, the model inside the executable: a few megabytes that can hold a short conversation, for trying Tug without a
 * download and for testing that an engine works.
 */
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError, type ErrorCode } from "../errors.ts";
import { type Digest, digestOf, hexOf } from "../oci/digest.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import type { Store, StoredModel } from "../store/store.ts";
import embedded from "./pebble.gguf" with { type: "file" };

export const BUILTIN_NAME = "pebble";

const BUILTIN_REFERENCE = formatReference(parseReference(BUILTIN_NAME));
const FILE_NAME = `${BUILTIN_NAME}.gguf`;

/** Whether the name, however it is written, is the built-in model's. Pure. */
export function isBuiltin(name: string): boolean {
  try {
    return formatReference(parseReference(name)) === BUILTIN_REFERENCE;
  } catch {
    return false;
  }
}

/**
 * The weights as a file that other programs can open, extracted into the cache at the first call.
 *
 * @returns an absolute path if `cacheDirectory` is one
 */
export async function builtinFile(cacheDirectory: string): Promise<string> {
  const bytes = await readEmbedded();
  const digest = digestOf(bytes);
  const path = join(cacheDirectory, `${BUILTIN_NAME}-${hexOf(digest).slice(0, 12)}.gguf`);
  if ((await digestOfFile(path)) === digest) return path;
  await mkdir(cacheDirectory, { recursive: true });
  // Renamed into place, because two processes may do this at once and a third may read.
  const staged = `${path}.${process.pid}.${crypto.randomUUID()}`;
  try {
    await writeFile(staged, bytes, { mode: 0o644 });
    await rename(staged, path);
  } finally {
    await rm(staged, { force: true });
  }
  return path;
}

/** What packaging the built-in model anew mends: it is not there, or it is damaged. */
const REPLACEABLE: ReadonlySet<ErrorCode> = new Set([
  "model_not_found",
  "blob_not_found",
  "digest_mismatch",
]);

/** The built-in model in the store, packaged into it if that name is not there yet. */
export async function ensureBuiltin(
  store: Store,
  options: { signal: AbortSignal },
): Promise<StoredModel> {
  const found = await tryResolve(store);
  if (found !== undefined) return found;
  const directory = await mkdtemp(join(tmpdir(), "tug-builtin-"));
  try {
    const gguf = join(directory, FILE_NAME);
    await writeFile(gguf, await readEmbedded());
    // Whatever this machine's SOURCE_DATE_EPOCH says: everybody's Pebble is the same model.
    const { packageModel } = await import("./package.ts");
    await packageModel(
      store,
      { model: BUILTIN_REFERENCE, gguf },
      { ...options, sourceDateEpoch: "" },
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return store.resolve(BUILTIN_REFERENCE);
}

// --- internal ---

async function tryResolve(store: Store): Promise<StoredModel | undefined> {
  try {
    return await store.resolve(BUILTIN_REFERENCE);
  } catch (error) {
    if (error instanceof AppError && REPLACEABLE.has(error.code)) return undefined;
    throw error;
  }
}

async function readEmbedded(): Promise<Uint8Array> {
  return Bun.file(embedded).bytes();
}

async function digestOfFile(path: string): Promise<Digest | undefined> {
  try {
    return digestOf(await readFile(path));
  } catch {
    return undefined;
  }
}
