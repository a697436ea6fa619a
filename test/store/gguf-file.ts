import { open } from "node:fs/promises";

/** `gguf_metadata_value_type`. */
const TYPES = {
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
} as const;

export type GgufValue =
  | { readonly uint32: number }
  | { readonly int32: number }
  | { readonly float32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly uint64: bigint }
  | { readonly array: readonly GgufValue[] };

interface GgufTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** `ggml_type`: 0 is F32, 8 is Q8_0. */
  readonly dtype: number;
  readonly offset: number;
}

export interface GgufContents {
  readonly values: Readonly<Record<string, GgufValue>>;
  readonly tensors?: readonly GgufTensor[];
}

/** The header of a GGUF v3 file, padded to where its tensors begin. */
export function encodeGguf({ values, tensors = [] }: GgufContents): Buffer {
  const entries = Object.entries(values);
  const body = Buffer.concat([
    Buffer.from("GGUF"),
    uint32(3),
    uint64(tensors.length),
    uint64(entries.length),
    ...entries.flatMap(([key, value]) => [text(key), uint32(typeOf(value)), encodeValue(value)]),
    ...tensors.flatMap(({ name, shape, dtype, offset }) => [
      text(name),
      uint32(shape.length),
      ...shape.map(uint64),
      uint32(dtype),
      uint64(offset),
    ]),
  ]);
  return Buffer.concat([body, Buffer.alloc((32 - (body.length % 32)) % 32)]);
}

/** Writes the header and makes the file `sizeBytes` long; what was not written takes no room on the disk. */
export async function writeSparseGguf(
  path: string,
  contents: GgufContents,
  sizeBytes?: number,
): Promise<void> {
  await using file = await open(path, "w");
  const header = encodeGguf(contents);
  await file.write(header);
  if (sizeBytes !== undefined) await file.truncate(sizeBytes);
}

// --- internal ---

function typeOf(value: GgufValue): number {
  return TYPES[Object.keys(value)[0] as keyof typeof TYPES];
}

function encodeValue(value: GgufValue): Buffer {
  if ("uint32" in value) return uint32(value.uint32);
  if ("int32" in value) return Buffer.from(new Int32Array([value.int32]).buffer);
  if ("float32" in value) return Buffer.from(new Float32Array([value.float32]).buffer);
  if ("bool" in value) return Buffer.from([value.bool ? 1 : 0]);
  if ("uint64" in value) return uint64(value.uint64);
  if ("string" in value) return text(value.string);
  const [first] = value.array;
  const type = first === undefined ? TYPES.uint32 : typeOf(first);
  return Buffer.concat([uint32(type), uint64(value.array.length), ...value.array.map(encodeValue)]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint64(bytes.length), bytes]);
}

function uint32(value: number): Buffer {
  return Buffer.from(new Uint32Array([value]).buffer);
}

function uint64(value: number | bigint): Buffer {
  return Buffer.from(new BigUint64Array([BigInt(value)]).buffer);
}
