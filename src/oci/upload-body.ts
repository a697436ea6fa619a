/**
 * The bytes of one blob on their way to a registry: read as the connection takes them, counted, hashed, watched.
 *
 * The last piece is handed over only if all the bytes together have the blob's digest: what is wrong is never uploaded
 * whole, whatever the registry checks.
 */
import { AppError, assert } from "../errors.ts";
import { type Digest, digestOfHex } from "./digest.ts";
import type { UploadSource } from "./registry.ts";

/** Connecting and getting a token come before the first byte, and may need several exchanges. */
const FIRST_BYTE_STALLS = 3;

export interface BodyOptions {
  readonly blob: { readonly digest: Digest; readonly size: number };
  readonly source: UploadSource;
  readonly signal: AbortSignal;
  readonly onBytes: ((done: number) => void) | undefined;
  /** So long the connection may take no byte. The wait for the answer, after the last one, is not counted. Milliseconds. */
  readonly stallMs: number;
}

export interface ByteSpan {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** Sends parts of one blob, one after the other; parts may be sent again. */
export class BlobBody {
  readonly #options: BodyOptions;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #hashedBytes = 0;
  #actual: Digest | undefined;
  #part: Part | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(options: BodyOptions) {
    this.#options = options;
  }

  /** Bytes from the beginning that were handed over at least once: a registry cannot have more. */
  get sentBytes(): number {
    return this.#hashedBytes;
  }

  /**
   * Runs one exchange whose body is this span. The stream is closed when it ends, however it ends.
   *
   * @param send may ask for the body again, such as after a renewed authorization
   * @throws digest_mismatch, registry_unavailable if nothing moves, what the source throws, what `send` throws
   */
  async send<T>(
    span: ByteSpan,
    send: (body: () => ReadableStream<Uint8Array>, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { signal, stallMs } = this.#options;
    const watch = new Watch();
    this.#failure = undefined;
    watch.set(stallMs * FIRST_BYTE_STALLS, "the registry took no byte");
    try {
      return await send(() => this.#open(span, watch), AbortSignal.any([signal, watch.signal]));
    } catch (error) {
      signal.throwIfAborted();
      const failure = this.#failure as { error: unknown } | undefined;
      if (failure !== undefined) throw failure.error;
      if (watch.signal.aborted) throw stalled(this.#options.blob.digest, watch.reason);
      throw error;
    } finally {
      watch.clear();
      this.#part?.close();
    }
  }

  #open({ start, end }: ByteSpan, watch: Watch): ReadableStream<Uint8Array> {
    this.#part?.close();
    const part = openPart(this.#options.source.open(start, end));
    this.#part = part;
    const { stallMs, onBytes } = this.#options;
    let at = start;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
      // How long the source takes is the source's matter.
      watch.clear();
      const bytes = await part.read();
      if (part.isClosed) return;
      if (bytes === undefined || at + bytes.length > end) throw wrongLength(this.#options, at);
      this.#hash(at, bytes);
      at += bytes.length;
      onBytes?.(at);
      controller.enqueue(bytes);
      if (at < end) watch.set(stallMs, "the registry took no more bytes");
      else controller.close();
    };
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            await pull(controller);
          } catch (error) {
            this.#failure ??= { error };
            part.close();
            throw error;
          }
        },
        cancel: () => part.close(),
      },
      { highWaterMark: 0 },
    );
  }

  /** Bytes that were hashed before are skipped. @throws digest_mismatch at the last byte */
  #hash(at: number, bytes: Uint8Array): void {
    const { blob } = this.#options;
    assert(at <= this.#hashedBytes, "an upload goes on where bytes were seen");
    const skipped = this.#hashedBytes - at;
    if (skipped < bytes.length) {
      this.#hasher.update(skipped <= 0 ? bytes : bytes.subarray(skipped));
      this.#hashedBytes = at + bytes.length;
    }
    if (at + bytes.length < blob.size) return;
    this.#actual ??= digestOfHex(this.#hasher.digest("hex"));
    if (this.#actual !== blob.digest) throw wrongDigest(blob.digest, this.#actual);
  }
}

export function wrongDigest(expected: Digest, actual: Digest): AppError {
  return new AppError(
    "digest_mismatch",
    `cannot upload \`${expected}\`: its bytes have the digest \`${actual}\``,
    {
      hint: "Run `tug verify` to see which models are damaged, and get them again.",
      details: { expected, actual },
    },
  );
}

// --- internal ---

/** One reading of the source. */
interface Part {
  readonly isClosed: boolean;
  /** Never empty; undefined at the end. */
  read(): Promise<Uint8Array | undefined>;
  close(): void;
}

function openPart(stream: ReadableStream<Uint8Array>): Part {
  const reader = stream.getReader();
  let isClosed = false;
  return {
    get isClosed() {
      return isClosed;
    },
    read: async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return undefined;
        if (value.length > 0) return value;
      }
    },
    close: () => {
      if (isClosed) return;
      isClosed = true;
      // What a source says about being left early is of no interest.
      reader.cancel().catch(() => {});
    },
  };
}

/** One deadline, which moves. */
class Watch {
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  reason = "";

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  set(ms: number, reason: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.reason = `${reason} for ${Math.round(ms / 1000)} s`;
      this.#controller.abort();
    }, ms);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}

function stalled(digest: Digest, reason: string): AppError {
  return new AppError("registry_unavailable", `cannot upload \`${digest}\`: ${reason}`, {
    hint: "Check the connection and try again.",
  });
}

function wrongLength({ blob, source }: BodyOptions, at: number): AppError {
  return new AppError(
    "conflict",
    `cannot upload \`${blob.digest}\`: its source does not have ${source.size} bytes (seen at ${at})`,
    { hint: "Try again when nothing writes to it." },
  );
}
