/** The lines typed in the chat, over all sessions: one JSON string a line, oldest first, readable by the owner only. */
import { appendFile, chmod, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../errors.ts";
import { log } from "../log.ts";

/** Entries kept; more than anybody looks back for. */
export const HISTORY_ENTRIES = 1000;
/** A longer entry is remembered for this session only: the file is read whole at every start. */
const ENTRY_LIMIT = 16 * 1024;
/** A file that grew past this is cut at the next start. */
const FILE_LIMIT = 4 * 1024 * 1024;

export interface HistoryOptions {
  readonly file: string;
  /** False: read, but write nothing (`TUG_NOHISTORY`). */
  readonly isWritable: boolean;
}

export class History {
  readonly #file: string;
  readonly #isWritable: boolean;
  readonly #entries: string[];

  private constructor(options: HistoryOptions, entries: string[]) {
    this.#file = options.file;
    this.#isWritable = options.isWritable;
    this.#entries = entries;
  }

  /** A history that cannot be read is an empty one. Creates nothing. */
  static async open(options: HistoryOptions): Promise<History> {
    const lines = await readLines(options.file);
    const entries = lines.map(decodeEntry).filter((entry) => entry !== "");
    const history = new History(options, entries.slice(-HISTORY_ENTRIES));
    if (lines.length > 2 * HISTORY_ENTRIES) await history.#attempt(() => history.#rewrite());
    return history;
  }

  /** Oldest first; the same array at every call, and it grows. */
  get entries(): readonly string[] {
    return this.#entries;
  }

  /** An entry equal to the one before it is not added. Failing to write is not worth more than a debug line. */
  async add(entry: string): Promise<void> {
    if (entry.trim() === "" || entry === this.#entries.at(-1)) return;
    this.#entries.push(entry);
    if (this.#entries.length > HISTORY_ENTRIES) this.#entries.shift();
    if (!this.#isWritable || entry.length > ENTRY_LIMIT) return;
    await this.#attempt(() => this.#append(entry));
  }

  async #append(entry: string): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
    // Appending lets two sessions write at once; chmod mends a file that an older umask made.
    await appendFile(this.#file, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
    await chmod(this.#file, 0o600);
  }

  async #rewrite(): Promise<void> {
    if (!this.#isWritable) return;
    const temporary = `${this.#file}.${process.pid}.tmp`;
    const lines = this.#entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
    await writeFile(temporary, lines, { mode: 0o600 });
    await rename(temporary, this.#file);
  }

  async #attempt(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      log.debug(`chat: history not written reason=${(error as Error).message}`);
    }
  }
}

/** History is written unless one of these is set to something. */
export function isHistoryWanted(env: Readonly<Record<string, string | undefined>>): boolean {
  return !env["TUG_NOHISTORY"] && !env["DOCKER_MODEL_NOHISTORY"];
}

// --- internal ---

async function readLines(file: string): Promise<string[]> {
  try {
    const { size } = await stat(file);
    const text =
      size > FILE_LIMIT
        ? await Bun.file(file)
            .slice(size - FILE_LIMIT)
            .text()
        : await readFile(file, "utf8");
    return text.split("\n").filter((line) => line !== "");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT")
      log.debug(`chat: history not read reason=${(error as Error).message}`);
    return [];
  }
}

function decodeEntry(line: string): string {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "string" ? value : line;
  } catch {
    return line;
  }
}
