/**
 * Pictures that were answered as URLs: kept on disk for an hour, within a bound, until the runner leaves. Whoever has the
 * name of one may have it: names cannot be guessed.
 */
import { randomBytes } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { log } from "../log.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";

/** As long as OpenAI's URLs are good for. */
const KEPT_MS = 60 * 60_000;
/** Some hundred large pictures; the oldest go first. Bytes. */
const MAX_TOTAL_BYTES = 512 * 1024 * 1024;
/** Small ones take room in a directory, too. */
const MAX_FILES = 1000;
const NAME_BYTES = 24;

export interface KeptImage {
  readonly path: string;
  /** Its media type. */
  readonly type: string;
}

export interface ImageFilesOptions {
  /** Nobody else's: it is emptied. */
  readonly directory: string;
  readonly clock?: Clock;
  readonly maxTotalBytes?: number;
}

interface Entry extends KeptImage {
  readonly bytes: number;
  readonly endsMs: number;
}

export class ImageFiles {
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #maxTotalBytes: number;
  /** The oldest first. */
  readonly #entries = new Map<string, Entry>();
  #totalBytes = 0;
  #timer: Disposable | undefined;
  #ready: Promise<unknown> | undefined;
  #isClosed = false;

  constructor({
    directory,
    clock = systemClock,
    maxTotalBytes = MAX_TOTAL_BYTES,
  }: ImageFilesOptions) {
    this.#directory = directory;
    this.#clock = clock;
    this.#maxTotalBytes = maxTotalBytes;
  }

  /** @returns its name, with an extension @throws what writing throws */
  async keep(data: Uint8Array): Promise<string> {
    await (this.#ready ??= this.#prepare());
    const { extension, type } = kindOf(data);
    const name = `${randomBytes(NAME_BYTES).toString("base64url")}.${extension}`;
    const path = join(this.#directory, name);
    await writeFile(path, data, { mode: 0o600 });
    const endsMs = this.#clock.now() + KEPT_MS;
    this.#entries.set(name, { path, type, bytes: data.byteLength, endsMs });
    this.#totalBytes += data.byteLength;
    this.#makeRoom(name);
    if (this.#isClosed) await this.close();
    else this.#watch();
    return name;
  }

  find(name: string): KeptImage | undefined {
    const entry = this.#entries.get(name);
    return entry !== undefined && entry.endsMs > this.#clock.now() ? entry : undefined;
  }

  /** Removes all, also what a runner that was killed has left. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.[Symbol.dispose]();
    this.#entries.clear();
    await rm(this.#directory, { recursive: true, force: true });
  }

  // --- internal ---

  async #prepare(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
  }

  /** @param latest stays, however large it is: somebody is about to be told of it */
  #makeRoom(latest: string): void {
    for (const [name, entry] of this.#entries) {
      const isFull = this.#totalBytes > this.#maxTotalBytes || this.#entries.size > MAX_FILES;
      if (!isFull || name === latest) return;
      this.#drop(name, entry);
    }
  }

  #drop(name: string, { path, bytes }: Entry): void {
    this.#entries.delete(name);
    this.#totalBytes -= bytes;
    rm(path, { force: true }).catch((error: unknown) =>
      log.warn(`server: picture not removed reason=${String(error).slice(0, 200)}`),
    );
  }

  /** One timer, at the end of the oldest. */
  #watch(): void {
    this.#timer?.[Symbol.dispose]();
    const [oldest] = this.#entries.values();
    if (oldest === undefined) return;
    const leftMs = Math.max(0, oldest.endsMs - this.#clock.now());
    this.#timer = this.#clock.setTimer(leftMs, () => {
      const now = this.#clock.now();
      for (const [name, entry] of this.#entries) if (entry.endsMs <= now) this.#drop(name, entry);
      this.#watch();
    });
  }
}

// --- internal ---

/** @see https://www.w3.org/TR/png-3/#5PNG-file-signature, RFC 9649 §2.4 (WebP) */
function kindOf(data: Uint8Array): { readonly extension: string; readonly type: string } {
  const head = Buffer.from(data.subarray(0, 12)).toString("latin1");
  if (head.startsWith("\x89PNG")) return { extension: "png", type: "image/png" };
  if (head.startsWith("\xff\xd8\xff")) return { extension: "jpg", type: "image/jpeg" };
  if (/^RIFF.{4}WEBP/s.test(head)) return { extension: "webp", type: "image/webp" };
  return { extension: "bin", type: "application/octet-stream" };
}
