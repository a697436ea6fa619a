/** A request that comes by stdin. */
import { AppError } from "../errors.ts";

/** Names and a token. Bytes. */
const MAX_LINE_BYTES = 64 * 1024;

/**
 * The first line of stdin.
 *
 * @param options.onEnd called once stdin ends, then or later: whoever wrote the line is gone
 * @throws invalid_request, cancelled
 */
export async function readRequestLine(options: {
  signal: AbortSignal;
  onEnd: () => void;
  /** Default: stdin. */
  input?: ReadableStream<Uint8Array>;
}): Promise<string> {
  const { signal, onEnd, input = Bun.stdin.stream() } = options;
  const reader = input.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    signal.throwIfAborted();
    const { done, value } = await reader.read();
    if (done) throw new AppError("invalid_request", "cannot read the request: stdin has ended");
    parts.push(value);
    size += value.byteLength;
    if (value.includes(0x0a)) break;
    if (size > MAX_LINE_BYTES) {
      throw new AppError("request_too_large", "cannot read the request: its line has no end");
    }
  }
  void waitForEnd(reader).then(onEnd);
  return Buffer.concat(parts).toString("utf8").split("\n", 1)[0] ?? "";
}

// --- internal ---

async function waitForEnd(reader: { read(): Promise<{ done: boolean }> }): Promise<void> {
  try {
    while (!(await reader.read()).done);
  } catch {
    // A pipe that breaks has ended, too.
  }
}
