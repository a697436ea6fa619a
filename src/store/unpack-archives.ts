/** Unpacks the archives of a model into its bundle. Nothing is trusted: names, kinds, sizes and amounts are bounded. */
import { mkdir, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { decompressed } from "../archive/decompress.ts";
import { readTar, type TarEntry } from "../archive/tar.ts";
import { AppError } from "../errors.ts";
import type { PlannedArchive, UnpackedFile } from "./bundle-plan.ts";
import { freeBytesAt } from "./ingest.ts";
import type { PathClaims } from "./path-claims.ts";
import { safePath } from "./safe-path.ts";

/** Of all archives of a model; as many as a manifest may have layers. */
const MAX_ENTRIES = 16_384;
/** Weights shrink to a third at best, texts to a tenth; what grows more is a bomb. */
const MAX_RATIO = 200;
/** Below this nothing is a bomb, of all archives of a model together. Bytes. */
const FREE_BYTES = 1024 * 1024 * 1024;

export interface UnpackLimits {
  readonly maxEntries: number;
  readonly freeBytes: number;
}

export interface UnpackOptions {
  /** Where an archive's bytes are. */
  readonly locate: (archive: PlannedArchive) => string;
  /** Exists, or can be made. */
  readonly directory: string;
  /** Holds the paths of all files that are or will be there. */
  readonly claims: PathClaims;
  readonly signal: AbortSignal;
  /** Smaller ones, for tests. */
  readonly limits?: UnpackLimits;
}

/**
 * Files only, read-only and on the disk when it returns; what it throws leaves some of them behind.
 *
 * @throws invalid_model_file (damage, links, unsafe or equal paths, too much of anything), insufficient_storage
 */
export async function unpackArchives(
  archives: readonly PlannedArchive[],
  options: UnpackOptions,
): Promise<UnpackedFile[]> {
  const { limits = { maxEntries: MAX_ENTRIES, freeBytes: FREE_BYTES } } = options;
  const files: UnpackedFile[] = [];
  let entries = 0;
  let room = limits.freeBytes;
  for (const [index, archive] of archives.entries()) {
    const packed = Bun.file(options.locate(archive)).stream() as AsyncIterable<Uint8Array>;
    room += archive.size * MAX_RATIO;
    const chunks = decompressed(packed, { maxBytes: room });
    const spend = (bytes: number): void => void (room -= bytes);
    for await (const entry of readTar(counted(chunks, spend))) {
      options.signal.throwIfAborted();
      entries += 1;
      if (entries > limits.maxEntries) throw refused(`more than ${limits.maxEntries} entries`);
      if (entry.kind === "directory") continue;
      const path = safePath(placeOf(entry.name, archive.path), { repair: true });
      if (entry.kind !== "file") throw refused(`\`${path}\`, which is no file`);
      options.claims.claim(path);
      await writeEntry(entry, join(options.directory, path), options.signal);
      files.push({ path, size: entry.size, archive: index });
    }
  }
  return files;
}

/**
 * Where an entry goes, relative to the model's root: packers name entries from the root on, or from the directory of
 * the path that they annotate.
 *
 * @param annotated of the file or directory that was packed, or of the archive
 */
export function placeOf(name: string, annotated: string | undefined): string {
  const entry = plain(name);
  const root = plain(annotated ?? "");
  const slash = root.lastIndexOf("/");
  if (slash < 0 || entry === root || entry.startsWith(`${root}/`)) return entry;
  const base = root.slice(slash + 1);
  const isBelow = entry === base || entry.startsWith(`${base}/`);
  return isBelow ? `${root.slice(0, slash)}/${entry}` : entry;
}

// --- internal ---

function plain(path: string): string {
  return path.replace(/^(?:\.\/)+/, "").replace(/\/+$/, "");
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    onBytes(chunk.length);
    yield chunk;
  }
}

async function writeEntry(entry: TarEntry, target: string, signal: AbortSignal): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  if (entry.size > (await freeBytesAt(dirname(target)))) {
    throw new AppError(
      "insufficient_storage",
      `cannot open the model: unpacking it needs ${entry.size} bytes more than the disk has left`,
      { hint: "Free some space (`tug df` and `tug prune` help) and try again." },
    );
  }
  await using file = await open(target, "wx", 0o444);
  for await (const chunk of entry.body) {
    signal.throwIfAborted();
    await file.appendFile(chunk);
  }
  // Unlike a link to a blob, these bytes are not on the disk yet.
  await file.sync();
}

function refused(what: string): AppError {
  return new AppError("invalid_model_file", `cannot open the model: an archive in it has ${what}`, {
    hint: "Package the model's files as they are.",
  });
}
