/** One request for one span of a blob: what comes is written, whatever the other side makes of the request. */
import { AppError } from "../errors.ts";
import type { BlobBody, BlobSource } from "../http/blob-source.ts";
import type { PartialBlob } from "../store/store.ts";
import { BodyReader } from "./body-reader.ts";
import { GapWriter } from "./gap-writer.ts";
import type { Span } from "./spans.ts";

export interface ExchangeOptions {
  readonly partial: PartialBlob;
  readonly stallMs: number;
  readonly signal: AbortSignal;
  /** Told before the first byte is read. @returns false to leave the body */
  readonly onOpen: (body: BlobBody) => boolean;
  /** Told how many bytes came and were written; waits as long as the next ones are to wait. */
  readonly onChunk: (bytes: number) => Promise<void>;
}

/** What the source did wrong, if it did; other failures are thrown. */
export type Outcome = { readonly failure?: unknown };

/**
 * Moves the position of the span on as bytes are written; its end may go back meanwhile.
 *
 * @throws insufficient_storage, the signal's reason
 */
export async function exchange(
  span: Span,
  source: BlobSource,
  options: ExchangeOptions,
): Promise<Outcome> {
  const cut = new AbortController();
  let reader: BodyReader | undefined;
  span.onCut = () => {
    cut.abort();
    reader?.cut();
  };
  try {
    const body = await openBody(span, source, {
      ...options,
      signal: AbortSignal.any([options.signal, cut.signal]),
    });
    const { stallMs, signal } = options;
    reader = new BodyReader(body, { host: source.host, stallMs, signal });
    if (!options.onOpen(body)) return {};
    if (body.isRanged) await pourSpan(reader, span, options);
    else await pourAll(reader, span, options);
    return {};
  } catch (error) {
    options.signal.throwIfAborted();
    if (!(error instanceof SourceFailure)) throw error;
    // Nothing was left to do: somebody else does it.
    return span.position >= span.end ? {} : { failure: error.cause };
  } finally {
    delete span.onCut;
    reader?.close();
  }
}

// --- internal ---

/** Tells what the source did from what the disk did; it does not leave this file. */
class SourceFailure extends Error {}

async function openBody(
  span: Span,
  source: BlobSource,
  { partial, signal }: ExchangeOptions,
): Promise<BlobBody> {
  const { position, end } = span;
  const body = await fromSource(() => source.open({ start: position, end }, { signal }));
  const fault = faultOf(body, position, partial.blob.size);
  if (fault === undefined) return body;
  body.body.cancel().catch(() => undefined);
  throw new SourceFailure("unusable", {
    cause: new AppError(
      "registry_unavailable",
      `cannot fetch blob \`${partial.blob.digest}\` from \`${source.host}\`: ${fault}`,
      {
        hint: "Try again later or another source: this one has another file under that digest.",
        details: { permanent: true },
      },
    ),
  });
}

function faultOf(body: BlobBody, position: number, size: number): string | undefined {
  if (body.totalBytes !== undefined && body.totalBytes !== size)
    return `it has ${body.totalBytes} bytes there, not ${size}`;
  const start = body.isRanged ? position : 0;
  if (body.start !== start) return `byte ${body.start} came instead of byte ${start}`;
  return undefined;
}

async function pourSpan(reader: BodyReader, span: Span, options: ExchangeOptions): Promise<void> {
  const askedEnd = span.end;
  using writer = options.partial.writeFrom(span.position);
  while (span.position < span.end) {
    const chunk = await fromSource(() => reader.read());
    if (span.position >= span.end) return;
    if (chunk === undefined) throw endedEarly(span.end - span.position);
    const wanted = chunk.subarray(0, span.end - span.position);
    writer.write(wanted);
    span.position += wanted.length;
    await options.onChunk(chunk.length);
    // More than was asked for, or than is wanted by now.
    if (wanted.length < chunk.length) return;
  }
  if (span.position === askedEnd) reader.end();
}

/** The server knows no ranges: everything comes, from the beginning. */
async function pourAll(reader: BodyReader, span: Span, options: ExchangeOptions): Promise<void> {
  const { partial } = options;
  let seen = 0;
  using writer = new GapWriter(partial);
  while (!writer.isDone) {
    const chunk = await fromSource(() => reader.read());
    if (chunk === undefined) throw endedEarly(partial.blob.size - seen);
    writer.write(chunk.subarray(0, partial.blob.size - seen));
    seen += chunk.length;
    await options.onChunk(chunk.length);
  }
  span.position = span.end;
  reader.end();
}

async function fromSource<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new SourceFailure("failed", { cause });
  }
}

function endedEarly(missing: number): SourceFailure {
  return new SourceFailure("short", {
    cause: new AppError(
      "registry_unavailable",
      `cannot fetch a blob: the answer ended ${missing} bytes early`,
      { hint: "Try again: what was fetched is kept." },
    ),
  });
}
