/** Downloads one file of known size and digest; whatever interrupts it, the next attempt goes on where it stopped. */
import { open, rename, rm, statfs } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

import { AppError, errnoOf } from "../../errors.ts";
import type { BlobSource } from "../../http/blob-source.ts";
import { STALL_MS } from "../../http/body.ts";
import { isTransient } from "../../http/retry.ts";
import { pause } from "../../pause.ts";

/** Attempts in a row that brought no byte. */
const FRUITLESS_ATTEMPTS = 3;
const FIRST_PAUSE_MS = 200;
/** Without an answer for so long a connection counts as dead; quicker than elsewhere, because another source may serve. */
const CONNECT_MS = 10_000;
/** Progress is reported once for so many bytes. */
const REPORT_BYTES = 256 * 1024;

export interface DownloadRequest {
  /** For people. */
  readonly name: string;
  /** Where to get it, in order: the next one serves when one fails for good. */
  readonly sources: readonly BlobSource[];
  /** Where the verified file appears; `<path>.part` holds it until then, and stays when the download fails. */
  readonly path: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly signal: AbortSignal;
  readonly onBytes: (done: number) => void;
}

/**
 * @throws digest_mismatch when the bytes are not the announced ones (the part is then removed); what the last source
 *   failed with when it refuses or cannot be reached; insufficient_storage before anybody is asked
 */
export async function download(request: DownloadRequest): Promise<void> {
  const part = `${request.path}.part`;
  const resumed = await fill(request, part);
  let good = await verify(request, part);
  // What was left from an earlier run may have been damaged since; only a fresh copy proves the server wrong.
  if (!good && resumed) {
    await rm(part, { force: true });
    await fill(request, part);
    good = await verify(request, part);
  }
  if (good) {
    await rename(part, request.path);
    return;
  }
  await rm(part, { force: true });
  throw new AppError(
    "digest_mismatch",
    `cannot accept \`${request.name}\`: its content is not what was announced`,
    { hint: "Try again later; if it stays so, somebody changes the file on its way." },
  );
}

// --- internal ---

/** @returns true if bytes of an earlier run were kept */
async function fill(request: DownloadRequest, part: string): Promise<boolean> {
  await using file = await open(part, "a+");
  const kept = await usableBytes(file, request.bytes);
  await requireSpace(request, kept);
  const sources = [...request.sources];
  let offset = kept;
  let fruitless = 0;
  while (offset < request.bytes) {
    const before = offset;
    const outcome = await attempt(request, file, { source: sources[0], offset });
    offset = outcome.offset;
    fruitless = offset > before ? 0 : fruitless + 1;
    if (outcome.isPermanent || fruitless >= FRUITLESS_ATTEMPTS) {
      sources.shift();
      fruitless = 0;
      if (offset < request.bytes && sources.length === 0) throw outcome.problem;
      continue;
    }
    if (offset < request.bytes) await pause(FIRST_PAUSE_MS * 2 ** fruitless, request.signal);
  }
  await file.sync();
  return kept > 0;
}

async function usableBytes(file: FileHandle, total: number): Promise<number> {
  const { size } = await file.stat();
  if (size <= total) return size;
  await file.truncate(0);
  return 0;
}

/** A part that filled the disk would stay there. */
async function requireSpace({ name, path, bytes }: DownloadRequest, kept: number): Promise<void> {
  // Where the system does not tell, the write finds out.
  const disk = await statfs(dirname(path)).catch(() => undefined);
  const needed = bytes - kept;
  const free = disk === undefined ? Number.POSITIVE_INFINITY : disk.bavail * disk.bsize;
  if (free >= needed) return;
  throw new AppError(
    "insufficient_storage",
    `cannot download \`${name}\`: it needs ${needed} bytes and the disk has ${free} left`,
    { hint: "Free some space and try again." },
  );
}

interface Outcome {
  /** Bytes in the file now. */
  readonly offset: number;
  readonly problem: Error;
  /** Asking this source again is useless. */
  readonly isPermanent: boolean;
}

/** One exchange. What goes wrong with it is returned; what is wrong with the bytes or the disk is thrown. */
async function attempt(
  request: DownloadRequest,
  file: FileHandle,
  from: { readonly source: BlobSource | undefined; readonly offset: number },
): Promise<Outcome> {
  const { source, offset } = from;
  const host = source?.host ?? "";
  const watchdog = new Watchdog(host);
  const signal = AbortSignal.any([request.signal, watchdog.signal]);
  let written = offset;
  try {
    if (source === undefined) throw new Error("nobody has it");
    const range = { start: offset, end: Number.POSITIVE_INFINITY };
    const answer = await source.open(range, { signal });
    watchdog.feed();
    if (answer.start !== offset) {
      await file.truncate(0);
      written = 0;
    }
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      watchdog.feed();
      written = await append(request, file, { chunk, written });
    }
    return {
      offset: written,
      problem: new Error(`${host} closed the connection`),
      isPermanent: false,
    };
  } catch (error) {
    request.signal.throwIfAborted();
    if (isFinal(error)) throw error;
    const problem = watchdog.signal.aborted ? watchdog.problem : asClause(error, host);
    return {
      offset: written,
      problem,
      isPermanent: error instanceof AppError && !isTransient(error),
    };
  } finally {
    watchdog.stop();
  }
}

async function append(
  request: DownloadRequest,
  file: FileHandle,
  { chunk, written }: { readonly chunk: Uint8Array; readonly written: number },
): Promise<number> {
  const end = written + chunk.length;
  if (end > request.bytes) {
    throw new AppError(
      "digest_mismatch",
      `cannot accept \`${request.name}\`: it is longer than announced`,
    );
  }
  await file.appendFile(chunk);
  const crossed = Math.floor(end / REPORT_BYTES) > Math.floor(written / REPORT_BYTES);
  if (crossed || end === request.bytes) request.onBytes(end);
  return end;
}

async function verify({ sha256, signal }: DownloadRequest, part: string): Promise<boolean> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(part).stream()) {
    signal.throwIfAborted();
    hasher.update(chunk);
  }
  return hasher.digest("hex") === sha256;
}

/** Aborts when it was not fed for a while. */
class Watchdog {
  readonly #controller = new AbortController();
  readonly problem: Error;
  #timer: Timer;

  constructor(host: string) {
    this.problem = new Error(`${host} stopped sending`);
    this.#timer = this.#arm(CONNECT_MS);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  feed(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#arm(STALL_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #arm(ms: number): Timer {
    return setTimeout(() => this.#controller.abort(this.problem), ms);
  }
}

/** Neither another attempt nor another source helps. */
function isFinal(error: unknown): boolean {
  const code = errnoOf(error);
  return code === "digest_mismatch" || code === "ENOSPC" || code === "EDQUOT";
}

function asClause(error: unknown, host: string): Error {
  if (error instanceof AppError) return error;
  const code = errnoOf(error);
  return new Error(`the connection to ${host} failed${code === undefined ? "" : ` (${code})`}`, {
    cause: error,
  });
}
