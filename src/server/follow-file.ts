/**
 * Reads a log file to its end, and on from there when it has grown, wherever its bytes went meanwhile: renamed to
 * `<path>.1` with a new file in its place (the logs of engines), or copied there and emptied (the runner's).
 */
import { open, stat, type FileHandle } from "node:fs/promises";
import { errnoOf } from "../errors.ts";

const CHUNK_BYTES = 64 * 1024;

/** `end`: nothing more for now. `next`: what comes belongs to another file, so a line that was begun is over. */
export type Chunk = Uint8Array | "end" | "next";

interface Part {
  readonly file: FileHandle;
  offset: number;
}

interface FileFacts {
  readonly inode: number;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export class FileFollower implements AsyncDisposable {
  readonly #path: string;
  readonly #sinceMs: number;
  /** Read one after the other; the last one is what is at the path. */
  readonly #parts: Part[] = [];
  /** What `<path>.1` was when the last part became the last: another one means that the log was moved on. */
  #previousInode: number | undefined;

  /** @param options.sinceMs the file before is left out if nothing was added to it since then; default: it is read */
  constructor(path: string, options: { readonly sinceMs?: number } = {}) {
    this.#path = path;
    this.#sinceMs = options.sinceMs ?? 0;
  }

  /** A missing file is an empty one. */
  async read(): Promise<Chunk> {
    if (this.#parts.length === 0) await this.#open();
    const part = this.#parts[0];
    if (part === undefined) return "end";
    const bytes = await readAt(part.file, part.offset);
    if (this.#parts.length > 1) {
      if (bytes.length > 0) return advance(part, bytes);
      this.#parts.shift();
      await part.file.close();
      return "next";
    }
    // What was read of an emptied file is not what follows at this offset.
    if (await this.#wasEmptied(part)) return this.read();
    if (bytes.length > 0) return advance(part, bytes);
    return (await this.#hasSuccessor(part)) ? this.read() : "end";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#parts.splice(0).map(({ file }) => file.close()));
  }

  // --- internal ---

  /** The newer one first: if it is moved meanwhile, the two are one file, which is read once. */
  async #open(): Promise<void> {
    const file = await openIfThere(this.#path);
    if (file === undefined) return;
    this.#parts.push({ file, offset: 0 });
    const previous = await openIfThere(`${this.#path}.1`);
    if (previous === undefined) return;
    const [{ inode, modifiedMs }, current] = [await factsOf(previous), await factsOf(file)];
    if (inode !== current.inode) this.#previousInode = inode;
    if (inode !== current.inode && modifiedMs >= this.#sinceMs) {
      this.#parts.unshift({ file: previous, offset: 0 });
    } else await previous.close();
  }

  /** If so, the rest of what it held is read from the copy. */
  async #wasEmptied(part: Part): Promise<boolean> {
    const { inode, sizeBytes } = await factsOf(part.file);
    const current = await factsOfPath(this.#path);
    if (current?.inode !== inode) return false;
    const before = await factsOfPath(`${this.#path}.1`);
    const isCopied = before !== undefined && before.inode !== this.#previousInode;
    if (!isCopied && sizeBytes >= part.offset) return false;
    const copy = isCopied ? await openIfThere(`${this.#path}.1`) : undefined;
    this.#previousInode = before?.inode;
    if (copy !== undefined) this.#parts.unshift({ file: copy, offset: part.offset });
    part.offset = 0;
    return true;
  }

  /** Whether its file was renamed and another one has taken its place, or two have, one after the other. */
  async #hasSuccessor(part: Part): Promise<boolean> {
    const { inode } = await factsOf(part.file);
    const current = await factsOfPath(this.#path);
    if (current?.inode === inode) return false;
    const before = await factsOfPath(`${this.#path}.1`);
    const isMissed = before && before.inode !== inode && before.inode !== this.#previousInode;
    for (const path of [...(isMissed ? [`${this.#path}.1`] : []), this.#path]) {
      const file = await openIfThere(path);
      if (file !== undefined) this.#parts.push({ file, offset: 0 });
    }
    this.#previousInode = before?.inode;
    return this.#parts.length > 1;
  }
}

// --- internal ---

function advance(part: Part, bytes: Uint8Array): Uint8Array {
  part.offset += bytes.length;
  return bytes;
}

async function readAt(file: FileHandle, offset: number): Promise<Uint8Array> {
  const { bytesRead, buffer } = await file.read(
    new Uint8Array(CHUNK_BYTES),
    0,
    CHUNK_BYTES,
    offset,
  );
  return buffer.subarray(0, bytesRead);
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function factsOf(file: FileHandle): Promise<FileFacts> {
  const { ino: inode, size: sizeBytes, mtimeMs: modifiedMs } = await file.stat();
  return { inode, sizeBytes, modifiedMs };
}

async function factsOfPath(path: string): Promise<FileFacts | undefined> {
  try {
    const { ino: inode, size: sizeBytes, mtimeMs: modifiedMs } = await stat(path);
    return { inode, sizeBytes, modifiedMs };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
