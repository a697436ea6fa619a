/**
 * Uploads one blob: not at all if the registry has it, by mounting if another repository there has it, in one exchange if
 * it is small, else in parts, which go on after a failure where the registry says it is.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
 */
import { AppError } from "../errors.ts";
import { discard, STALL_MS } from "../http/body.ts";
import { withRetry } from "../http/retry.ts";
import { type Digest, digestOf } from "./digest.ts";
import type { Exchange, ExchangeRequest } from "./exchange.ts";
import type { UploadOptions, UploadSource } from "./registry.ts";
import { BlobBody, wrongDigest } from "./upload-body.ts";
import {
  ABANDON_MS,
  type CloseOutcome,
  type PartOutcome,
  UploadSession,
} from "./upload-session.ts";

/**
 * Below the 100 MB that proxies in front of registries accept in one request (Cloudflare's limit is the best known), and
 * large enough for one round trip a part to be nothing. A token is renewed between parts, not amid the blob.
 */
const PART_BYTES = 64 * 1024 * 1024;

/** Registries hash, copy and replicate before they answer; object stores take minutes for tens of gigabytes. */
const COMMIT_MS = 10 * 60_000;

/** Each costs an exchange, and most that fail once fail always. */
const MAX_MOUNTS = 3;

/**
 * Sessions that registries lose or refuse to go on with; each begins with the first byte. Distribution 2.8 loses one with
 * every connection that breaks amid a part: the place it signed into the location is no more that of its file.
 */
const MAX_SESSIONS = 5;

/**
 * Then the whole goes in one exchange, which every registry takes: with parts larger than 4 MiB GHCR answers 416 and says
 * nothing of use when it is asked, and ECR, whose `Range` stays behind what it has, does not answer that question at all.
 */
const MAX_SESSIONS_IN_PARTS = 2;

/** What was sent is right, so a registry that says otherwise gets it once more, in one exchange. */
const MAX_REJECTIONS = 2;

/** Proxies that take even less are told of: with the default, parts shrink from 64 MiB to 8 and 1, nginx's own limit. */
const REDUCTION = 8;
const MAX_REDUCTIONS = 2;

/** For tests: what is a constant elsewhere. */
export interface UploadTuning {
  /** Larger blobs go in parts of this size. */
  readonly partBytes?: number;
  readonly stallMs?: number;
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/**
 * @returns what it took. Nothing is left behind in the registry when it fails, as far as the registry can be reached
 * @throws digest_mismatch (nothing is published), unauthorized, forbidden, too_many_requests, registry_unavailable,
 *   offline, cancelled, and what the source throws
 */
export async function upload(
  exchange: Exchange,
  blob: { readonly digest: Digest; readonly size: number },
  { source, ...options }: UploadOptions & UploadTuning & { readonly source: UploadSource },
): Promise<"present" | "mounted" | "uploaded"> {
  const { signal, onBytes, mountFrom = [], stallMs = STALL_MS, partBytes = PART_BYTES } = options;
  const job: Job = {
    exchange,
    ...blob,
    signal,
    partBytes,
    wait: options.wait,
    body: new BlobBody({ blob, source, signal, onBytes, stallMs }),
  };
  // There is no last piece to hold back.
  const empty = digestOf(new Uint8Array());
  if (blob.size === 0 && blob.digest !== empty) throw wrongDigest(blob.digest, empty);
  if (await hasBlob(exchange, blob.digest, { signal })) return "present";
  const opened = await openSession(job, mountFrom);
  if (typeof opened === "string") return opened;
  await sendThrough(job, opened);
  onBytes?.(blob.size);
  return "uploaded";
}

/** @throws unauthorized, forbidden, too_many_requests, registry_unavailable, offline, cancelled */
export async function hasBlob(
  exchange: Exchange,
  digest: Digest,
  { signal }: { readonly signal: AbortSignal },
): Promise<boolean> {
  const response = await exchange.send(`/blobs/${digest}`, {
    method: "HEAD",
    access: "push",
    signal,
    // Not every registry answers this question, and none has to.
    accept: [404, 405, 501],
  });
  await discard(response);
  return response.ok;
}

// --- internal ---

interface Job {
  readonly exchange: Exchange;
  readonly digest: Digest;
  readonly size: number;
  readonly signal: AbortSignal;
  readonly partBytes: number;
  readonly wait: UploadTuning["wait"];
  readonly body: BlobBody;
}

type Opened = UploadSession | "present" | "mounted";

async function openSession(job: Job, mountFrom: readonly string[]): Promise<Opened> {
  let session: UploadSession | undefined;
  for (const from of mountFrom.slice(0, MAX_MOUNTS)) {
    const next = await tryMount(job, from).catch(async (error: unknown) => {
      await session?.[Symbol.asyncDispose]();
      throw error;
    });
    if (next === undefined) continue;
    // One session is enough: that of the last answer.
    await session?.[Symbol.asyncDispose]();
    if (next === "mounted") return next;
    session = next;
  }
  if (session !== undefined) return session;
  const response = await post(job, "/blobs/uploads/");
  return (await sessionOf(job, response)) ?? "present";
}

/** @returns undefined if the registry does not want to look there, such as where this account may not read */
async function tryMount(job: Job, from: string): Promise<UploadSession | "mounted" | undefined> {
  const query = `mount=${encodeURIComponent(job.digest)}&from=${encodeURIComponent(from)}`;
  try {
    const response = await post(job, `/blobs/uploads/?${query}`, {
      alsoPull: from,
      accept: [400, 404, 405, 501],
    });
    if (response.ok) return (await sessionOf(job, response)) ?? "mounted";
    await discard(response);
    return undefined;
  } catch (error) {
    const isDenied = error instanceof AppError && DENIALS.has(error.code);
    if (!isDenied) throw error;
    return undefined;
  }
}

const DENIALS: ReadonlySet<string> = new Set(["unauthorized", "forbidden", "not_found"]);

/** Cancelled while it is under way, it is waited for a little: its answer says which session is to be given up. */
async function post(
  { exchange, signal }: Job,
  target: string,
  options: Pick<ExchangeRequest, "alsoPull" | "accept"> = {},
): Promise<Response> {
  signal.throwIfAborted();
  const late = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const expire = (): void => {
    timer = setTimeout(() => late.abort(signal.reason), ABANDON_MS);
  };
  signal.addEventListener("abort", expire, { once: true });
  try {
    return await exchange.send(target, {
      method: "POST",
      access: "push",
      headers: { "content-length": "0" },
      signal: late.signal,
      ...options,
    });
  } finally {
    signal.removeEventListener("abort", expire);
    clearTimeout(timer);
  }
}

/** @returns undefined for 201: the blob is there */
async function sessionOf(
  { exchange, digest, signal }: Job,
  response: Response,
): Promise<UploadSession | undefined> {
  await discard(response);
  if (response.status === 201) return undefined;
  const options = { digest, signal, commitMs: COMMIT_MS };
  const session = new UploadSession(exchange, response, options);
  if (signal.aborted) await session[Symbol.asyncDispose]();
  signal.throwIfAborted();
  return session;
}

/** How the next session goes about it. */
interface Way {
  readonly partBytes: number;
  readonly inParts: boolean;
  readonly reductions: number;
  readonly rejections: number;
  readonly losses: number;
}

/** Sends the blob, in as many sessions as it takes. */
async function sendThrough(job: Job, first: UploadSession): Promise<void> {
  const { digest, exchange, partBytes, signal } = job;
  let way: Way = {
    partBytes,
    inParts: job.size > partBytes,
    reductions: 0,
    rejections: 0,
    losses: 0,
  };
  let opened: Opened = first;
  for (let count = 1; typeof opened !== "string"; count += 1) {
    const outcome = await sendInSession(job, opened, way);
    if (outcome === "done") return;
    way = nextWay(job, way, outcome);
    if (count === MAX_SESSIONS) throw sessionsLost(digest, exchange.registry);
    signal.throwIfAborted();
    // The last answer may have been lost, not the upload.
    if (await hasBlob(exchange, digest, job)) return;
    opened = await openSession(job, []);
  }
}

type Setback = Exclude<CloseOutcome, "done"> | "refused";

/** @throws digest_mismatch, registry_unavailable if no way is left */
function nextWay({ digest, exchange, size }: Job, way: Way, setback: Setback): Way {
  switch (setback) {
    case "lost": {
      const losses = way.losses + 1;
      return { ...way, losses, inParts: way.inParts && losses < MAX_SESSIONS_IN_PARTS };
    }
    case "refused":
      // What a registry refuses after it took some may be its own mistake, but the whole is always taken.
      return { ...way, inParts: false };
    case "rejected":
      if (way.rejections + 1 === MAX_REJECTIONS) throw rejected(digest, exchange.registry);
      return { ...way, inParts: false, rejections: way.rejections + 1 };
    case "too_large": {
      const sentBytes = Math.min(way.partBytes, size);
      if (way.reductions === MAX_REDUCTIONS) throw tooLarge(digest, exchange.registry, sentBytes);
      const partBytes = Math.max(1, Math.floor(sentBytes / REDUCTION));
      return { ...way, inParts: true, partBytes, reductions: way.reductions + 1 };
    }
    default:
      return setback satisfies never;
  }
}

async function sendInSession(
  job: Job,
  opened: UploadSession,
  { inParts, partBytes }: Way,
): Promise<CloseOutcome | "refused"> {
  await using session = opened;
  return inParts ? await sendParts(job, session, partBytes) : await sendWhole(job, session);
}

/** A failure begins again with a new session: the bytes are few, or the registry takes no parts. */
async function sendWhole(job: Job, first: UploadSession): Promise<CloseOutcome> {
  const { exchange, digest, size, body } = job;
  return withRetry(async (attempt) => {
    if (attempt === 1) return first.putWhole(body, size);
    await first[Symbol.asyncDispose]();
    if (await hasBlob(exchange, digest, job)) return "done";
    const opened = await openSession(job, []);
    if (typeof opened === "string") return "done";
    await using session = opened;
    return await session.putWhole(body, size);
  }, retryOptions(job));
}

async function sendParts(
  job: Job,
  session: UploadSession,
  wantedBytes: number,
): Promise<CloseOutcome | "refused"> {
  const { size, body } = job;
  const partBytes = Math.max(wantedBytes, session.minPartBytes);
  while (session.offset < size) {
    const outcome = await withRetry(async (attempt): Promise<PartOutcome> => {
      if (attempt > 1) {
        // A piece of the part may have arrived; then the next failure is the first again.
        const resumed = await session.resume(body.sentBytes);
        if (resumed !== "refused") return resumed;
      }
      const start = session.offset;
      return session.patch(body, { start, end: Math.min(start + partBytes, size) });
    }, retryOptions(job));
    if (outcome !== "moved") return outcome;
  }
  return withRetry(async (attempt) => {
    if (attempt > 1 && (await hasBlob(job.exchange, job.digest, job))) return "done";
    return session.finish();
  }, retryOptions(job));
}

function retryOptions({ signal, wait }: Job) {
  return { signal, ...(wait === undefined ? {} : { wait }) };
}

function sessionsLost(digest: Digest, registry: string): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot upload \`${digest}\` to ${registry}: it lost the upload ${MAX_SESSIONS} times`,
    { hint: "Try again later; ask whoever runs the registry if it stays so." },
  );
}

function rejected(digest: Digest, registry: string): AppError {
  return new AppError(
    "digest_mismatch",
    `cannot upload \`${digest}\`: ${registry} says that other bytes arrived than were sent`,
    { hint: "Try again; ask whoever runs the registry if it stays so, or runs a proxy before it." },
  );
}

function tooLarge(digest: Digest, registry: string, bytes: number): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot upload \`${digest}\` to ${registry}: it takes no requests of ${bytes} bytes`,
    {
      hint: "Have the limit of the proxy before it raised, such as nginx's `client_max_body_size`.",
      details: { permanent: true },
    },
  );
}
