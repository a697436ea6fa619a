/**
 * What engines print, on disk, within a bound. Each line is `[RFC 3339] text`; before the first line of an engine, and
 * at the top of each file, stands a header line `# {JSON}`, which no line of an engine can look like.
 */
import { mkdir, open, rename, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

import { toAppError } from "../errors.ts";
import { log } from "../log.ts";

/** Whose lines follow. */
export interface EngineHeader {
  /** When its process started, RFC 3339. */
  readonly time: string;
  readonly model: string;
  readonly model_id: string;
  readonly backend: string;
  readonly pid: number;
  /** The file before this one was full: nothing has started here. */
  readonly continued?: true;
}

export interface LogFileOptions {
  readonly maxBytes?: number;
  readonly now?: () => Date;
}

/** A loud engine prints some kilobytes a request: days of a busy one. With the file before it, twice this a slot. */
const MAX_LOG_BYTES = 8 * 1024 * 1024;

const HEADER_MARK = "# ";
const NEWLINE = 0x0a;

/**
 * Appends to `path` and, when that has grown to the limit, goes on in a new one: the one before is kept as `<path>.1`.
 * A disk that refuses (full, read-only) costs the log only: it is reported once, and writing becomes a no-op.
 */
export class LogFile implements AsyncDisposable {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #now: () => Date;
  #file: FileHandle | undefined;
  #header: EngineHeader | undefined;
  #sizeBytes = 0;
  #isMidLine = false;
  #isBroken = false;
  /** One write at a time: two streams of one engine end up here. */
  #tail: Promise<void> = Promise.resolve();

  /** Touches nothing before the first write. */
  constructor(
    path: string,
    { maxBytes = MAX_LOG_BYTES, now = () => new Date() }: LogFileOptions = {},
  ) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#now = now;
  }

  /** Says whose output comes next. */
  begin(facts: Omit<EngineHeader, "time" | "continued">): Promise<void> {
    return this.#enqueue(async () => {
      this.#header = undefined;
      await this.#ensureRoom();
      const header = { time: this.#now().toISOString(), ...facts };
      await this.#append(Buffer.from(formatHeader(header)));
      this.#header = header;
    });
  }

  /** Resolves when the bytes are with the system. Never rejects. */
  write(chunk: Uint8Array): Promise<void> {
    return this.#enqueue(async () => {
      await this.#ensureRoom();
      await this.#append(this.#stamp(chunk));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tail;
    await this.#close();
  }

  // --- internal ---

  #enqueue(work: () => Promise<void>): Promise<void> {
    this.#tail = this.#tail
      .then(() => (this.#isBroken ? undefined : work()))
      .catch((thrown) => this.#giveUp(thrown));
    return this.#tail;
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await this.#file?.appendFile(bytes);
    this.#sizeBytes += bytes.length;
  }

  /** The time goes before each line that begins here; a line that goes on has its time already. */
  #stamp(chunk: Uint8Array): Uint8Array {
    const stamp = Buffer.from(`[${this.#now().toISOString()}] `);
    const parts: Uint8Array[] = [];
    for (let start = 0; start < chunk.length;) {
      const found = chunk.indexOf(NEWLINE, start);
      const end = found === -1 ? chunk.length : found + 1;
      if (!this.#isMidLine) parts.push(stamp);
      parts.push(chunk.subarray(start, end));
      this.#isMidLine = found === -1;
      start = end;
    }
    return Buffer.concat(parts);
  }

  async #ensureRoom(): Promise<void> {
    this.#file ??= await this.#open();
    if (this.#sizeBytes < this.#maxBytes) return;
    await this.#close();
    await rename(this.#path, `${this.#path}.1`);
    this.#file = await this.#open();
    if (this.#header === undefined) return;
    await this.#append(Buffer.from(formatHeader({ ...this.#header, continued: true })));
  }

  async #open(): Promise<FileHandle> {
    await mkdir(dirname(this.#path), { recursive: true });
    const file = await open(this.#path, "a+", 0o600);
    this.#sizeBytes = (await file.stat()).size;
    this.#isMidLine = false;
    if (await endsMidLine(file, this.#sizeBytes)) {
      await file.appendFile("\n");
      this.#sizeBytes += 1;
    }
    return file;
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => undefined);
  }

  async #giveUp(thrown: unknown): Promise<void> {
    this.#isBroken = true;
    await this.#close();
    log.warn(`runtime: engine log lost path=${this.#path} reason=${toAppError(thrown).message}`);
  }
}

/** @returns undefined for a line that is none */
export function parseHeader(line: string): EngineHeader | undefined {
  if (!line.startsWith(HEADER_MARK)) return undefined;
  try {
    const value = JSON.parse(line.slice(HEADER_MARK.length)) as Partial<EngineHeader>;
    const { time, model, model_id, backend, pid } = value;
    if (typeof time !== "string" || typeof model !== "string") return undefined;
    const facts = { time, model, model_id: String(model_id), backend: String(backend) };
    return { ...facts, pid: Number(pid), ...(value.continued === true ? { continued: true } : {}) };
  } catch {
    return undefined;
  }
}

// --- internal ---

function formatHeader(header: EngineHeader): string {
  return `${HEADER_MARK}${JSON.stringify(header)}\n`;
}

/** A runner that was killed leaves a line without its end. */
async function endsMidLine(file: FileHandle, sizeBytes: number): Promise<boolean> {
  if (sizeBytes === 0) return false;
  const { bytesRead, buffer } = await file.read(new Uint8Array(1), 0, 1, sizeBytes - 1);
  return bytesRead === 1 && buffer[0] !== NEWLINE;
}
