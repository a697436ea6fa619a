/**
 * `tug.db`: what the runner and commands remember. Opened when first used, by several processes at once (WAL), synchronous:
 * what was recorded is on disk when the call returns.
 */
import { Database } from "bun:sqlite";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { AppError, errnoOf } from "../errors.ts";
import { tryLock } from "../lock.ts";
import { log } from "../log.ts";

/** For another process to finish what it writes. Milliseconds. */
const BUSY_TIMEOUT_MS = 5000;
/** Of the write-ahead log, what stays on the disk when all of it is in the database; more is there after a long reader. Bytes. */
const MAX_LEFT_LOG = 32 * 1024 * 1024;
/** For another process to replace a damaged database: a few renames. */
const REPAIR_TRIES = 200;
const REPAIR_PAUSE_MS = 10;

/** Each table belongs to one file of this folder. They only ever grow: an older Tug must find what it knows. */
const TABLES = [
  "CREATE TABLE IF NOT EXISTS workers (pid INTEGER PRIMARY KEY, start_time TEXT NOT NULL) STRICT",
  // Measured peaks: `key` names model, engine build, context, slots, cache types and device; `demand` is JSON.
  "CREATE TABLE IF NOT EXISTS ledger (key TEXT PRIMARY KEY, demand TEXT NOT NULL, measured_at INTEGER NOT NULL) STRICT",
  // `mode` is empty for settings of all modes; `settings` is JSON.
  `CREATE TABLE IF NOT EXISTS model_settings (model_id TEXT NOT NULL, mode TEXT NOT NULL, settings TEXT NOT NULL,
     updated_at INTEGER NOT NULL, PRIMARY KEY (model_id, mode)) STRICT`,
  `CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, started_at INTEGER NOT NULL, model_id TEXT NOT NULL,
     record TEXT NOT NULL, bytes INTEGER NOT NULL) STRICT`,
  // With the sizes, so that the ring is measured without reading records.
  "CREATE INDEX IF NOT EXISTS requests_by_time ON requests (started_at, bytes)",
  // What the Responses API keeps. Its JSON is apart, so that marking a conversation as used rewrites none of it.
  `CREATE TABLE IF NOT EXISTS responses (id TEXT PRIMARY KEY, previous_id TEXT, used_at INTEGER NOT NULL,
     bytes INTEGER NOT NULL, owner TEXT) STRICT`,
  "CREATE INDEX IF NOT EXISTS responses_by_use ON responses (used_at, bytes)",
  `CREATE TABLE IF NOT EXISTS response_bodies (id TEXT PRIMARY KEY, response TEXT NOT NULL, input TEXT NOT NULL,
     events TEXT) STRICT`,
  "CREATE TABLE IF NOT EXISTS response_items (item_id TEXT PRIMARY KEY, response_id TEXT NOT NULL) STRICT",
  "CREATE INDEX IF NOT EXISTS response_items_by_response ON response_items (response_id)",
  // `hash` is the SHA-256 of the key, which is kept nowhere; times in milliseconds since 1970; null is no limit.
  `CREATE TABLE IF NOT EXISTS api_keys (hash TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL,
     scopes TEXT NOT NULL, expires_at INTEGER, max_concurrent INTEGER, rate_per_minute INTEGER,
     created_at INTEGER NOT NULL, last_used_at INTEGER) STRICT`,
];

export class StateDatabase implements Disposable {
  readonly #path: string;
  readonly #busyTimeoutMs: number;
  #database: Database | undefined;
  /** Of the file that is open: another process may put a new one in its place. */
  #identity: string | undefined;

  /** @param options.busyTimeoutMs how long to wait for another process; 5 s unless given */
  constructor(path: string, options: { busyTimeoutMs?: number } = {}) {
    this.#path = path;
    this.#busyTimeoutMs = options.busyTimeoutMs ?? BUSY_TIMEOUT_MS;
  }

  /**
   * The same connection each time; prefer `read` and `write`, which survive damage.
   *
   * @throws conflict (another process holds it for too long), forbidden, insufficient_storage, internal
   */
  open(): Database {
    return this.#database ?? this.#mending("open what Tug remembers", (database) => database);
  }

  /**
   * @param goal for the message of a failure, such as `read the settings of models`
   * @throws as `open`, and what `work` throws
   */
  read<T>(goal: string, work: (database: Database) => T): T {
    return this.#mending(goal, work);
  }

  /**
   * Writes that belong together: all of them or none, and no other process in between.
   *
   * @throws as `read`
   */
  write<T>(goal: string, work: (database: Database) => T): T {
    return this.#mending(goal, (database) =>
      database.transaction(() => work(database)).immediate(),
    );
  }

  /** Changes whenever another process, or another connection, has written anything. Some microseconds. */
  foreignVersion(): number {
    const row = this.open().query("PRAGMA data_version").get() as { data_version: number };
    return row.data_version;
  }

  [Symbol.dispose](): void {
    this.#database?.close();
    this.#database = undefined;
  }

  /** Does the work; if the database turns out to be damaged, once more on a new one. */
  #mending<T>(goal: string, work: (database: Database) => T): T {
    try {
      try {
        return work(this.#connect());
      } catch (error) {
        if (!isDamage(error)) throw error;
        this[Symbol.dispose]();
        replaceDamaged(this.#path, this.#identity);
        return work(this.#connect());
      }
    } catch (error) {
      throw toStateError(error, goal, this.#path);
    }
  }

  #connect(): Database {
    if (this.#database !== undefined) return this.#database;
    this.#identity = identify(this.#path);
    this.#database = openDatabase(this.#path, this.#busyTimeoutMs);
    this.#identity = identify(this.#path);
    return this.#database;
  }
}

// --- internal ---

function isDamage(error: unknown): boolean {
  return /^SQLITE_(?:CORRUPT|NOTADB)/.test(errnoOf(error) ?? "");
}

function identify(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? undefined : `${found.dev}/${found.ino}`;
}

/** Nobody can read it any more; whoever wants to look at it finds it beside the new one. */
function replaceDamaged(path: string, identity: string | undefined): void {
  using _lock = lockForRepair(`${path}.repair`);
  // Another process may have found the damage first: its new database is none of it.
  if (identify(path) !== identity) return;
  log.warn(`state: damaged database moved aside path=${path}`);
  for (const suffix of ["", "-wal", "-shm"]) moveAside(path, suffix);
}

function lockForRepair(path: string): Disposable {
  for (let tries = 0; tries < REPAIR_TRIES; tries += 1) {
    const lock = tryLock(path);
    if (lock !== undefined) return lock;
    Bun.sleepSync(REPAIR_PAUSE_MS);
  }
  throw new AppError("conflict", "cannot replace a damaged database: another process is at it");
}

function moveAside(path: string, suffix: string): void {
  // `tug.db.damaged-wal`, where SQLite's own tools look for it.
  if (existsSync(`${path}${suffix}`)) renameSync(`${path}${suffix}`, `${path}.damaged${suffix}`);
}

function openDatabase(path: string, busyTimeoutMs: number): Database {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  makePrivate(path);
  const database = new Database(path, { create: true });
  try {
    // An older Tug left it to the umask.
    chmodSync(path, 0o600);
    database.run(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
    database.run("PRAGMA journal_mode = WAL");
    database.run(`PRAGMA journal_size_limit = ${MAX_LEFT_LOG}`);
    for (const table of TABLES) database.run(table);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/**
 * Prompts are in it: nobody else may open it, not even in the moment in which it is made. SQLite gives the files beside
 * it the same mode, but leaves the mode of those that are there.
 */
function makePrivate(path: string): void {
  try {
    // A file that is there must not be opened: closing it would let go of the locks that this process has on it.
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
  }
  for (const suffix of ["-wal", "-shm"]) {
    if (existsSync(`${path}${suffix}`)) chmodSync(`${path}${suffix}`, 0o600);
  }
}

/** What SQLite and the file system say, in Tug's words; other errors are not ours. */
function toStateError(error: unknown, goal: string, path: string): unknown {
  const code = errnoOf(error) ?? "";
  if (error instanceof AppError || !/^(?:SQLITE_|E[A-Z]+$)/.test(code)) return error;
  const detail = error instanceof Error ? error.message : code;
  const make = (kind: AppError["code"], reason: string, hint: string): AppError =>
    new AppError(kind, `cannot ${goal}: ${reason}`, { hint, cause: error });
  if (/^SQLITE_(?:BUSY|LOCKED)/.test(code)) {
    const reason = `another process keeps \`${path}\` locked`;
    return make("conflict", reason, "See whether another `tug` command hangs, and try again.");
  }
  if (/^(?:SQLITE_FULL|ENOSPC|EDQUOT)$/.test(code)) {
    const hint = "Free some space (`tug df` and `tug prune` help) and try again.";
    return make("insufficient_storage", `the disk of \`${path}\` is full`, hint);
  }
  if (/^(?:SQLITE_(?:READONLY|CANTOPEN|PERM|AUTH)|EACCES|EPERM|EROFS|ENOTDIR)/.test(code)) {
    const hint = "Make sure that you may write to the file and its directory.";
    return make("forbidden", `\`${path}\` cannot be used: ${detail}`, hint);
  }
  return make("internal", `\`${path}\`: ${detail}`, "Move the file away; a new one is begun.");
}
