/** Reading a repository: what a name means, manifests, small blobs, tags; and removing what is in it. */
import { AppError } from "../errors.ts";
import { type BlobSource, rangedSource } from "../http/blob-source.ts";
import { discard, readBounded } from "../http/body.ts";
import { isConnectionFailure, reasonOf } from "../http/connection-error.ts";
import { isTransient, type RetryOptions, withRetry } from "../http/retry.ts";
import { log } from "../log.ts";
import type { Descriptor } from "./descriptor.ts";
import { type Digest, digestOf, tryParseDigest } from "./digest.ts";
import type { Exchange, ExchangeRequest } from "./exchange.ts";
import { MAX_MANIFEST_BYTES } from "./manifest.ts";
import { isManifestType, MANIFEST_TYPES, manifestType } from "./manifest-type.ts";
import type { CallOptions, FetchedManifest, Repository } from "./registry.ts";

/** Configs, templates, licences. */
const MAX_BLOB_BYTES = 16 * 1024 * 1024;
/** What arrived damaged may arrive whole the next time; twice is no accident. */
const ATTEMPTS_AT_DIGEST = 2;
const ATTEMPTS = 5;

export interface RepositoryOptions {
  readonly registry: Exchange;
  /** Asked first, in order. */
  readonly mirrors: readonly { readonly exchange: Exchange; readonly host: string }[];
  /** Of the registry itself, for people. */
  readonly host: string;
  readonly wait?: RetryOptions["wait"] | undefined;
}

type Reads = Pick<
  Repository,
  | "resolve"
  | "fetchManifest"
  | "fetchBlob"
  | "blobSources"
  | "hasBlob"
  | "deleteManifest"
  | "deleteBlob"
>;

export function createReads(given: RepositoryOptions): Reads {
  const { registry } = given;
  const options = { ...given, unreachable: new Set<Exchange>() };
  return {
    resolve: (ref, call) =>
      fromAny(options, call, (exchange) => resolveFrom(options, exchange, { ref, ...call })),
    fetchManifest: (ref, call) =>
      fromAny(options, call, (exchange) => fetchManifestFrom(options, exchange, { ref, ...call })),
    fetchBlob: (blob, call) =>
      fromAny(options, call, (exchange) => fetchBlobFrom(options, exchange, { blob, ...call })),
    blobSources: (digest) => [
      ...reachable(options).map(({ exchange, host }) => sourceOf(exchange, host, digest)),
      sourceOf(registry, options.host, digest),
    ],
    hasBlob: (digest, call) => hasBlob(registry, digest, call),
    deleteManifest: (ref, call) => remove(registry, `/manifests/${ref}`, call),
    deleteBlob: (digest, call) => remove(registry, `/blobs/${digest}`, call),
  };
}

// --- internal ---

interface Reading extends RepositoryOptions {
  /** Mirrors that were not there: a pull waits for each of them once. */
  readonly unreachable: Set<Exchange>;
}

function reachable({ mirrors, unreachable }: Reading): RepositoryOptions["mirrors"] {
  return mirrors.filter(({ exchange }) => !unreachable.has(exchange));
}

/** A mirror that fails, however it fails, is no obstacle. */
async function fromAny<T>(
  options: Reading,
  { signal }: CallOptions,
  read: (exchange: Exchange) => Promise<T>,
): Promise<T> {
  const { registry, unreachable } = options;
  for (const { exchange, host } of reachable(options)) {
    try {
      return await read(exchange);
    } catch (error) {
      signal.throwIfAborted();
      if (isConnectionFailure(error) || reasonOf(error) === "timeout") unreachable.add(exchange);
      log.debug(`oci: a mirror was passed over host=${host} error=${String(error)}`);
    }
  }
  return read(registry);
}

interface ManifestRequest extends CallOptions {
  readonly ref: string;
}

/** HEAD costs nothing where reads are counted, but says less: in doubt the manifest itself is fetched. */
async function resolveFrom(
  options: RepositoryOptions,
  exchange: Exchange,
  request: ManifestRequest,
): Promise<Descriptor> {
  const { ref, signal } = request;
  const { headers, status } = await exchange.send(`/manifests/${ref}`, {
    ...manifestRequest(options, exchange, signal),
    method: "HEAD",
    // Refusals are repeated with a body that says why; 404 is clear enough.
    accept: [400, 401, 403, 405, 406, 429, 501],
  });
  const digest = tryParseDigest(headers.get("docker-content-digest") ?? "");
  const length = headers.get("content-length") ?? "";
  const mediaType = mediaTypeOf(headers);
  const asked = tryParseDigest(ref);
  const isComplete =
    status === 200 && /^[1-9]\d{0,9}$/.test(length) && isManifestType(mediaType ?? "");
  if (digest === undefined || !isComplete || (asked !== undefined && asked !== digest))
    return (await fetchManifestFrom(options, exchange, request)).descriptor;
  return { mediaType: mediaType ?? "", digest, size: Number(length) };
}

async function fetchManifestFrom(
  options: RepositoryOptions,
  exchange: Exchange,
  { ref, signal }: ManifestRequest,
): Promise<FetchedManifest> {
  const subject = subjectOf(exchange, ref);
  return verified(options, { exchange, signal }, async () => {
    const response = await exchange.send(`/manifests/${ref}`, {
      ...manifestRequest(options, exchange, signal),
      attempts: 1,
    });
    const bytes = await readManifest(response, subject, signal);
    const digest = digestOf(bytes);
    const promised = [ref, response.headers.get("docker-content-digest") ?? ""]
      .map((text) => tryParseDigest(text))
      .find((expected) => expected !== undefined && expected !== digest);
    if (promised !== undefined) throw wrongDigest(subject, promised, digest);
    const mediaType = manifestType(bytes, { subject, contentType: mediaTypeOf(response.headers) });
    return { descriptor: { mediaType, digest, size: bytes.length }, bytes };
  });
}

async function readManifest(
  response: Response,
  subject: string,
  signal: AbortSignal,
): Promise<Uint8Array> {
  try {
    return await readBounded(response, { maxBytes: MAX_MANIFEST_BYTES, signal });
  } catch (cause) {
    if (!(cause instanceof AppError) || cause.code !== "request_too_large") throw cause;
    throw new AppError(
      "request_too_large",
      `cannot read \`${subject}\`: its manifest is larger than ${MAX_MANIFEST_BYTES} bytes`,
      { cause },
    );
  }
}

interface BlobRequest extends CallOptions {
  readonly blob: { readonly digest: Digest; readonly size: number };
  readonly maxBytes?: number;
}

async function fetchBlobFrom(
  options: RepositoryOptions,
  exchange: Exchange,
  { blob, signal, maxBytes = MAX_BLOB_BYTES }: BlobRequest,
): Promise<Uint8Array> {
  const subject = subjectOf(exchange, blob.digest);
  if (blob.size > maxBytes) {
    throw new AppError(
      "request_too_large",
      `cannot read \`${subject}\`: it has ${blob.size} bytes, and at most ${maxBytes} are taken`,
    );
  }
  return verified(options, { exchange, signal }, async () => {
    const response = await exchange.send(`/blobs/${blob.digest}`, {
      method: "GET",
      access: "pull",
      signal,
      attempts: 1,
    });
    const bytes = await readBounded(response, { maxBytes, signal });
    const digest = digestOf(bytes);
    if (digest !== blob.digest) throw wrongDigest(subject, blob.digest, digest);
    return bytes;
  });
}

function manifestRequest(
  options: RepositoryOptions,
  exchange: Exchange,
  signal: AbortSignal,
): ExchangeRequest {
  return {
    method: "GET",
    access: "pull",
    headers: { accept: MANIFEST_TYPES.join(", ") },
    signal,
    ...(exchange === options.registry ? {} : { attempts: 1 }),
  };
}

/** Asks again for what arrives cut off or damaged. */
async function verified<T>(
  { registry, wait }: RepositoryOptions,
  { exchange, signal }: CallOptions & { readonly exchange: Exchange },
  read: () => Promise<T>,
): Promise<T> {
  // The registry is behind every mirror, so nobody waits for one.
  const limit = exchange === registry ? ATTEMPTS : 1;
  return withRetry(read, {
    signal,
    attempts: (error) => Math.min(limit, isWrongDigest(error) ? ATTEMPTS_AT_DIGEST : ATTEMPTS),
    isRetryable: (error) => isTransient(error) || isWrongDigest(error),
    ...(wait === undefined ? {} : { wait }),
  });
}

function sourceOf(exchange: Exchange, host: string, digest: Digest): BlobSource {
  return rangedSource(host, (headers, signal) =>
    exchange.send(`/blobs/${digest}`, {
      method: "GET",
      access: "pull",
      headers,
      signal,
      accept: [416],
      attempts: 1,
    }),
  );
}

async function hasBlob(
  exchange: Exchange,
  digest: Digest,
  { signal }: CallOptions,
): Promise<boolean> {
  const { status } = await exchange.send(`/blobs/${digest}`, {
    method: "HEAD",
    access: "pull",
    signal,
    accept: [404],
  });
  return status !== 404;
}

async function remove(exchange: Exchange, target: string, { signal }: CallOptions): Promise<void> {
  const response = await exchange.send(target, {
    method: "DELETE",
    access: "delete",
    signal,
    accept: [405, 501],
  });
  await discard(response);
  if (response.status < 300) return;
  throw new AppError(
    "not_supported",
    `cannot delete from \`${exchange.registry}/${exchange.repository}\`: the registry does not allow it`,
    { hint: "Delete it on the registry's own pages, or ask whoever runs it." },
  );
}

/** Without parameters, in lower case. */
function mediaTypeOf(headers: Headers): string | undefined {
  return headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
}

function subjectOf({ registry, repository }: Exchange, ref: string): string {
  return `${registry}/${repository}${ref.includes(":") ? "@" : ":"}${ref}`;
}

function isWrongDigest(error: unknown): boolean {
  return error instanceof AppError && error.code === "digest_mismatch";
}

function wrongDigest(subject: string, expected: Digest, actual: Digest): AppError {
  return new AppError(
    "digest_mismatch",
    `cannot accept \`${subject}\`: its digest is \`${actual}\`, not \`${expected}\``,
    {
      hint: "Try again; if it stays so, the registry or something on the way to it is at fault.",
      details: { expected, actual },
    },
  );
}
