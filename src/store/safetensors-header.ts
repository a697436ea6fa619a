/**
 * The header of a safetensors file: what tensors it holds, and that they are all there. The tensors are not read.
 *
 * @see https://github.com/huggingface/safetensors#format
 */
import { type FileHandle, open, stat } from "node:fs/promises";
import type { AppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import { invalidFile, type NamedFile, toReadError, truncatedHeader } from "./read-error.ts";

/** The format's own limit. Bytes. */
const MAX_HEADER_BYTES = 100_000_000;
/** The header's length, a little-endian 64-bit number. Bytes. */
const LENGTH_BYTES = 8;
/** Training tools write their whole configuration into the metadata; what is longer nobody reads. Characters. */
const MAX_METADATA_TEXT = 8192;
const MAX_METADATA_ENTRIES = 256;
/** Most names in a header are not ours to print in full. Characters. */
const MAX_SHOWN = 80;

export interface SafetensorsTensor {
  readonly name: string;
  /** Such as `BF16`. */
  readonly dtype: string;
  /** Product of its shape; 1 for a scalar. */
  readonly elements: number;
}

export interface SafetensorsHeader {
  /** Of the file. */
  readonly sizeBytes: number;
  /** Milliseconds since the epoch. */
  readonly modifiedMs: number;
  readonly tensors: readonly SafetensorsTensor[];
  /** `__metadata__`, without long texts and what is no text. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** @throws not_found, forbidden, invalid_model_file (no safetensors, truncated, damaged) */
export async function readSafetensorsHeader(
  file: NamedFile,
  { signal }: { signal: AbortSignal },
): Promise<SafetensorsHeader> {
  signal.throwIfAborted();
  try {
    const kind = await stat(file.location);
    // Opening a named pipe would wait for somebody to write to it.
    if (!kind.isFile()) throw invalidFile(file.name, "it is not a regular file");
    await using handle = await open(file.location, "r");
    const { size, mtimeMs } = await handle.stat();
    const { bytes, dataBytes } = await readHeaderBytes(handle, file.name, size);
    return {
      sizeBytes: size,
      modifiedMs: mtimeMs,
      ...parseSafetensorsHeader(bytes, { name: file.name, dataBytes }),
    };
  } catch (error) {
    throw toReadError(file.location, error, file.name);
  }
}

/**
 * Pure.
 *
 * @param file.dataBytes what follows the header
 * @throws invalid_model_file
 */
export function parseSafetensorsHeader(
  bytes: Uint8Array,
  file: { readonly name: string; readonly dataBytes: number },
): Pick<SafetensorsHeader, "tensors" | "metadata"> {
  const { __metadata__: metadata, ...entries } = parseObject(bytes, file.name);
  const placed = Object.entries(entries).map(([name, value]) => toTensor(name, value, file.name));
  checkData(placed, file);
  return {
    tensors: placed.map(({ name, dtype, elements }) => ({ name, dtype, elements })),
    metadata: toMetadata(metadata),
  };
}

// --- internal ---

interface PlacedTensor extends SafetensorsTensor {
  readonly start: number;
  readonly end: number;
}

/** Those of the format's first version; newer ones are taken at their word. */
const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
};

async function readHeaderBytes(
  handle: FileHandle,
  name: string,
  sizeBytes: number,
): Promise<{ bytes: Uint8Array; dataBytes: number }> {
  const start = await readExactly(handle, { position: 0, length: Math.min(64, sizeBytes) }, name);
  if (start.length === 0) throw invalidFile(name, "it is empty");
  if (start.toString("latin1").startsWith("version https://git-lfs")) {
    throw invalidFile(name, "it is a Git LFS pointer, not the file itself", {
      hint: "Run `git lfs pull` in its repository.",
    });
  }
  if (start.length < LENGTH_BYTES) throw truncatedHeader(name);
  const length = start.readBigUInt64LE(0);
  if (length > MAX_HEADER_BYTES || (start.length > LENGTH_BYTES && start[LENGTH_BYTES] !== 0x7b)) {
    throw invalidFile(name, "it is not a safetensors file");
  }
  const dataStart = LENGTH_BYTES + Number(length);
  // Before a buffer of that size is made.
  if (dataStart > sizeBytes) throw truncatedHeader(name);
  const range = { position: LENGTH_BYTES, length: Number(length) };
  return { bytes: await readExactly(handle, range, name), dataBytes: sizeBytes - dataStart };
}

async function readExactly(
  handle: FileHandle,
  { position, length }: { position: number; length: number },
  name: string,
): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) throw truncatedHeader(name);
    done += bytesRead;
  }
  return buffer;
}

function parseObject(bytes: Uint8Array, name: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (isRecord(value)) return value;
  } catch (cause) {
    throw damaged(name, "it is not JSON", cause);
  }
  throw damaged(name, "it is not an object");
}

function toTensor(name: string, value: unknown, file: string): PlacedTensor {
  const shown = `tensor ${JSON.stringify(name.slice(0, MAX_SHOWN))}`;
  if (!isRecord(value)) throw damaged(file, `${shown} is not an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !/^[A-Za-z0-9_]{1,32}$/.test(dtype))
    throw damaged(file, `${shown} has no type`);
  if (!isCounts(shape)) throw damaged(file, `${shown} has no shape`);
  const [start, end, ...rest] = isCounts(offsets) ? offsets : [];
  if (start === undefined || end === undefined || rest.length > 0)
    throw damaged(file, `${shown} has no place`);
  const elements = shape.reduce((product, size) => product * size, 1);
  if (end < start || !Number.isSafeInteger(elements))
    throw damaged(file, `${shown} has an impossible size`);
  if (!fits(dtype, elements, end - start))
    throw damaged(file, `${shown} has another size than its shape`);
  return { name, dtype, elements, start, end };
}

function fits(dtype: string, elements: number, bytes: number): boolean {
  const bits = Object.hasOwn(DTYPE_BITS, dtype) ? DTYPE_BITS[dtype] : undefined;
  return bits === undefined || elements * bits === bytes * 8;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((entry) => Number.isSafeInteger(entry) && entry >= 0);
}

/** The tensors lie one behind the other, from the header's end to the file's end, as the format demands. */
function checkData(
  tensors: readonly PlacedTensor[],
  { name, dataBytes }: { name: string; dataBytes: number },
): void {
  let position = 0;
  for (const { start, end } of tensors.toSorted((a, b) => a.start - b.start || a.end - b.end)) {
    if (start !== position) throw damaged(name, "its tensors overlap or have gaps between them");
    position = end;
  }
  if (position > dataBytes) {
    const reason = `it is truncated: it has ${dataBytes} bytes of tensors of ${position}`;
    throw invalidFile(name, reason, { hint: "Get the file again: its transfer was cut short." });
  }
  if (position < dataBytes) {
    throw invalidFile(name, `it has ${dataBytes - position} bytes more than its header says`);
  }
}

function toMetadata(value: unknown): Record<string, string> {
  if (!isRecord(value)) return {};
  const texts = Object.entries(value).filter(
    (entry): entry is [string, string] =>
      typeof entry[1] === "string" &&
      entry[1].length <= MAX_METADATA_TEXT &&
      entry[0].length <= MAX_METADATA_TEXT,
  );
  // In an order of their own: writers keep metadata in hash maps, and write it in another order each time.
  const sorted = texts.toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(sorted.slice(0, MAX_METADATA_ENTRIES));
}

function damaged(name: string, reason: string, cause?: unknown): AppError {
  return invalidFile(name, `its header is damaged (${reason})`, { cause });
}
