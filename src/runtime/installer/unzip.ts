/**
 * Unpacks a zip by its central directory. Stored and deflated entries; no encryption, no zip64.
 *
 * @see https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 */
import { createReadStream } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { createInflateRaw } from "node:zlib";

import { ENTRY_LIMIT, UNPACKED_LIMIT_BYTES, createFile, placeOf, refuse } from "./unpack.ts";
import type { UnpackRequest } from "./unpack.ts";

const END_SIGNATURE = 0x06054b50;
const ENTRY_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const END_BYTES = 22;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
/** The comment after the end record has a 16-bit length. */
const COMMENT_LIMIT_BYTES = 65_535;
const DIRECTORY_LIMIT_BYTES = 16 * 1024 * 1024;

/** @throws install_failed if the archive is damaged, too large, or reaches out of the directory */
export async function unpackZip({ archive, directory, signal }: UnpackRequest): Promise<void> {
  await using file = await open(archive, "r");
  const entries = await readDirectory(file);
  const total = entries.reduce((sum, entry) => sum + entry.size, 0);
  if (total > UNPACKED_LIMIT_BYTES) throw refuse("it is too large");
  for (const entry of entries) {
    signal.throwIfAborted();
    const path = placeOf(directory, entry.name);
    if (entry.name.endsWith("/")) await mkdir(path, { recursive: true });
    else await writeEntry({ file, archive, entry, path });
  }
}

// --- internal ---

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly packedSize: number;
  readonly size: number;
  readonly offset: number;
  readonly executable: boolean;
}

async function readDirectory(file: FileHandle): Promise<readonly Entry[]> {
  const { size } = await file.stat();
  const tail = await readAt(
    file,
    Math.max(0, size - END_BYTES - COMMENT_LIMIT_BYTES),
    Math.min(size, END_BYTES + COMMENT_LIMIT_BYTES),
  );
  let at = tail.length - END_BYTES;
  while (at >= 0 && tail.readUInt32LE(at) !== END_SIGNATURE) at -= 1;
  if (at < 0) throw refuse("it is not a zip archive, or ends too early");
  const count = tail.readUInt16LE(at + 10);
  const bytes = tail.readUInt32LE(at + 12);
  const offset = tail.readUInt32LE(at + 16);
  if (count > ENTRY_LIMIT || bytes > DIRECTORY_LIMIT_BYTES) throw refuse("it is too large");
  if (offset + bytes > size) throw refuse("it is damaged");
  return parseDirectory(await readAt(file, offset, bytes), count);
}

function parseDirectory(directory: Buffer, count: number): readonly Entry[] {
  const entries: Entry[] = [];
  let at = 0;
  while (entries.length < count) {
    if (at + ENTRY_BYTES > directory.length || directory.readUInt32LE(at) !== ENTRY_SIGNATURE) {
      throw refuse("it is damaged");
    }
    const nameLength = directory.readUInt16LE(at + 28);
    const skipped = directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
    const nameStart = at + ENTRY_BYTES;
    entries.push({
      name: directory.toString("utf8", nameStart, nameStart + nameLength),
      method: directory.readUInt16LE(at + 10),
      packedSize: directory.readUInt32LE(at + 20),
      size: directory.readUInt32LE(at + 24),
      offset: directory.readUInt32LE(at + 42),
      // The upper half holds the Unix mode where the archive was made on Unix.
      executable: ((directory.readUInt32LE(at + 38) >>> 16) & 0o111) !== 0,
    });
    at = nameStart + nameLength + skipped;
  }
  return entries;
}

async function writeEntry(input: {
  readonly file: FileHandle;
  readonly archive: string;
  readonly entry: Entry;
  readonly path: string;
}): Promise<void> {
  const { file, archive, entry, path } = input;
  const local = await readAt(file, entry.offset, LOCAL_BYTES);
  if (local.length < LOCAL_BYTES || local.readUInt32LE(0) !== LOCAL_SIGNATURE) {
    throw refuse("it is damaged");
  }
  const start = entry.offset + LOCAL_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28);
  await using target = await createFile(path, entry.executable);
  let written = 0;
  for await (const chunk of contentOf(archive, entry, start)) {
    written += chunk.length;
    if (written > entry.size) throw refuse(`\`${entry.name}\` is larger than it claims`);
    await target.appendFile(chunk);
  }
  if (written !== entry.size) throw refuse(`\`${entry.name}\` is incomplete`);
}

function contentOf(archive: string, entry: Entry, start: number): AsyncIterable<Buffer> {
  if (entry.packedSize === 0) return Readable.from([]);
  const packed = createReadStream(archive, { start, end: start + entry.packedSize - 1 });
  if (entry.method === 0) return packed;
  if (entry.method !== 8) throw refuse(`\`${entry.name}\` is packed in an unknown way`);
  const inflate = createInflateRaw();
  packed.on("error", (error) => inflate.destroy(error));
  return packed.pipe(inflate);
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}
