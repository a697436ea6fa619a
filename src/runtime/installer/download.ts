/** Downloads one file of known size and digest; whatever interrupts it, the next attempt goes on where it stopped. */
import { open, rename, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";

import { AppError, errnoOf } from "../../errors.ts";
import { pause } from "../../pause.ts";

/** Attempts in a row that brought no byte. */
const FRUITLESS_ATTEMPTS = 3;
const FIRST_PAUSE_MS = 200;
/** Without a byte for so long, a connection counts as dead. The first one is quicker: another source may serve. */
const STALL_MS = 30_000;
const CONNECT_MS = 10_000;
/** Progress is reported once for so many bytes. */
const REPORT_BYTES = 256 * 1024;

export interface DownloadRequest {
  readonly url: string;
  /** Where the verified file appears; `<path>.part` holds it until then, and stays when the download fails. */
  readonly path: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly signal: AbortSignal;
  readonly onBytes: (done: number) => void;
}

/**
 * @throws digest_mismatch when the bytes are not the announced ones (the part is then removed); Error with a clause
 *   for a message when the server refuses or cannot be reached
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
    `cannot accept \`${nameOf(request.url)}\`: its content is not what the release announces`,
    { hint: "Try again later; if it stays so, somebody changes the file on its way." },
  );
}

// --- internal ---

/** @returns true if bytes of an earlier run were kept */
async function fill(request: DownloadRequest, part: string): Promise<boolean> {
  await using file = await open(part, "a+");
  const kept = await usableBytes(file, request.bytes);
  let offset = kept;
  let fruitless = 0;
  while (offset < request.bytes) {
    const before = offset;
    const outcome = await attempt(request, file, offset);
    offset = outcome.offset;
    fruitless = offset > before ? 0 : fruitless + 1;
    if (offset < request.bytes && fruitless >= FRUITLESS_ATTEMPTS) {
      throw new Error(outcome.problem ?? "the connection was cut", { cause: outcome.cause });
    }
    if (offset < request.bytes) await pause(FIRST_PAUSE_MS * 2 ** fruitless, request.signal);
    request.signal.throwIfAborted();
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

interface Outcome {
  /** Bytes in the file now. */
  readonly offset: number;
  readonly problem?: string;
  readonly cause?: unknown;
}

/** One request. Problems that may pass are returned, others thrown. */
async function attempt(
  request: DownloadRequest,
  file: FileHandle,
  offset: number,
): Promise<Outcome> {
  const stall = new Watchdog(CONNECT_MS);
  const signal = AbortSignal.any([request.signal, stall.signal]);
  let written = offset;
  try {
    const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    const response = await fetch(request.url, { headers, signal });
    stall.feed();
    const problem = refusal(response, request.url);
    if (problem !== undefined) return { offset, problem };
    if (!continues(response, offset)) {
      await file.truncate(0);
      written = 0;
    }
    if (response.status === 416) return { offset: 0, problem: "the server has no such range" };
    for await (const chunk of response.body ?? []) {
      stall.feed();
      written = await append(request, file, { chunk, written });
    }
    return { offset: written };
  } catch (error) {
    request.signal.throwIfAborted();
    if (error instanceof AppError || isDiskFull(error)) throw error;
    const { host } = new URL(request.url);
    const problem = stall.signal.aborted
      ? `${host} stopped sending`
      : `the connection to ${host} failed${suffix(errnoOf(error))}`;
    return { offset: written, problem, cause: error };
  } finally {
    stall.stop();
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
      `cannot accept \`${nameOf(request.url)}\`: it is longer than the release announces`,
    );
  }
  await file.appendFile(chunk);
  const crossed = Math.floor(end / REPORT_BYTES) > Math.floor(written / REPORT_BYTES);
  if (crossed || end === request.bytes) request.onBytes(end);
  return end;
}

/** @returns why to try again later; @throws Error if trying again is useless */
function refusal(response: Response, url: string): string | undefined {
  const { status } = response;
  if (status === 200 || status === 206 || status === 416) return undefined;
  const problem = `${new URL(url).host} answered with status ${status}`;
  if (status === 408 || status === 429 || status >= 500) return problem;
  throw new AppError("install_failed", `cannot download \`${nameOf(url)}\`: ${problem}`);
}

/** RFC 9110 §14.4: a server may ignore Range, or answer with another range than was asked for. */
function continues(response: Response, offset: number): boolean {
  if (offset === 0) return true;
  const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  return response.status === 206 && Number(start) === offset;
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
  #timer: Timer;

  constructor(firstMs: number) {
    this.#timer = this.#arm(firstMs);
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
    return setTimeout(() => this.#controller.abort(new Error("stalled")), ms);
  }
}

/** Without query: signed URLs carry secrets there. */
function nameOf(url: string): string {
  return decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "");
}

function isDiskFull(error: unknown): boolean {
  return errnoOf(error) === "ENOSPC" || errnoOf(error) === "EDQUOT";
}

function suffix(code: string | undefined): string {
  return code === undefined ? "" : ` (${code})`;
}
