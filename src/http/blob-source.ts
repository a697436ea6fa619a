/** Bytes that can be had by ranges over HTTP: RFC 9110 §14, with all that servers make of it. */
import { AppError } from "../errors.ts";
import { discard } from "./body.ts";
import type { Http } from "./http.ts";
import { statusError } from "./status-error.ts";

/** Where the bytes of one blob can be had, by ranges. */
export interface BlobSource {
  /** For people and for choosing among sources: a host. */
  readonly host: string;
  /**
   * Asks for the bytes from `start` to before `end`. One exchange; what may pass is thrown as transient (`http/retry.ts`).
   *
   * @throws not_found if this source has no such blob; registry_unavailable with `details.reason` `range` if the answer is
   *         another range than the one asked for, with `details.permanent` if the blob ends before it starts
   */
  open(range: ByteRange, options: { readonly signal: AbortSignal }): Promise<BlobBody>;
}

export interface ByteRange {
  readonly start: number;
  /** Exclusive; `Infinity` where the size is unknown. */
  readonly end: number;
}

export interface BlobBody {
  /** Where the body starts, whatever was asked for: 0 if the server ignores ranges. */
  readonly start: number;
  /** False: the server sends everything from the beginning, and knows no ranges. */
  readonly isRanged: boolean;
  /** Of the whole blob, where the server says. */
  readonly totalBytes: number | undefined;
  /** Differs for different bytes, where the server says anything of the kind: its `ETag`, or the time of the last change. */
  readonly version?: string | undefined;
  /** Leave it by cancelling it. */
  readonly body: ReadableStream<Uint8Array>;
}

/** Sends a GET with these headers; every status of 400 and above but 416 is thrown. */
export type RangeRequest = (
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
) => Promise<Response>;

/**
 * A file at a URL.
 *
 * @param options.authorization goes to the origin of the URL only
 */
export function urlSource(
  http: Http,
  url: string,
  options: { readonly authorization?: string | undefined } = {},
): BlobSource {
  const { authorization } = options;
  return rangedSource(URL.parse(url)?.host ?? "", async (headers, signal) => {
    const response = await http.send(url, { headers, authorization, signal });
    if (response.status < 400 || response.status === 416) return response;
    await discard(response);
    throw statusError(response, url);
  });
}

/** A source over any way to send requests. */
export function rangedSource(host: string, send: RangeRequest): BlobSource {
  return {
    host,
    async open(range, { signal }) {
      const response = await send(rangeHeaders(range), signal);
      const reading = readAnswer(host, range, response);
      if ("body" in reading) return reading;
      await discard(response);
      throw reading;
    },
  };
}

// --- internal ---

const CONTENT_RANGE = /^bytes\s+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i;

/** An empty range cannot be written; what is asked for then is the whole, which is empty as well. */
function rangeHeaders({ start, end }: ByteRange): Readonly<Record<string, string>> {
  if (end <= start) return {};
  return { range: `bytes=${start}-${Number.isFinite(end) ? end - 1 : ""}` };
}

function readAnswer(host: string, range: ByteRange, response: Response): BlobBody | AppError {
  const body = (response.body as ReadableStream<Uint8Array> | null) ?? emptyStream();
  if (response.status === 200) {
    const totalBytes = lengthOf(response);
    return { start: 0, isRanged: false, totalBytes, version: versionOf(response), body };
  }
  if (response.status === 206) return readPartial(host, range, { response, body });
  if (response.status === 416) {
    return unusable(host, `it has fewer than ${range.start} bytes`, { permanent: true });
  }
  return unusable(host, `it answered with status ${response.status}`, { permanent: true });
}

function readPartial(
  host: string,
  range: ByteRange,
  { response, body }: { readonly response: Response; readonly body: ReadableStream<Uint8Array> },
): BlobBody | AppError {
  const match = CONTENT_RANGE.exec(response.headers.get("content-range")?.trim() ?? "");
  if (match === null) return unusable(host, "it does not say which bytes it sends");
  const [first, last] = [Number(match[1]), Number(match[2])];
  const totalBytes = match[3] === "*" ? undefined : Number(match[3]);
  const length = lengthOf(response);
  if (first !== range.start || last < first || last >= range.end)
    return unusable(host, `it sends bytes ${first} to ${last}, which were not asked for`);
  if (length !== undefined && length !== last - first + 1)
    return unusable(host, `it announces ${length} bytes for ${first} to ${last}`);
  if (totalBytes !== undefined && totalBytes <= last)
    return unusable(host, `it sends byte ${last} of ${totalBytes}`);
  return { start: first, isRanged: true, totalBytes, version: versionOf(response), body };
}

function versionOf({ headers }: Response): string | undefined {
  return headers.get("etag")?.replace(/^W\//, "") ?? headers.get("last-modified") ?? undefined;
}

function lengthOf(response: Response): number | undefined {
  const value = response.headers.get("content-length");
  return value !== null && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}

function unusable(
  host: string,
  reason: string,
  details: Readonly<Record<string, unknown>> = {},
): AppError {
  return new AppError("registry_unavailable", `cannot read from \`${host}\`: ${reason}`, {
    details: { reason: "range", ...details },
  });
}
