/**
 * Tar archives as streams.
 *
 * Written: ustar, with a PAX header for files over 8 GiB. Read: ustar, PAX paths, links and sizes, GNU long names and sizes.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
 */
import { AppError } from "../errors.ts";

const TAR_BLOCK = 512;
/** Two zero blocks end an archive. */
export const TAR_END: Uint8Array = new Uint8Array(2 * TAR_BLOCK);
/** The size field has eleven octal digits. */
const MAX_USTAR_SIZE = 8 ** 11 - 1;
/** The name field; a name of ours is never longer. Bytes. */
const MAX_NAME = 100;
/** PAX headers and long names; what exceeds this is no path. Bytes. */
const MAX_EXTENSION = 64 * 1024;
/** Zeros behind the end fill the last record of a tape; none of today's programs writes more than a few. Bytes. */
const MAX_TRAILER = 16 * 1024 * 1024;

export interface TarHeader {
  readonly name: string;
  readonly size: number;
  readonly kind: "file" | "directory";
}

/** An entry that is being read. Its body is read at most once; what is left of it is skipped. */
export interface TarEntry {
  /** With forward slashes, as written. */
  readonly name: string;
  readonly size: number;
  /** Links, hard or symbolic, are told from devices and the like. */
  readonly kind: "file" | "directory" | "link" | "other";
  /** Where a link leads, as written: a symbolic one from its own directory on, a hard one from the archive's root. */
  readonly target: string;
  readonly isHardLink: boolean;
  /** Somebody may execute it. */
  readonly isExecutable: boolean;
  readonly body: AsyncIterable<Uint8Array>;
}

/** Chunks of an archive. */
export interface TarSource extends AsyncIterable<Uint8Array> {
  /** Passes over bytes that nobody wants, where that is cheaper than reading them. */
  skip?(bytes: number): Promise<void>;
}

/** The blocks before an entry's body. Owner, times and modes are fixed, so that archives are reproducible. */
export function encodeTarHeader(header: TarHeader): Uint8Array {
  if (header.size <= MAX_USTAR_SIZE) return encodeBlock(header, "0");
  const record = encodeRecord("size", String(header.size));
  const name = `PaxHeaders/${header.name}`.slice(0, MAX_NAME);
  return Buffer.concat([
    encodeBlock({ name, size: record.length, kind: "file" }, "x"),
    record,
    new Uint8Array(paddingOf(record.length)),
    encodeBlock({ ...header, size: 0 }, "0"),
  ]);
}

/** Bytes of zeros after a body. */
export function paddingOf(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/**
 * Reads an archive, entry by entry, and then to the end of the chunks.
 *
 * @throws invalid_model_file where it is damaged, ends early or goes on behind its end
 */
export async function* readTar(chunks: TarSource): AsyncGenerator<TarEntry> {
  const source = new ByteSource(chunks);
  try {
    let extension: Extension = {};
    for (let isFirst = true; ; isFirst = false) {
      const block = await source.readUpTo(TAR_BLOCK);
      if (isFirst && block.length === 0) throw damaged("it is empty");
      if (isZero(block)) return await source.requireEnd();
      const header = decodeBlock(block);
      const read = await readExtension(source, header);
      if (read !== undefined) {
        extension = { ...extension, ...read };
        continue;
      }
      const { type, ...entry } = { ...header, ...extension };
      extension = {};
      // Before there was a type for them, directories were told by their names.
      const isOldDirectory = entry.kind === "file" && entry.size === 0 && entry.name.endsWith("/");
      const kind = isOldDirectory ? "directory" : entry.kind;
      // A link may repeat the size of what it leads to; only files have bodies.
      const size = WITHOUT_BODY.has(kind) ? 0 : entry.size;
      const body = source.slice(size);
      yield { ...entry, kind, size, isHardLink: type === "1", body };
      await body.discard();
      await source.skip(paddingOf(size));
    }
  } finally {
    await source.close();
  }
}

// --- internal ---

interface Extension {
  readonly name?: string;
  readonly target?: string;
  readonly size?: number;
}

/** By type flag. */
const KINDS: Readonly<Record<string, TarEntry["kind"]>> = {
  "0": "file",
  "1": "link",
  "2": "link",
  "5": "directory",
  "7": "file",
};

const WITHOUT_BODY: ReadonlySet<TarEntry["kind"]> = new Set(["directory", "link"]);

interface DecodedBlock extends Required<Extension> {
  readonly kind: TarEntry["kind"];
  readonly type: string;
  readonly isExecutable: boolean;
}

function encodeBlock({ name, size, kind }: TarHeader, fileType: "0" | "x"): Uint8Array {
  const block = Buffer.alloc(TAR_BLOCK);
  const isDirectory = kind === "directory";
  block.write(isDirectory ? `${name}/` : name, 0, MAX_NAME, "utf8");
  const octal = (value: number, offset: number, digits: number): void => {
    block.write(value.toString(8).padStart(digits, "0"), offset, "latin1");
  };
  octal(isDirectory ? 0o755 : 0o644, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(isDirectory ? 0 : size, 124, 11);
  octal(0, 136, 11);
  block.write(isDirectory ? "5" : fileType, 156, "latin1");
  block.write("ustar\u000000", 257, "latin1");
  octal(checksumOf(block), 148, 6);
  block.write("\0 ", 154, "latin1");
  return block;
}

/** `<length> <key>=<value>\n`, where the length counts its own digits. */
function encodeRecord(key: string, value: string): Uint8Array {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length += 1;
  return Buffer.from(`${length} ${key}=${value}\n`);
}

function decodeBlock(bytes: Uint8Array): DecodedBlock {
  const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (block.length < TAR_BLOCK) throw damaged("it ends within a header");
  if (parseInt(textAt(block, 148, 8), 8) !== checksumOf(block)) {
    throw damaged("the checksum of a header does not match");
  }
  const name = textAt(block, 0, MAX_NAME);
  // GNU's own form says `ustar  ` and has times where POSIX has a prefix.
  const isPosix = block.toString("latin1", 257, 263) === "ustar\0";
  const prefix = isPosix ? textAt(block, 345, 155) : "";
  const type = textAt(block, 156, 1) || "0";
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    target: textAt(block, 157, MAX_NAME),
    size: decodeSize(block),
    kind: KINDS[type] ?? "other",
    type,
    isExecutable: (parseInt(textAt(block, 100, 8), 8) & 0o111) !== 0,
  };
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Octal digits or, where the first bit is set, a big-endian number. */
function decodeSize(block: Buffer): number {
  const isBinary = ((block[124] ?? 0) & 0x80) !== 0;
  // No size has more than the last eight of the twelve bytes; a negative one fills all.
  if (isBinary && block.readUInt32BE(124) !== 0x8000_0000)
    throw damaged("the size of an entry is no number");
  const size = isBinary
    ? Number(block.readBigUInt64BE(128))
    : parseInt(textAt(block, 124, 12).trim() || "0", 8);
  if (!Number.isSafeInteger(size) || size < 0) throw damaged("the size of an entry is no number");
  return size;
}

function textAt(block: Buffer, offset: number, length: number): string {
  const field = block.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return field.toString("utf8", 0, end < 0 ? length : end);
}

/** The sum of all bytes, where those of the checksum itself count as spaces. */
function checksumOf(block: Buffer): number {
  let sum = 0;
  for (const [index, byte] of block.entries()) sum += index >= 148 && index < 156 ? 32 : byte;
  return sum;
}

/** @returns what the entry says of the next one, or undefined if it is an entry of its own */
async function readExtension(
  source: ByteSource,
  { type, size }: DecodedBlock,
): Promise<Extension | undefined> {
  if (!["x", "g", "L", "K"].includes(type)) return undefined;
  if (size > MAX_EXTENSION) throw damaged("an extended header is too long");
  const bytes = Buffer.from(await source.readUpTo(size));
  if (bytes.length < size) throw damaged("it ends within a header");
  await source.skip(paddingOf(size));
  const text = bytes.toString("utf8").replace(/\0.*$/s, "");
  if (type === "L") return { name: text };
  if (type === "K") return { target: text };
  return type === "x" ? decodeRecords(bytes) : {};
}

function decodeRecords(bytes: Buffer): Extension {
  let extension: Extension = {};
  let position = 0;
  while (position < bytes.length) {
    const space = bytes.indexOf(" ", position);
    const length = parseInt(bytes.toString("latin1", position, space), 10);
    if (space < 0 || !(length > 0)) throw damaged("an extended header is unreadable");
    const record = bytes.toString("utf8", space + 1, position + length - 1);
    const equals = record.indexOf("=");
    const value = record.slice(equals + 1);
    // Its body would be a map of the file, and pieces.
    if (record.startsWith("GNU.sparse.")) throw damaged("a file in it is stored as sparse");
    if (record.startsWith("path=")) extension = { ...extension, name: value };
    if (record.startsWith("linkpath=")) extension = { ...extension, target: value };
    if (record.startsWith("size=")) extension = { ...extension, size: parseSize(value) };
    position += length;
  }
  return extension;
}

function parseSize(text: string): number {
  const size = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(size)) {
    throw damaged("the size of an entry is no number");
  }
  return size;
}

function damaged(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot read the archive: ${reason}`, {
    hint: "Make it again and transfer the whole file.",
  });
}

/** Cuts a stream of chunks at positions of its reader's choice, holding one chunk at a time. */
class ByteSource {
  readonly #source: TarSource;
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);

  constructor(source: TarSource) {
    this.#source = source;
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /** Fewer bytes only at the end. For small pieces: they are held. */
  async readUpTo(length: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let missing = length;
    while (missing > 0) {
      const part = await this.#take(missing);
      if (part === undefined) break;
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
  }

  /** The next `length` bytes as a stream that continues where it was left. */
  slice(length: number): AsyncIterable<Uint8Array> & { discard(): Promise<void> } {
    let missing = length;
    const next = async (): Promise<IteratorResult<Uint8Array>> => {
      if (missing === 0) return { done: true, value: undefined };
      const value = await this.#take(missing);
      if (value === undefined) throw damaged("it ends within an entry");
      missing -= value.length;
      return { done: false, value };
    };
    const discard = async (): Promise<void> => {
      const rest = missing;
      missing = 0;
      await this.skip(rest);
    };
    return { [Symbol.asyncIterator]: () => ({ next }), discard };
  }

  async skip(length: number): Promise<void> {
    let missing = length;
    while (missing > 0) {
      if (this.#chunk.length === 0 && this.#source.skip !== undefined) {
        await this.#source.skip(missing);
        return;
      }
      const part = await this.#take(missing);
      if (part === undefined) throw damaged("it ends within an entry");
      missing -= part.length;
    }
  }

  /** Two archives in one file would lose the second one in silence. */
  async requireEnd(): Promise<void> {
    let size = 0;
    for (;;) {
      const part = await this.#take(TAR_BLOCK * 128);
      if (part === undefined) return;
      size += part.length;
      if (!isZero(part) || size > MAX_TRAILER) throw damaged("something follows its end");
    }
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #take(max: number): Promise<Uint8Array | undefined> {
    while (this.#chunk.length === 0) {
      const { done, value } = await this.#iterator.next();
      if (done === true) return undefined;
      this.#chunk = value;
    }
    const part = this.#chunk.subarray(0, max);
    this.#chunk = this.#chunk.subarray(part.length);
    return part;
  }
}
