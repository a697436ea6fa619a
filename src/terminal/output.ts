/**
 * Writing to a stream that may be slow or gone. A slow reader slows the writer down; a reader that left
 * (`tug list | head`) ends the output quietly and aborts `closed`, so that work done only for it can stop.
 */

export interface Output {
  /** True for a terminal. */
  readonly isTerminal: boolean;
  /** Aborted once nobody reads any more. */
  readonly closed: AbortSignal;
  /** Resolves when the bytes are handed over: true, or false if nobody reads them. Rejects only on a real failure. */
  write(text: string | Uint8Array): Promise<boolean>;
}

const opened = new WeakMap<NodeJS.WritableStream, Output>();

/** What a write to a reader that is gone fails with, by platform. */
const GONE = new Set([
  "EPIPE",
  "ECONNRESET",
  "EOF",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_WRITE_AFTER_END",
]);

/** The same stream always has the same output. */
export function openOutput(stream: NodeJS.WritableStream = process.stdout): Output {
  const known = opened.get(stream);
  if (known !== undefined) return known;
  const output = createOutput(stream);
  opened.set(stream, output);
  return output;
}

/** Writes `text` to stdout as it is. */
export async function print(text: string): Promise<void> {
  await openOutput().write(text);
}

// --- internal ---

function createOutput(stream: NodeJS.WritableStream): Output {
  const closing = new AbortController();
  // The write's own callback reports the failure; without a listener the event would end the process with a stack.
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (GONE.has(error.code ?? "")) closing.abort();
  });
  return {
    isTerminal: (stream as { isTTY?: boolean }).isTTY === true,
    closed: closing.signal,
    write(text) {
      if (closing.signal.aborted) return Promise.resolve(false);
      if (text.length === 0) return Promise.resolve(true);
      return new Promise((resolve, reject) => {
        stream.write(text, (error?: NodeJS.ErrnoException | null) => {
          if (error === undefined || error === null) return resolve(true);
          if (!GONE.has(error.code ?? "")) return reject(error);
          closing.abort();
          return resolve(false);
        });
      });
    },
  };
}
