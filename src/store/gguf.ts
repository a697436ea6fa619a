/**
 * Facts of a GGUF model, read from the headers of its files alone: a file of any size costs a few megabytes of reading.
 *
 * @see https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import type { FileHandle } from "node:fs/promises";
import { open, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type AppError, errnoOf } from "../errors.ts";
import {
  type GgufSource,
  type HeaderValue,
  parseGguf,
  type ParsedGguf,
  type TypedValue,
} from "./gguf-parse.ts";
import { toModelShape } from "./gguf-shape.ts";
import { tensorBytes, tensorElements } from "./gguf-tensor-types.ts";
import type { ModelShape } from "./model-shape.ts";
import { invalidFile, type NamedFile, toReadError, truncatedHeader } from "./read-error.ts";

/** `general.file_type` carries this bit where a converter only guessed. @see llama.h LLAMA_FTYPE_GUESSED */
const FILE_TYPE_GUESSED = 1024;
/** Longer arrays are vocabularies and merges, which nobody reads as text. Entries. */
const MAX_TEXT_ARRAY = 50;
/** More missing shards than this are counted, not named. */
const MAX_NAMED_SHARDS = 3;
const SHARD_NAME = /^(?<prefix>.*)-(?<index>\d{5})-of-(?<total>\d{5})\.gguf$/i;
interface GgufFile {
  /** As given, or beside the given one. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Milliseconds since the epoch. */
  readonly modifiedMs: number;
}

export interface GgufFacts {
  /** The model's files in shard order. */
  readonly files: readonly GgufFile[];
  /** `general.architecture`, such as `llama`; `clip` for a projector. */
  readonly architecture: string | null;
  readonly name: string | null;
  /** SPDX identifier by convention, in whatever case the author wrote it. */
  readonly license: string | null;
  /** Such as `Q4_K_M`. */
  readonly quantization: string | null;
  /** Elements of all tensors. */
  readonly parameterCount: number;
  /** Bytes of all tensors; smaller than the files. */
  readonly tensorBytes: number;
  /** The context that the model was trained for. */
  readonly contextTokens: number | null;
  /** Whether it is a multimodal projector and no model of its own. */
  readonly isProjector: boolean;
  /** The first file's keys and values as text: floats with six decimals, arrays joined, long and nested ones left out. */
  readonly header: Readonly<Record<string, string>>;
}

/**
 * Reads the headers of a model, of all its shards if `path` is one of several, and checks that the tensors are there.
 *
 * @throws not_found, forbidden, invalid_model_file (not a GGUF, truncated, damaged, a shard missing)
 */
export async function readGgufFacts(
  path: string,
  options: { signal: AbortSignal },
): Promise<GgufFacts> {
  const paths = splitNames(path);
  await requireShards(path, paths);
  return readGgufFiles(
    paths.map((location) => ({ location, name: basename(location) })),
    options,
  );
}

/**
 * As `readGgufFacts`, of files that lie anywhere.
 *
 * @param files all of the model's, in shard order
 * @throws not_found, forbidden, invalid_model_file
 */
export async function readGgufFiles(
  files: readonly NamedFile[],
  options: { signal: AbortSignal },
): Promise<GgufFacts> {
  const parts: Part[] = [];
  for (const [index, file] of files.entries()) {
    const part = await readPart(file, options.signal);
    checkShard(part, index, files.length);
    parts.push(part);
  }
  checkTensorCount(parts);
  return toFacts(parts);
}

/**
 * What of a model decides how much memory it needs.
 *
 * @param files all of the model's, in shard order
 * @throws not_found, forbidden, invalid_model_file
 */
export async function readGgufShape(
  files: readonly NamedFile[],
  { signal }: { signal: AbortSignal },
): Promise<ModelShape> {
  const parts: Part[] = [];
  for (const file of files) parts.push(await readPart(file, signal));
  return toShape(parts);
}

/**
 * As `readGgufShape`, of bytes that lie anywhere: only headers are read, some megabytes.
 *
 * @param sources all of the model's files, in shard order
 * @throws invalid_model_file, and whatever reading throws
 */
export async function readGgufShapeFrom(
  sources: readonly GgufSource[],
  { signal }: { signal: AbortSignal },
): Promise<ModelShape> {
  const parts: Part[] = [];
  for (const source of sources) {
    const { name, sizeBytes } = source;
    const parsed = await parseGguf(source, { signal });
    parts.push(toPart({ path: name, sizeBytes, modifiedMs: 0 }, name, parsed));
  }
  return toShape(parts);
}

/** The names of all shards, in order, of the model that `path` belongs to; `path` alone if it is not a shard's name. */
export function splitNames(path: string): string[] {
  const match = SHARD_NAME.exec(basename(path));
  const { prefix = "", index = "", total = "" } = match?.groups ?? {};
  if (match === null || Number(index) < 1 || Number(index) > Number(total)) return [path];
  const extension = path.slice(path.lastIndexOf("."));
  return Array.from({ length: Number(total) }, (_, position) => {
    const number = String(position + 1).padStart(5, "0");
    return join(dirname(path), `${prefix}-${number}-of-${total}${extension}`);
  });
}

// --- internal ---

/** One file. */
interface Part {
  readonly file: GgufFile;
  /** For messages. */
  readonly name: string;
  readonly header: ReadonlyMap<string, { readonly value: HeaderValue; readonly isFloat: boolean }>;
  readonly tensors: number;
  readonly elements: number;
  readonly bytes: number;
  /** Bytes of tensors by `ggml_type` name. */
  readonly bytesByType: ReadonlyMap<string, number>;
  readonly fileTypeName: string | undefined;
  readonly parsed: ParsedGguf;
}

async function requireShards(path: string, paths: readonly string[]): Promise<void> {
  if (paths.length === 1) return;
  const missing: string[] = [];
  for (const name of paths) {
    if (missing.length <= MAX_NAMED_SHARDS && !(await exists(name))) missing.push(basename(name));
  }
  if (missing.length === 0) return;
  const shown = missing.slice(0, MAX_NAMED_SHARDS).map((name) => `\`${name}\``);
  const more = missing.length > MAX_NAMED_SHARDS ? " and more" : "";
  throw invalidFile(
    basename(path),
    `of its ${paths.length} shards ${shown.join(", ")}${more} cannot be found`,
    {
      hint: "Put all shards of the model into one directory, under their original names.",
      details: { missing: missing.slice(0, MAX_NAMED_SHARDS) },
    },
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return false;
    throw toReadError(path, error);
  }
}

async function readPart({ location, name }: NamedFile, signal: AbortSignal): Promise<Part> {
  signal.throwIfAborted();
  let file: FileHandle | undefined;
  try {
    const kind = await stat(location);
    // Opening a named pipe would wait for somebody to write to it.
    if (!kind.isFile()) throw notAFile(name, kind.isDirectory());
    file = await open(location, "r");
    const { size, mtimeMs } = await file.stat();
    await checkMagic(name, file);
    const { read } = openedFile(file);
    const parsed = await parseGguf({ name, sizeBytes: size, read }, { signal });
    return toPart({ path: location, sizeBytes: size, modifiedMs: mtimeMs }, name, parsed);
  } catch (error) {
    throw toReadError(location, error, name);
  } finally {
    await file?.close();
  }
}

/** The parser reads from front to back; a file gives less than was asked for only at its end. */
function openedFile(file: FileHandle): Pick<GgufSource, "read"> {
  return {
    read: async (start, end) => {
      const { buffer, bytesRead } = await file.read(
        Buffer.alloc(end - start),
        0,
        end - start,
        start,
      );
      return buffer.subarray(0, bytesRead);
    },
  };
}

async function checkMagic(name: string, file: FileHandle): Promise<void> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, 0);
  const start = buffer.subarray(0, bytesRead).toString("latin1");
  if (start.startsWith("GGUF")) return;
  if (start === "") throw invalidFile(name, "it is empty");
  if (start.startsWith("version https://git-lfs")) {
    throw invalidFile(name, "it is a Git LFS pointer, not the file itself", {
      hint: "Run `git lfs pull` in its repository.",
    });
  }
  throw invalidFile(name, "it is not a GGUF file", { hint: "Give the weights as a `.gguf` file." });
}

function toPart(file: GgufFile, name: string, parsed: ParsedGguf): Part {
  const header = new Map<string, { value: HeaderValue; isFloat: boolean }>();
  const entries: Readonly<Record<string, TypedValue>> = parsed.typedMetadata;
  for (const [key, { value, type, subType = type }] of Object.entries(entries)) {
    // The counts before the first key, which the parser puts beside the keys.
    if (["version", "tensor_count", "kv_count"].includes(key)) continue;
    const isFloat = [parsed.valueTypes.FLOAT32, parsed.valueTypes.FLOAT64].includes(subType);
    header.set(key, { value: value as HeaderValue, isFloat });
  }
  // Past the end of a file the parser sees zeros, which make a fine header.
  if (parsed.tensorInfoByteRange[1] > file.sizeBytes) throw truncatedHeader(name);
  checkAlignment(name, header.get("general.alignment")?.value);
  const sums = sumTensors(file.sizeBytes, name, parsed);
  const fileType = header.get("general.file_type")?.value;
  const code = typeof fileType === "number" ? fileType & ~FILE_TYPE_GUESSED : -1;
  return {
    file,
    name,
    header,
    tensors: parsed.tensorInfos.length,
    fileTypeName: parsed.fileTypes[code],
    parsed,
    ...sums,
  };
}

function checkAlignment(name: string, value: HeaderValue | undefined): void {
  if (value === undefined) return;
  const alignment = Number(value);
  if (Number.isInteger(Math.log2(alignment))) return;
  throw invalidFile(name, `its header is damaged (an alignment of ${alignment} bytes)`);
}

function sumTensors(
  sizeBytes: number,
  name: string,
  parsed: ParsedGguf,
): Pick<Part, "elements" | "bytes" | "bytesByType"> {
  const bytesByType = new Map<string, number>();
  let elements = 0n;
  let bytes = 0n;
  let end = parsed.tensorDataOffset;
  for (const tensor of parsed.tensorInfos) {
    const size = tensorBytes(tensor);
    const tensorEnd = parsed.tensorDataOffset + tensor.offset + size;
    if (tensorEnd > end) end = tensorEnd;
    elements += tensorElements(tensor);
    bytes += size;
    const type = parsed.types[tensor.dtype] ?? "unknown";
    bytesByType.set(type, (bytesByType.get(type) ?? 0) + Number(size));
  }
  // A file without tensors, such as a vocabulary, may lack the padding after its header.
  if (parsed.tensorInfos.length > 0 && end > BigInt(sizeBytes)) {
    throw invalidFile(name, `it is truncated: it has ${sizeBytes} bytes of ${end}`, {
      hint: "Get the file again: its transfer was cut short.",
      details: { sizeBytes, neededBytes: Number(end) },
    });
  }
  return { elements: Number(elements), bytes: Number(bytes), bytesByType };
}

function checkShard(part: Part, index: number, total: number): void {
  const count = toNumber(part, "split.count") ?? 1;
  const number = toNumber(part, "split.no") ?? 0;
  if (count <= 1 && total === 1) return;
  if (count === total && number === index) return;
  const reason =
    count > 1
      ? `it is shard ${number + 1} of ${count}, which its name does not say`
      : "its name says that it is a shard, but it is not";
  throw invalidFile(part.name, reason, {
    hint: "Give the file its original name back; shards end in `-00001-of-00003.gguf` and so on.",
  });
}

function checkTensorCount(parts: readonly Part[]): void {
  const [first] = parts;
  const expected = first && toNumber(first, "split.tensors.count");
  const found = parts.reduce((sum, { tensors }) => sum + tensors, 0);
  if (first === undefined || expected === undefined || expected === found) return;
  throw invalidFile(
    first.name,
    `its shards hold ${found} tensors of ${expected}: they are of two models`,
    {
      hint: "Get all shards again from one place.",
    },
  );
}

function toFacts(parts: readonly Part[]): GgufFacts {
  const first = parts[0] as Part;
  const architecture = toText(first, "general.architecture");
  const context = toNumber(first, `${architecture}.context_length`);
  return {
    files: parts.map(({ file }) => file),
    architecture,
    name: toText(first, "general.name"),
    license: toText(first, "general.license"),
    quantization: first.fileTypeName ?? heaviestType(parts),
    parameterCount: parts.reduce((sum, { elements }) => sum + elements, 0),
    tensorBytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
    contextTokens: context !== undefined && context > 0 && context < 2 ** 31 ? context : null,
    isProjector: architecture === "clip" || toText(first, "general.type") === "mmproj",
    header: headerText(first),
  };
}

/** One file has the keys, each its own tensors. */
function toShape(parts: readonly Part[]): ModelShape {
  const keys = parts.flatMap(({ header }) => [...header]).toReversed();
  const header = new Map<string, unknown>(keys.map(([key, { value }]) => [key, value]));
  const tensors = parts.flatMap(({ parsed }) =>
    parsed.tensorInfos.map(({ name, shape, dtype }) => ({
      name,
      shape,
      dtype,
      type: parsed.types[dtype] ?? "unknown",
    })),
  );
  return toModelShape(header, tensors);
}

/** For a file that does not name its type: what most of its bytes are. */
function heaviestType(parts: readonly Part[]): string | null {
  const sums = new Map<string, number>();
  for (const [type, bytes] of parts.flatMap(({ bytesByType }) => [...bytesByType])) {
    sums.set(type, (sums.get(type) ?? 0) + bytes);
  }
  const [heaviest] = [...sums].toSorted((a, b) => b[1] - a[1]);
  return heaviest?.[0] ?? null;
}

/** What splits a model is no fact of the model: the header reads the same however it is cut. */
function headerText({ header }: Part): Record<string, string> {
  const entries = [...header]
    .filter(([key]) => !key.startsWith("split."))
    .map(([key, { value, isFloat }]) => [key, valueText(value, isFloat)] as const)
    .filter((entry): entry is readonly [string, string] => entry[1] !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries);
}

function valueText(value: HeaderValue, isFloat: boolean): string | undefined {
  if (typeof value !== "object") return isFloat ? Number(value).toFixed(6) : String(value);
  const isNested = value.some((entry) => typeof entry === "object");
  if (isNested || value.length > MAX_TEXT_ARRAY) return undefined;
  return value.map((entry) => valueText(entry, isFloat)).join(", ");
}

function toText({ header }: Part, key: string): string | null {
  const value = header.get(key)?.value;
  return typeof value === "string" && value !== "" ? value : null;
}

function toNumber({ header }: Part, key: string): number | undefined {
  const value = header.get(key)?.value;
  return typeof value === "number" || typeof value === "bigint" ? Number(value) : undefined;
}

function notAFile(name: string, isDirectory: boolean): AppError {
  return invalidFile(name, isDirectory ? "it is a directory" : "it is not a regular file", {
    hint: "Name a `.gguf` file.",
  });
}
