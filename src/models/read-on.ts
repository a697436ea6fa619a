/** One stream of all the bytes of a source, which goes on where it was cut. */
import { AppError } from "../errors.ts";
import type { BlobBody, BlobSource } from "../http/blob-source.ts";
import { STALL_MS } from "../http/body.ts";
import { isTransient, withRetry } from "../http/retry.ts";
import { BodyReader } from "../transfer/body-reader.ts";

/** Openings without a single byte more before it is given up. */
const MAX_BARREN = 5;

/** Where nobody says how long it is: larger than any file, and exact as a number. */
const UNKNOWN_END = 2 ** 52;

export interface ReadOnOptions {
  /** Bytes, where they are known; the source must have as many. */
  readonly size: number | undefined;
  readonly signal: AbortSignal;
  /** Told what the source says of the size, if it does. */
  readonly onSize?: (bytes: number) => void;
}

/**
 * @throws registry_unavailable if it is cut too often, stalls, has another size, or changes before all of it is here; what
 *         the source throws
 */
export async function* readOn(
  source: BlobSource,
  options: ReadOnOptions,
): AsyncGenerator<Uint8Array> {
  const { signal } = options;
  const progress: Progress = { position: 0, size: options.size };
  for (let barren = 0; !isComplete(progress);) {
    const before = progress.position;
    const range = { start: before, end: progress.size ?? UNKNOWN_END };
    const body = await withRetry(async () => source.open(range, { signal }), { signal });
    if (isChanged(progress, body)) {
      await body.body.cancel().catch(() => undefined);
      throw changed(source);
    }
    if (progress.size === undefined && body.totalBytes !== undefined) {
      progress.size = body.totalBytes;
      options.onSize?.(body.totalBytes);
    }
    try {
      yield* chunksOf(source, { body, progress, signal });
      // The end of the body is all there is to know where no size is known.
      if (progress.size === undefined) return;
    } catch (error) {
      signal.throwIfAborted();
      if (!isTransient(error)) throw error;
    }
    barren = progress.position === before ? barren + 1 : 0;
    if (barren >= MAX_BARREN) throw cut(source);
  }
}

// --- internal ---

interface Progress {
  position: number;
  size: number | undefined;
  version?: string | undefined;
}

/** Whether it is another version than what came before; remembers which it is. */
function isChanged(progress: Progress, { version }: BlobBody): boolean {
  progress.version ??= version;
  return version !== undefined && version !== progress.version;
}

function isComplete({ position, size }: Progress): boolean {
  return size !== undefined && position >= size;
}

/** What a server that knows no ranges sends again is skipped. */
async function* chunksOf(
  source: BlobSource,
  { body, progress, signal }: { body: BlobBody; progress: Progress; signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  let surplus = progress.position - body.start;
  const reader = new BodyReader(body, { host: source.host, stallMs: STALL_MS, signal });
  try {
    for (;;) {
      const chunk = await reader.read();
      if (chunk === undefined) return;
      const fresh = chunk.subarray(Math.min(surplus, chunk.length));
      surplus -= chunk.length - fresh.length;
      progress.position += fresh.length;
      if (progress.size !== undefined && progress.position > progress.size)
        throw otherSize(source, progress.size);
      if (fresh.length > 0) yield fresh;
    }
  } finally {
    reader.close();
  }
}

function cut({ host }: BlobSource): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot read from \`${host}\`: it is cut again and again`,
    { hint: "Check the network and try again." },
  );
}

/** Nobody knows the digest: two halves of two files would be taken for one. */
function changed({ host }: BlobSource): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot read from \`${host}\`: the file was changed while it was read`,
    { hint: "Pull it again.", details: { permanent: true } },
  );
}

function otherSize({ host }: BlobSource, size: number): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot read from \`${host}\`: it sends more than ${size} bytes`,
    {
      hint: "Try again; if it happens again, the source is damaged.",
      details: { permanent: true },
    },
  );
}
