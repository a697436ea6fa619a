/**
 * A blob of one registry as the source of an upload to another: its bytes pass through this machine without touching the
 * disk. What breaks off on the way in goes on where it was, from the next source if there is one.
 */
import { AppError, toAppError } from "../errors.ts";
import type { BlobSource } from "../http/blob-source.ts";
import { STALL_MS } from "../http/body.ts";
import { isTransient, withRetry } from "../http/retry.ts";
import type { Digest } from "../oci/digest.ts";
import type { UploadSource } from "../oci/registry.ts";

export interface RemoteSourceOptions {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** In the order in which they are asked. */
  readonly sources: readonly BlobSource[];
  readonly signal: AbortSignal;
  /** `STALL_MS` unless given. */
  readonly stallMs?: number;
  /** Between attempts; for tests. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/**
 * Spans are read one at a time. What follows the last one goes on in the same answer, so that a server that ignores ranges
 * sends the blob once.
 */
export class RemoteSource implements UploadSource, Disposable {
  readonly size: number;
  readonly #options: RemoteSourceOptions;
  /** Those that have not turned out to be useless. */
  #sources: readonly BlobSource[];
  #answer: Answer | undefined;

  constructor(options: RemoteSourceOptions) {
    this.size = options.size;
    this.#options = options;
    this.#sources = options.sources;
  }

  open(start: number, end: number): ReadableStream<Uint8Array> {
    const left = new AbortController();
    let at = start;
    let isReading = false;
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          isReading = true;
          const bytes = await this.#read(at, end - at, left.signal);
          isReading = false;
          if (left.signal.aborted) return;
          at += bytes.length;
          controller.enqueue(bytes);
          if (at === end) controller.close();
        },
        cancel: () => {
          left.abort();
          // Else it would take a piece that the next span misses.
          if (isReading) this[Symbol.dispose]();
        },
      },
      { highWaterMark: 0 },
    );
  }

  [Symbol.dispose](): void {
    this.#answer?.close();
    this.#answer = undefined;
  }

  /** @param left aborts when nobody wants them any more @returns 1 to `count` bytes from `at` on */
  async #read(at: number, count: number, left: AbortSignal): Promise<Uint8Array> {
    const { wait } = this.#options;
    const signal = AbortSignal.any([this.#options.signal, left]);
    return withRetry(
      async () => {
        let answer = this.#answer;
        try {
          if (answer?.at !== at) {
            answer?.close();
            answer = await this.#ask(at);
            signal.throwIfAborted();
            this.#answer = answer;
          }
          return await answer.read(count);
        } catch (error) {
          answer?.close();
          if (this.#answer === answer) this.#answer = undefined;
          throw error;
        }
      },
      { signal, ...(wait === undefined ? {} : { wait }) },
    );
  }

  /** What a source refuses for good is not asked of it again. */
  async #ask(at: number): Promise<Answer> {
    const { digest, signal, size, stallMs = STALL_MS } = this.#options;
    let failure = nowhere(digest);
    for (const source of this.#sources) {
      try {
        const blob = await source.open({ start: at, end: size }, { signal });
        const answer = openAnswer(blob.body, { at: blob.start, host: source.host, stallMs });
        if (blob.start <= at && (blob.totalBytes ?? size) === size) {
          await answer.skipTo(at);
          return answer;
        }
        answer.close();
        throw unusable(digest, source.host);
      } catch (error) {
        signal.throwIfAborted();
        const isPassing = isTransient(error);
        // One that may come back is worth another attempt, whatever the others say.
        if (isPassing || !isTransient(failure)) failure = toAppError(error);
        if (!isPassing) this.#sources = this.#sources.filter((each) => each !== source);
      }
    }
    throw failure;
  }
}

// --- internal ---

/** One answer of a source, read from front to back. */
interface Answer {
  /** Of the next byte. */
  readonly at: number;
  /** @returns 1 to `count` bytes @throws registry_unavailable if it ends or stalls */
  read(count: number): Promise<Uint8Array>;
  skipTo(at: number): Promise<void>;
  close(): void;
}

function openAnswer(
  body: ReadableStream<Uint8Array>,
  options: { readonly at: number; readonly host: string; readonly stallMs: number },
): Answer {
  const reader = body.getReader();
  let { at } = options;
  let rest: Uint8Array = new Uint8Array();
  const read = async (count: number): Promise<Uint8Array> => {
    while (rest.length === 0) {
      const { done, value } = await withinStall(reader.read(), options);
      if (done) throw broken(options.host, "it ended early");
      rest = value;
    }
    const bytes = rest.subarray(0, count);
    rest = rest.subarray(bytes.length);
    at += bytes.length;
    return bytes;
  };
  return {
    get at() {
      return at;
    },
    read,
    skipTo: async (target) => {
      for (let left = target - at; left > 0; left = target - at) await read(left);
    },
    close: () => {
      // It is left anyway: how it takes that is of no interest.
      reader.cancel().catch(() => {});
    },
  };
}

async function withinStall<T>(
  reading: Promise<T>,
  { host, stallMs }: { readonly host: string; readonly stallMs: number },
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const reason = `it sent nothing for ${Math.round(stallMs / 1000)} s`;
  const timer = setTimeout(() => reject(broken(host, reason)), stallMs);
  try {
    return await Promise.race([reading, promise]);
  } catch (error) {
    throw error instanceof AppError ? error : broken(host, "the connection broke", error);
  } finally {
    clearTimeout(timer);
    reading.catch(() => {});
  }
}

function broken(host: string, reason: string, cause?: unknown): AppError {
  return new AppError("registry_unavailable", `cannot read from ${host}: ${reason}`, {
    hint: "Check the connection and try again.",
    cause,
  });
}

function unusable(digest: Digest, host: string): AppError {
  return new AppError("digest_mismatch", `cannot read \`${digest}\`: ${host} has other bytes`, {
    hint: "Ask whoever runs the registry.",
  });
}

function nowhere(digest: Digest): AppError {
  return new AppError("not_found", `cannot read \`${digest}\`: no registry has it`);
}
