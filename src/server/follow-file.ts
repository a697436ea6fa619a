/** A file as a stream that goes on while the file grows, like `tail -f`. */
import { open } from "node:fs/promises";
import { errnoOf } from "../errors.ts";
import { pause } from "../pause.ts";

const CHUNK_BYTES = 64 * 1024;
/** How often a followed file is looked at: a person reads along. */
const POLL_MS = 250;

/** From the start to the end, or on and on until `signal` is aborted or the reader leaves. A missing file is empty. */
export function followFile(
  path: string,
  options: { follow: boolean; signal: AbortSignal },
): ReadableStream<Uint8Array> {
  const left = new AbortController();
  const signal = AbortSignal.any([options.signal, left.signal]);
  const chunks = readChunks(path, { follow: options.follow, signal });
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { value, done } = await chunks.next();
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => left.abort(),
  });
}

// --- internal ---

async function* readChunks(
  path: string,
  options: { follow: boolean; signal: AbortSignal },
): AsyncGenerator<Uint8Array, undefined> {
  let offset = 0;
  while (!options.signal.aborted) {
    const chunk = await readAt(path, offset);
    offset += chunk.byteLength;
    if (chunk.byteLength > 0) yield chunk;
    else if (options.follow) await pause(POLL_MS, options.signal);
    else return undefined;
  }
  return undefined;
}

async function readAt(path: string, offset: number): Promise<Uint8Array> {
  try {
    await using file = await open(path, "r");
    const { bytesRead, buffer } = await file.read(
      new Uint8Array(CHUNK_BYTES),
      0,
      CHUNK_BYTES,
      offset,
    );
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return new Uint8Array();
    throw error;
  }
}
