/**
 * Files that other programs on this machine have already: Ollama, Hugging Face's libraries, LM Studio, llama.cpp. A pull
 * takes over what it finds there instead of fetching it. Nothing is ever written, moved or removed in their directories.
 */
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import type { AdoptResult } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import { errnoOf } from "../errors.ts";
import { log } from "../log.ts";
import { type Digest, hexOf, tryParseDigest } from "../oci/digest.ts";
import { hashFile } from "../store/blobs.ts";
import {
  type IndexedFile,
  MAX_INDEXED,
  isSameFile,
  readAdoptIndex,
  writeAdoptIndex,
} from "./adopt-index.ts";
import { type CachePlace, type PlaceOptions, cachePlaces } from "./adopt-places.ts";
import { type FoundFile, MIN_ADOPTED_BYTES, scanPlace, stampOf } from "./adopt-scan.ts";
import { reportBytes } from "./progress.ts";

/** Repositories of a Hugging Face cache that a pull looks into by itself: a few milliseconds. */
const MAX_REPOSITORIES = 2000;

export interface AdoptOptions extends PlaceOptions {
  /** Absolute path of `adopted.json`, in the cache directory. */
  readonly indexFile: string;
  /** Look, and neither hash nor remember anything. */
  readonly dryRun?: boolean | undefined;
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
  /** Names that are read in one place, and files that are remembered, at most. */
  readonly limits?: { readonly maxEntries?: number; readonly maxFiles?: number };
}

/** A file that should have certain bytes. Whoever uses it makes sure. */
export interface AdoptedFile {
  /** Absolute. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
}

/**
 * Looks for models in the caches of other programs and remembers them. Files whose names are not their digests are read
 * once; as long as path, size, time of change and inode stay the same they are not read again. What was read before an
 * interruption is kept. Directories that may not be read are left out with a warning.
 *
 * @throws forbidden, insufficient_storage (the index cannot be written), cancelled
 */
export async function adoptCaches(options: AdoptOptions): Promise<AdoptResult> {
  const { indexFile, dryRun = false } = options;
  const before = readAdoptIndex(indexFile);
  const found = await findFiles(options);
  const known = toLookup(before);
  if (dryRun) return toResult(found.map((file) => ({ ...file, digest: knownDigest(file, known) })));
  const indexed: IndexedFile[] = [];
  let isDone = false;
  try {
    for (const file of found) {
      options.signal.throwIfAborted();
      const digest = knownDigest(file, known) ?? (await hashUnchanged(file, options));
      if (digest !== undefined) indexed.push({ ...file, digest });
    }
    isDone = true;
  } finally {
    const paths = new Set(indexed.map(({ path }) => path));
    const rest = isDone ? [] : before.filter(({ path }) => !paths.has(path));
    await writeAdoptIndex(indexFile, [...indexed, ...rest]);
  }
  log.debug(`adopt: caches indexed files=${indexed.length}`);
  return toResult(indexed);
}

export interface FinderOptions extends PlaceOptions {
  /** What `adoptCaches` wrote; it need not exist. */
  readonly indexFile: string;
}

/**
 * Finds files for one pull. Besides what `tug adopt` remembered, two places are looked into unasked, because names there
 * are digests, so that looking is a matter of asking for that name: `blobs/sha256-<hex>` of Ollama, and `blobs/<hex>` in
 * the repositories of the Hugging Face cache. No content is read, nothing is recorded, nothing leaves the machine.
 *
 * @returns a function that gives a file that now has the size, and had the digest when it was looked at or is called by it
 */
export function createAdoptedFinder(
  options: FinderOptions,
): (blob: { readonly digest: string; readonly size: number }) => AdoptedFile | undefined {
  let index: ReadonlyMap<string, readonly IndexedFile[]> | undefined;
  let directories: readonly NamedDirectory[] | undefined;
  return ({ digest: text, size }) => {
    const digest = tryParseDigest(text);
    if (digest === undefined || size < MIN_ADOPTED_BYTES) return undefined;
    index ??= Map.groupBy(readAdoptIndex(options.indexFile), (file) => file.digest);
    directories ??= namedDirectories(options);
    return findRemembered(index.get(digest) ?? [], size) ?? findNamed(directories, digest, size);
  };
}

// --- internal ---

/** A directory whose files are called by their digests. */
interface NamedDirectory {
  readonly path: string;
  readonly prefix: string;
}

type Lookup = ReadonlyMap<string, IndexedFile>;

/** Each file once: hard links and places that are the same directory name one file several times. */
async function findFiles(options: AdoptOptions): Promise<FoundFile[]> {
  const { signal, onProgress, limits: { maxEntries, maxFiles = MAX_INDEXED } = {} } = options;
  const onWarning = (message: string): void => onProgress?.({ type: "warning", message });
  const found = new Map<string, FoundFile>();
  for (const place of cachePlaces(options)) {
    for (const file of await scanPlace(place, { signal, onWarning, maxEntries })) {
      if (!found.has(file.identity)) found.set(file.identity, file);
    }
  }
  if (found.size > maxFiles)
    onWarning(`left out ${found.size - maxFiles} files: ${maxFiles} are remembered`);
  return [...found.values()].slice(0, maxFiles);
}

function toLookup(files: readonly IndexedFile[]): Lookup {
  return new Map(files.map((file) => [file.path, file]));
}

function knownDigest(file: FoundFile, known: Lookup): Digest | undefined {
  if (file.digest !== undefined) return file.digest;
  const before = known.get(file.path);
  return before !== undefined && isSameFile(before, file) ? before.digest : undefined;
}

/** @returns undefined, with a warning, if it cannot be read or somebody writes to it @throws cancelled */
async function hashUnchanged(
  file: FoundFile,
  { signal, onProgress }: AdoptOptions,
): Promise<Digest | undefined> {
  const report = reportBytes(onProgress, { id: basename(file.path), phase: "reading" });
  let reason = "it changed while it was read";
  try {
    const { digest } = await hashFile(file.path, {
      signal,
      onBytes: (done) => report(done, file.size),
    });
    const now = stampOf(file.path);
    if (now !== undefined && isSameFile(now, file)) return digest;
  } catch (error) {
    signal.throwIfAborted();
    reason = errnoOf(error) === "EACCES" ? "permission denied" : "it cannot be read";
  }
  onProgress?.({ type: "warning", message: `left out \`${file.path}\`: ${reason}` });
  return undefined;
}

function toResult(
  files: readonly (Omit<IndexedFile, "digest"> & { readonly digest: Digest | undefined })[],
): AdoptResult {
  const sizes = new Map(files.map(({ digest, path, size }) => [digest ?? path, size]));
  return {
    files: files.map(({ path, digest, size, program }) => ({
      path,
      digest: digest ?? null,
      size,
      program,
    })),
    bytes: [...sizes.values()].reduce((sum, size) => sum + size, 0),
  };
}

function findRemembered(files: readonly IndexedFile[], size: number): AdoptedFile | undefined {
  const file = files.find((candidate) => {
    const now = candidate.size === size ? stampOf(candidate.path) : undefined;
    return now !== undefined && isSameFile(now, candidate);
  });
  return file === undefined ? undefined : { path: file.path, size };
}

function findNamed(
  directories: readonly NamedDirectory[],
  digest: Digest,
  size: number,
): AdoptedFile | undefined {
  for (const { path, prefix } of directories) {
    const file = join(path, `${prefix}${hexOf(digest)}`);
    if (stampOf(file)?.size === size) return { path: file, size };
  }
  return undefined;
}

function namedDirectories(options: PlaceOptions): NamedDirectory[] {
  return cachePlaces(options).flatMap(({ layout, path }) => {
    if (layout === "ollama") return [{ path: join(path, "blobs"), prefix: "sha256-" }];
    return layout === "huggingface" ? repositories(path) : [];
  });
}

function repositories(hub: CachePlace["path"]): NamedDirectory[] {
  try {
    return readdirSync(hub)
      .filter((name) => name.startsWith("models--"))
      .slice(0, MAX_REPOSITORIES)
      .map((name) => ({ path: join(hub, name, "blobs"), prefix: "" }));
  } catch {
    return [];
  }
}
