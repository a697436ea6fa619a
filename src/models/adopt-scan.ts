/** Looks into other programs' directories: reads names and sizes, follows no symbolic links, and stops somewhere. */
import { type BigIntStats, type Dirent, lstatSync } from "node:fs";
import { readdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../errors.ts";
import { type Digest, tryParseDigest } from "../oci/digest.ts";
import type { FileStamp } from "./adopt-index.ts";
import type { AdoptProgram, CachePlace } from "./adopt-places.ts";

/** Smaller files are fetched sooner than they are looked for. Bytes. */
export const MIN_ADOPTED_BYTES = 64 * 1024;

/** `publisher/model/…` and a few more. */
const MAX_DEPTH = 8;
/** Names that are read in one place: far more than caches have, and a second's work. */
const MAX_ENTRIES = 200_000;

export interface FoundFile extends FileStamp {
  readonly path: string;
  /** The same for all names of one file. */
  readonly identity: string;
  readonly program: AdoptProgram;
  /** What its name says; undefined where only its bytes can tell. */
  readonly digest: Digest | undefined;
}

export interface ScanOptions {
  readonly signal: AbortSignal;
  readonly onWarning: (message: string) => void;
  /** Names that are read at most; 200,000 unless given. */
  readonly maxEntries?: number | undefined;
}

/** In the order of their paths. A place that is not there has no files. @throws cancelled */
export async function scanPlace(place: CachePlace, options: ScanOptions): Promise<FoundFile[]> {
  const root = await rootOf(place, options);
  if (root === undefined) return [];
  const { maxEntries = MAX_ENTRIES } = options;
  const walk: Walk = { ...options, maxEntries, place, found: [], entries: 0, isFull: false };
  await walkDirectory(walk, { path: root, names: [] });
  if (walk.isFull) {
    options.onWarning(
      `left out a part of \`${place.path}\`: it has more than ${maxEntries} files and directories`,
    );
  }
  return walk.found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** The digest that `blobs/sha256-<hex>` of Ollama, or a blob of Hugging Face for a large file, is called by. */
export function digestOfName(name: string, layout: CachePlace["layout"]): Digest | undefined {
  const pattern = layout === "ollama" ? /^sha256[-:]([0-9a-f]{64})$/ : /^([0-9a-f]{64})$/;
  const hex = pattern.exec(name)?.[1];
  return hex === undefined ? undefined : tryParseDigest(`sha256:${hex}`);
}

/** @returns undefined for what is not a regular file of a size worth a look, or cannot be looked at */
export function stampOf(path: string): FileStamp | undefined {
  const stats = lookAt(path);
  return stats === undefined ? undefined : toStamp(stats);
}

// --- internal ---

interface Walk extends ScanOptions {
  readonly maxEntries: number;
  readonly place: CachePlace;
  readonly found: FoundFile[];
  entries: number;
  isFull: boolean;
}

interface Directory {
  readonly path: string;
  /** From the root of the cache. */
  readonly names: readonly string[];
}

/** The place itself may be a link: people move caches to larger disks. */
async function rootOf(
  { path }: CachePlace,
  { onWarning }: ScanOptions,
): Promise<string | undefined> {
  try {
    return await realpath(path);
  } catch (error) {
    warnUnreadable(path, error, onWarning);
    return undefined;
  }
}

async function walkDirectory(walk: Walk, directory: Directory): Promise<void> {
  walk.signal.throwIfAborted();
  for (const entry of await entriesOf(walk, directory.path)) {
    walk.entries += 1;
    walk.isFull ||= walk.entries > walk.maxEntries;
    if (walk.isFull) return;
    const path = join(directory.path, entry.name);
    const names = [...directory.names, entry.name];
    if (entry.isDirectory() && names.length <= MAX_DEPTH && isWalked(walk.place.layout, names))
      await walkDirectory(walk, { path, names });
    else if (entry.isFile()) take(walk, path, names);
  }
}

async function entriesOf({ onWarning }: Walk, path: string): Promise<Dirent[]> {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    warnUnreadable(path, error, onWarning);
    return [];
  }
}

/** Which directories hold anything, by their names from the root. */
function isWalked(layout: CachePlace["layout"], names: readonly string[]): boolean {
  const [first = "", second] = names;
  if (layout === "ollama") return names.length === 1 && first === "blobs";
  if (layout === "files") return names.at(-1)?.startsWith(".") === false;
  if (!first.startsWith("models--")) return false;
  return (
    second === undefined || second === "snapshots" || (second === "blobs" && names.length === 2)
  );
}

function take({ place, found }: Walk, path: string, names: readonly string[]): void {
  const { program, layout } = place;
  const name = names.at(-1) ?? "";
  const isNamed = layout === "ollama" || (layout === "huggingface" && names[1] === "blobs");
  const digest = isNamed ? digestOfName(name, layout) : undefined;
  // A blob without such a name is not complete, or no weights.
  if (isNamed ? digest === undefined : !/\.(?:gguf|safetensors)$/i.test(name)) return;
  const stats = lookAt(path);
  if (stats === undefined) return;
  // Some file systems have no inode numbers.
  const identity = stats.ino === 0n ? path : `${stats.dev}:${stats.ino}`;
  found.push({ ...toStamp(stats), path, identity, program, digest });
}

function lookAt(path: string): BigIntStats | undefined {
  try {
    const stats = lstatSync(path, { bigint: true });
    return stats.isFile() && stats.size >= MIN_ADOPTED_BYTES ? stats : undefined;
  } catch {
    return undefined;
  }
}

function toStamp({ size, mtimeNs, ino }: BigIntStats): FileStamp {
  return { size: Number(size), modifiedNs: String(mtimeNs), inode: String(ino) };
}

function warnUnreadable(path: string, error: unknown, warn: (message: string) => void): void {
  const code = errnoOf(error);
  if (code === "ENOENT" || code === "ENOTDIR") return;
  warn(
    `left out \`${path}\`: ${code === "EACCES" || code === "EPERM" ? "permission denied" : (code ?? "it cannot be read")}`,
  );
}
