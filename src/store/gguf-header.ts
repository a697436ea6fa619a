/**
 * The keys and values of a GGUF file as they are typed, arrays and all.
 *
 * @see https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { type FileHandle, open } from "node:fs/promises";
import { type HeaderValue, parseGguf, type TypedValue } from "./gguf-parse.ts";
import { tensorElements } from "./gguf-tensor-types.ts";
import { type NamedFile, toReadError } from "./read-error.ts";

export interface GgufHeader {
  readonly values: ReadonlyMap<string, HeaderValue>;
  /** Elements of the tensors in this file. */
  readonly parameterCount: number;
}

/** @throws not_found, forbidden, invalid_model_file */
export async function readGgufHeader(
  { location, name }: NamedFile,
  { signal }: { readonly signal: AbortSignal },
): Promise<GgufHeader> {
  try {
    await using file = await open(location, "r");
    const { size: sizeBytes } = await file.stat();
    const read = (start: number, end: number) => readAt(file, start, end);
    const parsed = await parseGguf({ name, sizeBytes, read }, { signal });
    const entries: Readonly<Record<string, TypedValue>> = parsed.typedMetadata;
    const values = new Map<string, HeaderValue>();
    for (const [key, { value }] of Object.entries(entries)) {
      // The counts before the first key, which the parser puts beside the keys.
      if (!COUNTS.has(key)) values.set(key, value as HeaderValue);
    }
    const elements = parsed.tensorInfos.reduce((sum, tensor) => sum + tensorElements(tensor), 0n);
    return { values, parameterCount: Number(elements) };
  } catch (error) {
    throw toReadError(location, error, name);
  }
}

// --- internal ---

const COUNTS: ReadonlySet<string> = new Set(["version", "tensor_count", "kv_count"]);

async function readAt(
  file: FileHandle,
  start: number,
  end: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start);
  return buffer.subarray(0, bytesRead);
}
