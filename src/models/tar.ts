/**
 * Tar archives as streams: what models are exported to and imported from.
 *
 * Written: ustar, with a PAX header for files over 8 GiB. Read: ustar, PAX paths and sizes, GNU long names and sizes.
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
  readonly kind: "file" | "directory" | "other";
  readonly body: AsyncIterable<Uint8Array>;
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
 * Reads an archive, entry by entry.
 *
 * @throws invalid_model_file where it is damaged or ends early
 */
export async function* readTar(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry> {
  const source = new ByteSource(chunks);
  try {
    let extension: Extension = {};
    for (;;) {
      const block = await source.readUpTo(TAR_BLOCK);
      if (block.every((byte) => byte === 0)) return;
      const header = decodeBlock(block);
      const read = await readExtension(source, header);
      if (read !== undefined) {
        extension = { ...extension, ...read };
        continue;
      }
      const { name, size, kind } = { ...header, ...extension };
      extension = {};
      const body = source.slice(size);
      yield { name, size, kind, body };
      await drain(body);
      await source.skip(paddingOf(size));
    }
  } finally {
    await source.close();
  }
}

// --- internal ---

interface Extension {
  readonly name?: string;
  readonly size?: number;
}

interface DecodedBlock extends Required<Extension> {
  readonly kind: TarEntry["kind"];
  readonly type: string;
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
  const prefix = textAt(block, 257, 5) === "ustar" ? textAt(block, 345, 155) : "";
  const type = textAt(block, 156, 1) || "0";
  const kind = type === "5" ? "directory" : type === "0" || type === "7" ? "file" : "other";
  return { name: prefix === "" ? name : `${prefix}/${name}`, size: decodeSize(block), kind, type };
}

/** Octal digits or, where the first bit is set, a big-endian number. */
function decodeSize(block: Buffer): number {
  const isBinary = ((block[124] ?? 0) & 0x80) !== 0;
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
  if (type === "L") return { name: bytes.toString("utf8").replace(/\0.*$/s, "") };
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
    if (record.startsWith("path=")) extension = { ...extension, name: value };
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

async function drain(body: AsyncIterable<Uint8Array>): Promise<void> {
  const iterator = body[Symbol.asyncIterator]();
  while ((await iterator.next()).done !== true);
}

function damaged(reason: string): AppError {
  return new AppError("invalid_model_file", `cannot read the archive: ${reason}`, {
    hint: "Export the model again and transfer the whole file.",
  });
}

/** Cuts a stream of chunks at positions of its reader's choice, holding one chunk at a time. */
class ByteSource {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#iterator = chunks[Symbol.asyncIterator]();
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
  slice(length: number): AsyncIterable<Uint8Array> {
    let missing = length;
    const next = async (): Promise<IteratorResult<Uint8Array>> => {
      if (missing === 0) return { done: true, value: undefined };
      const value = await this.#take(missing);
      if (value === undefined) throw damaged("it ends within an entry");
      missing -= value.length;
      return { done: false, value };
    };
    return { [Symbol.asyncIterator]: () => ({ next }) };
  }

  async skip(length: number): Promise<void> {
    const skipped = await this.readUpTo(length);
    if (skipped.length < length) throw damaged("it ends within an entry");
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
