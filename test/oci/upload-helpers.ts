import { type Digest, digestOf } from "../../src/oci/digest.ts";
import type { UploadSource } from "../../src/oci/registry.ts";

/** Reproducible bytes that look like none of their neighbours. */
export function noise(size: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  let state = seed;
  for (let index = 0; index < size; index += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}

export interface MemorySource extends UploadSource {
  /** The spans that were asked for. */
  readonly spans: (readonly [start: number, end: number])[];
  /** Streams that were neither read to their end nor cancelled. */
  open(start: number, end: number): ReadableStream<Uint8Array>;
  readonly openStreams: () => number;
}

/** Bytes in memory, a small piece at a time. */
export function memorySource(bytes: Uint8Array, pieceBytes = 4096): MemorySource {
  const spans: [number, number][] = [];
  let openStreams = 0;
  return {
    size: bytes.length,
    spans,
    openStreams: () => openStreams,
    open: (start, end) => {
      spans.push([start, end]);
      openStreams += 1;
      let at = start;
      return new ReadableStream<Uint8Array>(
        {
          async pull(controller) {
            await Promise.resolve();
            const piece = bytes.slice(at, Math.min(at + pieceBytes, end));
            at += piece.length;
            controller.enqueue(piece);
            if (at < end) return;
            openStreams -= 1;
            controller.close();
          },
          cancel() {
            openStreams -= 1;
          },
        },
        { highWaterMark: 0 },
      );
    },
  };
}

export function blobOf(bytes: Uint8Array): { readonly digest: Digest; readonly size: number } {
  return { digest: digestOf(bytes), size: bytes.length };
}
