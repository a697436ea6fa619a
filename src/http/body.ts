/** Reading bodies of other machines: bounded in size, and in the time without progress. */
import { AppError } from "../errors.ts";
import { brokenBody } from "./connection-error.ts";

/** Without a single byte for this long a body counts as dead. Milliseconds. */
export const STALL_MS = 30_000;

export interface ReadOptions {
  readonly maxBytes: number;
  readonly signal: AbortSignal;
  /** `STALL_MS` unless given. */
  readonly stallMs?: number;
}

/** @throws request_too_large if it is larger, registry_unavailable if it stalls or is cut off */
export async function readBounded(response: Response, options: ReadOptions): Promise<Uint8Array> {
  const announced = Number(response.headers.get("content-length") ?? 0);
  if (announced > options.maxBytes) {
    await discard(response);
    throw tooLarge(response, options.maxBytes);
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunksOf(response, options)) {
    size += chunk.length;
    if (size > options.maxBytes) throw tooLarge(response, options.maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** Lets go of a body that nobody will read, so that its connection ends. */
export async function discard(response: Response): Promise<void> {
  try {
    await response.body?.cancel();
  } catch {
    // It is broken already, which is as good.
  }
}

// --- internal ---

async function* chunksOf(
  response: Response,
  { signal, stallMs = STALL_MS }: ReadOptions,
): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  try {
    for (;;) {
      const { done, value } = await orStall(reader.read(), { response, signal, stallMs });
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: cancelling a body whose connection hangs may take as long as the connection.
    reader.cancel().catch(() => undefined);
  }
}

interface StallOptions {
  readonly response: Response;
  readonly signal: AbortSignal;
  readonly stallMs: number;
}

async function orStall<T>(
  reading: Promise<T>,
  { response, signal, stallMs }: StallOptions,
): Promise<T> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(stalled(response, stallMs)), stallMs);
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([reading, promise]);
  } catch (error) {
    if (error instanceof AppError || signal.aborted) throw error;
    throw brokenBody(response.url, error);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    reading.catch(() => undefined);
  }
}

function stalled(response: Response, stallMs: number): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot read the answer of \`${hostOf(response)}\`: it sent nothing for ${Math.round(stallMs / 1000)} s`,
    { details: { reason: "stalled" } },
  );
}

function tooLarge(response: Response, maxBytes: number): AppError {
  return new AppError(
    "request_too_large",
    `cannot read the answer of \`${hostOf(response)}\`: it is larger than ${maxBytes} bytes`,
  );
}

function hostOf(response: Response): string {
  return URL.parse(response.url)?.host ?? "the server";
}
