/** Writing bytes that are not yet a blob: into `ingest/`, hashed on the way, synchronised, read-only. */
import { constants } from "node:fs";
import { chmod, copyFile, link, open, realpath, rm, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { AppError, errnoOf } from "../errors.ts";
import { digestOfHex } from "../oci/digest.ts";
import { syncFile } from "./files.ts";
import { type BlobId, hashFile, readChunks } from "./blobs.ts";

/** How the bytes of a file came into the store. */
export type IngestMethod = "present" | "link" | "clone" | "copy";

export interface IngestResult extends BlobId {
  readonly method: IngestMethod;
  /** Why a link that was asked for became something else. */
  readonly reason?: string;
}

export interface StreamOptions {
  /** What the bytes must be; a difference is `digest_mismatch`. */
  readonly expected?: BlobId | undefined;
  /** Bytes so far, and in total where that is known, else the same number. */
  readonly onBytes?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FileOptions extends StreamOptions {
  /** Share the file instead of copying it. It becomes read-only, as a blob is. */
  readonly link?: boolean | undefined;
}

/** A file as it was when it was looked at. */
export interface FileState {
  /** Without symbolic links. */
  readonly path: string;
  readonly size: number;
  readonly stamp: string;
  /** Permission bits. */
  readonly mode: number;
}

/** @throws not_found, forbidden, invalid_request if it is not a regular file */
export async function statFile(path: string): Promise<FileState> {
  try {
    const resolved = await realpath(path);
    const { size, mode, mtimeNs, ctimeNs, ino, dev, isFile } = await facts(resolved);
    if (isFile)
      return { path: resolved, size, mode, stamp: [size, mtimeNs, ctimeNs, ino, dev].join(" ") };
  } catch (error) {
    throw readFailure(path, error);
  }
  throw new AppError("invalid_request", `cannot read \`${path}\`: it is not a regular file`, {
    hint: "Give the path of a file.",
  });
}

/**
 * Writes chunks to a new file and hashes them, in one pass. Leaves no file when it fails.
 *
 * @throws digest_mismatch, insufficient_storage
 */
export async function writePart(
  part: string,
  chunks: AsyncIterable<Uint8Array>,
  options: StreamOptions,
): Promise<BlobId> {
  try {
    const handle = await open(part, "wx", 0o600);
    try {
      const written = await writeChunks(handle, chunks, options);
      checkBlob(written, options.expected);
      await handle.chmod(0o444);
      await handle.sync();
      return written;
    } finally {
      await handle.close();
    }
  } catch (error) {
    await rm(part, { force: true });
    throw writeFailure(error);
  }
}

/**
 * Brings a file into `part` by the cheapest way there is: a hard link if wanted, a clone where the file system can, else a
 * copy. The bytes are read once.
 */
export async function importFile(
  part: string,
  source: FileState,
  options: FileOptions,
): Promise<IngestResult> {
  const linked = options.link === true ? await tryLink(source.path, part) : { isDone: false };
  const method = linked.isDone ? "link" : (await tryClone(source.path, part)) ? "clone" : "copy";
  const reason = linked.reason === undefined ? {} : { reason: linked.reason };
  const result =
    method === "copy"
      ? await copyPart(part, source, options)
      : await hashPart(part, source, options);
  try {
    await refuseChanged(source, method);
    return { ...result, method, ...reason };
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

/** For people, after "copied, because". */
export function whyNotLinked(error: unknown): string {
  const code = errnoOf(error);
  if (code === "EXDEV") return "it is on another disk than the model store";
  if (code === "EPERM" || code === "EACCES")
    return "it belongs to another user, or its file system has no hard links";
  if (code === "EMLINK") return "it has too many links already";
  return code === undefined
    ? "its file system does not link it"
    : `its file system does not link it (${code})`;
}

/** A full disk in words; anything else as it is. */
export function writeFailure(error: unknown): unknown {
  const code = errnoOf(error);
  if (code !== "ENOSPC" && code !== "EDQUOT") return error;
  return noSpace("no space is left on its disk", {}, error);
}

export async function copyPart(
  part: string,
  source: FileState,
  options: FileOptions,
): Promise<BlobId> {
  await requireSpace(dirname(part), source.size);
  const { onBytes } = options;
  return writePart(part, readSource(source.path), {
    ...options,
    onBytes: (done) => onBytes?.(done, source.size),
  });
}

/** @returns false where the file system cannot, and leaves nothing then */
export async function tryClone(source: string, part: string): Promise<boolean> {
  try {
    await copyFile(source, part, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    return true;
  } catch {
    // Most file systems cannot. Whatever else is wrong, the copy that follows meets it too, and says so.
    await rm(part, { force: true });
    return false;
  }
}

/** @throws insufficient_storage if the disk of the directory has less left */
export async function requireSpace(directory: string, neededBytes: number): Promise<void> {
  const freeBytes = await freeBytesAt(directory);
  if (freeBytes >= neededBytes) return;
  throw noSpace(`it needs ${neededBytes} bytes and the disk has ${freeBytes} left`, {
    neededBytes,
    freeBytes,
  });
}

/** A torn copy would be a valid blob of nonsense. A link changes the file's own times: only its content matters there. */
export async function refuseChanged(source: FileState, method: IngestMethod): Promise<void> {
  const now = await statFile(source.path);
  const isSame = method === "link" ? sameContent(now, source) : now.stamp === source.stamp;
  if (isSame) return;
  throw new AppError("conflict", `cannot store \`${source.path}\`: it changed while it was read`, {
    hint: "Wait until nothing writes to it any more, and try again.",
  });
}

/** @throws digest_mismatch */
export function checkBlob(found: BlobId, expected: BlobId | undefined): void {
  if (expected === undefined) return;
  if (found.size !== expected.size) {
    throw mismatch(expected, `${found.size} bytes came, not ${expected.size}`);
  }
  if (found.digest !== expected.digest)
    throw mismatch(expected, `what came is \`${found.digest}\``);
}

// --- internal ---

interface Writable {
  write(bytes: Uint8Array, offset: number, length: number): Promise<{ bytesWritten: number }>;
}

async function writeChunks(
  handle: Writable,
  chunks: AsyncIterable<Uint8Array>,
  { expected, onBytes, signal }: StreamOptions,
): Promise<BlobId> {
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  for await (const chunk of chunks) {
    signal?.throwIfAborted();
    // The disk works while the processor hashes.
    const writing = writeAll(handle, chunk);
    hasher.update(chunk);
    await writing;
    size += chunk.length;
    if (expected !== undefined && size > expected.size) throw tooLong(expected);
    onBytes?.(size, expected?.size ?? size);
  }
  signal?.throwIfAborted();
  return { digest: digestOfHex(hasher.digest("hex")), size };
}

async function writeAll(handle: Writable, chunk: Uint8Array): Promise<void> {
  let offset = 0;
  while (offset < chunk.length) {
    const { bytesWritten } = await handle.write(chunk, offset, chunk.length - offset);
    offset += bytesWritten;
  }
}

/** Hashes what is already in place under another name or as a clone. */
async function hashPart(part: string, source: FileState, options: FileOptions): Promise<BlobId> {
  try {
    const { onBytes, signal } = options;
    const found = await hashFile(part, { signal, onBytes: (done) => onBytes?.(done, source.size) });
    checkBlob(found, options.expected);
    await makeBlob(part);
    return found;
  } catch (error) {
    // A link is the user's own file: it gets its permissions back.
    if (options.link === true && (await stat(part)).nlink > 1) await chmod(part, source.mode);
    await rm(part, { force: true });
    throw writeFailure(error);
  }
}

/** A hard link is read-only since it was made; its bytes were written by somebody else, long ago as a rule. */
async function makeBlob(part: string): Promise<void> {
  const { mode } = await stat(part);
  const isWritable = (mode & 0o222) !== 0;
  if (isWritable || process.platform !== "win32") await syncFile(part);
  if (isWritable) await chmod(part, 0o444);
}

async function* readSource(path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* readChunks(path);
  } catch (error) {
    throw readFailure(path, error);
  }
}

async function tryLink(
  source: string,
  part: string,
): Promise<{ isDone: boolean; reason?: string }> {
  try {
    await link(source, part);
  } catch (error) {
    return { isDone: false, reason: whyNotLinked(error) };
  }
  try {
    // A blob is read-only. Whoever may not make it so does not own the file, and its owner could change it.
    await chmod(part, 0o444);
    return { isDone: true };
  } catch (error) {
    await rm(part, { force: true });
    return { isDone: false, reason: whyNotLinked(error) };
  }
}

/** Infinite where the system does not tell: then the write itself finds out. */
export async function freeBytesAt(directory: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function sameContent(a: FileState, b: FileState): boolean {
  const [sizeA, mtimeA] = a.stamp.split(" ");
  const [sizeB, mtimeB] = b.stamp.split(" ");
  return sizeA === sizeB && mtimeA === mtimeB;
}

async function facts(path: string): Promise<{
  size: number;
  mode: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  ino: bigint;
  dev: bigint;
  isFile: boolean;
}> {
  const stats = await stat(path, { bigint: true });
  const { mtimeNs, ctimeNs, ino, dev } = stats;
  const mode = Number(stats.mode) & 0o777;
  const size = Number(stats.size);
  return { size, mode, mtimeNs, ctimeNs, ino, dev, isFile: stats.isFile() };
}

function tooLong(expected: BlobId): AppError {
  return mismatch(expected, `more than ${expected.size} bytes came`);
}

function mismatch(expected: BlobId, reason: string): AppError {
  return new AppError("digest_mismatch", `cannot store blob \`${expected.digest}\`: ${reason}`, {
    hint: "Try again; if it happens again, the source is damaged.",
  });
}

function readFailure(path: string, error: unknown): unknown {
  const code = errnoOf(error);
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new AppError("not_found", `cannot read \`${path}\`: there is no such file`, {
      hint: "Check the path.",
      cause: error,
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    return new AppError("forbidden", `cannot read \`${path}\`: permission denied`, {
      hint: "Make the file readable for you.",
      cause: error,
    });
  }
  return error;
}

function noSpace(reason: string, details: Record<string, unknown>, cause?: unknown): AppError {
  return new AppError("insufficient_storage", `cannot write to the model store: ${reason}`, {
    hint: "Free some space (`tug df` shows what models take, `tug prune` and `tug rm` remove) and try again.",
    details,
    cause,
  });
}
