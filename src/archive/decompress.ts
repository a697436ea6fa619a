/** Archives that may be compressed. */
import { AppError } from "../errors.ts";

/** The longest beginning that tells a compression. Bytes. */
const MAGIC_BYTES = 6;

/** By the beginning of the bytes. */
export type Compression = "gzip" | "zstd";

/** Compressions and archives that are not read, by their beginnings in hexadecimal. */
const REFUSED: readonly (readonly [magic: string, what: string])[] = [
  ["425a68", "bzip2"],
  ["fd377a585a00", "xz"],
  ["504b0304", "zip"],
  ["377abcaf271c", "7z"],
];

/**
 * The bytes as they are, or what gzip (RFC 1952) and zstd (RFC 8878) make of them; read as slowly as the caller reads.
 *
 * @param options.maxBytes of the result; any number unless given
 * @throws invalid_model_file for other compressions at once, for damage and too large a result while it is read
 */
export async function* decompressed(
  chunks: AsyncIterable<Uint8Array>,
  options: { readonly maxBytes?: number } = {},
): AsyncGenerator<Uint8Array> {
  const { maxBytes = Number.POSITIVE_INFINITY } = options;
  let size = 0;
  for await (const chunk of expanded(chunks)) {
    size += chunk.length;
    if (size > maxBytes) {
      throw new AppError(
        "invalid_model_file",
        `cannot read the archive: it unpacks to more than ${maxBytes} bytes`,
      );
    }
    yield chunk;
  }
}
/** @param head at least the first six bytes @throws invalid_model_file for one that is not read */
export function compressionOf(head: Uint8Array): Compression | undefined {
  const hex = Buffer.from(head.subarray(0, MAGIC_BYTES)).toString("hex");
  const refused = REFUSED.find(([magic]) => hex.startsWith(magic))?.[1];
  if (refused !== undefined) {
    throw new AppError("invalid_model_file", `cannot read the archive: it is ${refused}`, {
      hint: "Give a tar archive, plain or compressed with gzip or zstd.",
    });
  }
  if (hex.startsWith("1f8b")) return "gzip";
  return hex.startsWith("28b52ffd") ? "zstd" : undefined;
}

// --- internal ---

async function* expanded(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  try {
    const head = await readHead(iterator);
    const whole = concatenate(head, iterator);
    const compression = compressionOf(head);
    if (compression === undefined) yield* whole;
    else yield* expand(whole, compression);
  } finally {
    await iterator.return?.();
  }
}

async function readHead(iterator: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < MAGIC_BYTES) {
    const { done, value } = await iterator.next();
    if (done === true) break;
    head = head.length === 0 ? value : Buffer.concat([head, value]);
  }
  return head;
}

async function* concatenate(
  head: Uint8Array,
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  for (;;) {
    const { done, value } = await iterator.next();
    if (done === true) return;
    yield value;
  }
}

/** Not Node's streams: those take a zstd frame that ends early for a whole one. */
async function* expand(
  iterator: AsyncIterator<Uint8Array>,
  compression: Compression,
): AsyncGenerator<Uint8Array> {
  let failure: { readonly error: unknown } | undefined;
  const packed = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        try {
          const { done, value } = await iterator.next();
          if (done === true) controller.close();
          else controller.enqueue(value as Uint8Array<ArrayBuffer>);
        } catch (error) {
          failure = { error };
          throw error;
        }
      },
    },
    { highWaterMark: 0 },
  );
  const decompressor = new DecompressionStream(compression);
  try {
    yield* packed.pipeThrough(decompressor) as AsyncIterable<Uint8Array>;
  } catch (error) {
    // What the source failed with is its own matter.
    if (failure !== undefined) throw failure.error;
    throw new AppError(
      "invalid_model_file",
      `cannot read the archive: it cannot be decompressed (${(error as Error).message.slice(0, 200)})`,
      { hint: "Transfer the whole file again.", cause: error },
    );
  }
}
