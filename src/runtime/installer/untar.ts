/**
 * Unpacks a gzipped tar as a stream.
 *
 * Reads ustar with the PAX and GNU records for long names and large sizes. Files, directories and links within the
 * archive are made; every other kind of entry is refused.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
 */
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";

import { ENTRY_LIMIT, UNPACKED_LIMIT_BYTES, makeLinks, placeOf, refuse } from "./unpack.ts";
import type { Link, UnpackRequest } from "./unpack.ts";

const BLOCK = 512;
/** Long names and PAX records; a longer one is not a name. */
const RECORD_LIMIT_BYTES = 64 * 1024;

/** @throws install_failed if the archive is damaged, too large, or reaches out of the directory */
export async function unpackTarGz(request: UnpackRequest): Promise<void> {
  const { directory, signal } = request;
  const packed = Bun.file(request.archive).stream();
  const bytes = new ByteReader(packed.pipeThrough(new DecompressionStream("gzip")));
  const links: Link[] = [];
  let total = 0;
  let count = 0;
  for await (const entry of readEntries(bytes)) {
    signal.throwIfAborted();
    total += entry.size;
    count += 1;
    if (total > UNPACKED_LIMIT_BYTES || count > ENTRY_LIMIT) throw refuse("it is too large");
    const path = placeOf(directory, entry.name);
    if (entry.kind === "link") links.push({ path, target: entry.target });
    if (entry.kind === "directory") await mkdir(path, { recursive: true });
    if (entry.kind === "file") await writeEntry(bytes, entry, path);
  }
  await makeLinks(directory, links);
}

// --- internal ---

type Entry =
  | { kind: "file"; name: string; size: number; executable: boolean }
  | { kind: "directory"; name: string; size: 0 }
  | { kind: "link"; name: string; size: 0; target: string };

/** What PAX and GNU records say of the entry that follows them. */
interface Overrides {
  path?: string;
  linkpath?: string;
  size?: string;
}

/** Yields entries; the consumer must read a file's bytes before it asks for the next. */
async function* readEntries(bytes: ByteReader): AsyncGenerator<Entry> {
  let overrides: Overrides = {};
  for (;;) {
    const header = await bytes.take(BLOCK);
    if (header.every((byte) => byte === 0)) return;
    checkSum(header);
    const type = String.fromCharCode(header[156] ?? 0);
    const size = overrides.size === undefined ? numberAt(header, 124, 12) : Number(overrides.size);
    if (!Number.isSafeInteger(size) || size < 0) throw refuse("it is damaged");
    if ("xgLK".includes(type)) {
      overrides = { ...overrides, ...(await readRecord(bytes, type, size)) };
      continue;
    }
    yield entryOf(header, { type, size, overrides });
    overrides = {};
  }
}

function entryOf(
  header: Uint8Array,
  { type, size, overrides }: { type: string; size: number; overrides: Overrides },
): Entry {
  const prefix = textAt(header, 257, 5) === "ustar" ? textAt(header, 345, 155) : "";
  const plain = textAt(header, 0, 100);
  const name = overrides.path ?? (prefix === "" ? plain : `${prefix}/${plain}`);
  if (type === "5") return { kind: "directory", name, size: 0 };
  if (type === "2") {
    const target = overrides.linkpath ?? textAt(header, 157, 100);
    return { kind: "link", name, size: 0, target };
  }
  if (type !== "0" && type !== "\0") throw refuse(`\`${name}\` is neither file nor directory`);
  const executable = (numberAt(header, 100, 8) & 0o111) !== 0;
  return { kind: "file", name, size, executable };
}

async function readRecord(bytes: ByteReader, type: string, size: number): Promise<Overrides> {
  if (size > RECORD_LIMIT_BYTES) throw refuse("it is damaged");
  const content = await bytes.take(size);
  await bytes.take(padding(size));
  const text = new TextDecoder().decode(content);
  if (type === "L") return { path: text.replace(/\0.*$/s, "") };
  if (type === "K") return { linkpath: text.replace(/\0.*$/s, "") };
  return type === "x" ? parsePax(content) : {};
}

/** `<length> <key>=<value>\n`, the length counting the whole record in bytes. */
function parsePax(content: Uint8Array): Overrides {
  const found: Overrides = {};
  let at = 0;
  while (at < content.length) {
    const space = content.indexOf(0x20, at);
    const length = Number(new TextDecoder().decode(content.subarray(at, space)));
    if (space === -1 || !(length > 0)) throw refuse("it is damaged");
    const record = new TextDecoder().decode(content.subarray(space + 1, at + length - 1));
    const [key, value] = [record.split("=", 1)[0] ?? "", record.slice(record.indexOf("=") + 1)];
    if (key === "path" || key === "linkpath" || key === "size") found[key] = value;
    at += length;
  }
  return found;
}

async function writeEntry(
  bytes: ByteReader,
  entry: Extract<Entry, { kind: "file" }>,
  path: string,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await using file = await open(path, "wx", entry.executable ? 0o755 : 0o644);
  for await (const chunk of bytes.stream(entry.size)) await file.appendFile(chunk);
  await bytes.take(padding(entry.size));
}

/** The sum of all header bytes, those of the sum itself counted as spaces. */
function checkSum(header: Uint8Array): void {
  const stored = numberAt(header, 148, 8);
  const sum = header.reduce(
    (total, byte, index) => total + (index >= 148 && index < 156 ? 0x20 : byte),
    0,
  );
  if (sum !== stored) throw refuse("it is damaged");
}

function textAt(header: Uint8Array, offset: number, length: number): string {
  const field = header.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end === -1 ? field : field.subarray(0, end));
}

/** Octal text, or with the high bit set a big-endian number (GNU, for sizes from 8 GiB). */
function numberAt(header: Uint8Array, offset: number, length: number): number {
  if (((header[offset] ?? 0) & 0x80) === 0) {
    return Number.parseInt(textAt(header, offset, length).trim() || "0", 8);
  }
  const digits = header.subarray(offset + 1, offset + length);
  return digits.reduce((total, byte) => total * 256 + byte, (header[offset] ?? 0) & 0x7f);
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** Exact reads from a stream of chunks of any size. */
class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array();

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async take(length: number): Promise<Uint8Array> {
    const taken = new Uint8Array(length);
    let at = 0;
    for await (const chunk of this.stream(length)) {
      taken.set(chunk, at);
      at += chunk.length;
    }
    return taken;
  }

  async *stream(length: number): AsyncGenerator<Uint8Array> {
    let left = length;
    while (left > 0) {
      if (this.#rest.length === 0) await this.#fill();
      const chunk = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(chunk.length);
      left -= chunk.length;
      yield chunk;
    }
  }

  async #fill(): Promise<void> {
    try {
      const next = await this.#chunks.next();
      if (next.done === true) throw refuse("it ends too early");
      this.#rest = next.value;
    } catch (error) {
      throw error instanceof TypeError ? refuse("it is damaged") : error;
    }
  }
}
