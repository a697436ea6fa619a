/**
 * API keys that `tug key` made. Of a key only its SHA-256 is kept: it has 256 random bits, which nobody can try out, so
 * a hash that is slow on purpose would only slow down every request. A key is found by its hash: how long that takes
 * tells of the hash of what was sent, and not of any key.
 */
import { createHash, randomBytes } from "node:crypto";
import type { Database } from "bun:sqlite";
import { type ApiKeyInfo, type CreatedKey, KEY_SCOPES, type KeyScope } from "../api/keys.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { StateDatabase } from "./database.ts";

/** More than any machine has users and programs; a list stays a page. */
const MAX_KEYS = 1000;
const SECRET_BYTES = 32;
const KEY_PREFIX = "tug_";
/** Of a key, shown in lists: 36 of its 256 bits. Characters. */
const SHOWN_CHARS = KEY_PREFIX.length + 6;
/** The use of a key is written down at most this often. Milliseconds. */
const TOUCH_INTERVAL_MS = 60_000;
/** For another process that writes; tokens of other answers wait meanwhile. Milliseconds. */
const TOUCH_BUSY_MS = 20;

export interface NewKey {
  readonly name: string;
  readonly scopes: readonly KeyScope[];
  /** Milliseconds since 1970; null: never. */
  readonly expiresAtMs: number | null;
  readonly maxConcurrent: number | null;
  readonly ratePerMinute: number | null;
}

/** What a request needs to know of the key it came with. */
export interface KnownKey extends NewKey {
  /** Tells keys apart, also one from a later one of the same name. Not secret, but nobody's business. */
  readonly hash: string;
  readonly isExpired: boolean;
}

/** All methods throw what `StateDatabase.read` does: without the database nobody is let in. */
export class ApiKeys {
  readonly #state: StateDatabase;
  readonly #now: () => number;
  readonly #maxKeys: number;
  #hasWarned = false;
  /** By hash, for keys that were used here: when that was last written down, or tried. */
  readonly #touched = new Map<string, number>();

  constructor(state: StateDatabase, options: { now?: () => number; maxKeys?: number } = {}) {
    this.#state = state;
    this.#now = options.now ?? Date.now;
    this.#maxKeys = options.maxKeys ?? MAX_KEYS;
  }

  /** @throws conflict (the name is taken), invalid_request (there are 1000 already) */
  create(wanted: NewKey): CreatedKey {
    const key = `${KEY_PREFIX}${randomBytes(SECRET_BYTES).toString("base64url")}`;
    const row: Row = {
      hash: hashOf(key),
      name: wanted.name,
      prefix: key.slice(0, SHOWN_CHARS),
      scopes: wanted.scopes.join(" "),
      expires_at: wanted.expiresAtMs,
      max_concurrent: wanted.maxConcurrent,
      rate_per_minute: wanted.ratePerMinute,
      created_at: Math.floor(this.#now()),
      last_used_at: null,
    };
    this.#state.write("create an API key", (database) => this.#insert(database, row));
    return { ...toInfo(row, this.#now()), key };
  }

  /** By name. */
  list(): ApiKeyInfo[] {
    const now = this.#now();
    const sql = `SELECT ${COLUMNS} FROM api_keys ORDER BY name`;
    const rows = this.#state.read(READ, (database) => database.query(sql).all() as Row[]);
    return rows.map((row) => toInfo(row, now));
  }

  /** @returns the names that there were */
  revoke(names: readonly string[]): string[] {
    const sql = "DELETE FROM api_keys WHERE name = ?";
    return this.#state.write("revoke API keys", (database) =>
      names.filter((name) => database.query(sql).run(name).changes > 0),
    );
  }

  /** Whether any key lets in now. */
  hasLive(): boolean {
    const sql = "SELECT 1 FROM api_keys WHERE expires_at IS NULL OR expires_at > ? LIMIT 1";
    return this.#state.read(READ, (database) => database.query(sql).get(this.#now()) !== null);
  }

  /**
   * The key that was made with this text; undefined if there is none (any more). Asks the database each time, some
   * microseconds: what another process revokes is over at once.
   */
  find(key: string): KnownKey | undefined {
    if (!key.startsWith(KEY_PREFIX)) return undefined;
    const sql = `SELECT ${COLUMNS} FROM api_keys WHERE hash = ?`;
    const row = this.#state.read(
      READ,
      (database) => database.query(sql).get(hashOf(key)) as Row | null,
    );
    return row === null ? undefined : toKnown(row, this.#now());
  }

  /** Writes down that a key was used, at most once a minute. Never fails a request. */
  touch({ hash }: Pick<KnownKey, "hash">): void {
    const now = this.#now();
    if (Math.abs(now - (this.#touched.get(hash) ?? -Infinity)) < TOUCH_INTERVAL_MS) return;
    if (this.#touched.size >= this.#maxKeys) this.#touched.clear();
    this.#touched.set(hash, now);
    try {
      this.#writeUse(hash, Math.floor(now));
    } catch (thrown) {
      if (!this.#hasWarned) {
        log.warn(
          `state: use of keys not recorded reason=${thrown instanceof Error ? thrown.message : ""}`,
        );
      }
      this.#hasWarned = true;
    }
  }

  // --- internal ---

  #insert(database: Database, row: Row): void {
    const { total } = database.query("SELECT count(*) AS total FROM api_keys").get() as {
      total: number;
    };
    if (total >= this.#maxKeys) {
      throw new AppError(
        "invalid_request",
        `cannot create an API key: there are ${total} already`,
        {
          hint: "Revoke those that nobody uses: `tug key list` shows when that was.",
        },
      );
    }
    if (database.query("SELECT 1 FROM api_keys WHERE name = ?").get(row.name) !== null) {
      throw new AppError("conflict", `cannot create the API key \`${row.name}\`: there is one`, {
        hint: `Give another name, or revoke that one: \`tug key revoke ${row.name}\`.`,
      });
    }
    const sql = `INSERT INTO api_keys (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`;
    database
      .query(sql)
      .run(
        row.hash,
        row.name,
        row.prefix,
        row.scopes,
        row.expires_at,
        row.max_concurrent,
        row.rate_per_minute,
        row.created_at,
        row.last_used_at,
      );
  }

  /** In a hurry: this is on the way of a request, and no loss if the power fails. */
  #writeUse(hash: string, atMs: number): void {
    const database = this.#state.open();
    const { timeout } = database.query("PRAGMA busy_timeout").get() as { timeout: number };
    database.run("PRAGMA synchronous = NORMAL");
    database.run(`PRAGMA busy_timeout = ${TOUCH_BUSY_MS}`);
    try {
      const sql = "UPDATE api_keys SET last_used_at = ? WHERE hash = ?";
      this.#state.write("record the use of an API key", (tables) =>
        tables.query(sql).run(atMs, hash),
      );
    } finally {
      // Another one, if it turned out to be damaged.
      const current = this.#state.open();
      current.run("PRAGMA synchronous = FULL");
      current.run(`PRAGMA busy_timeout = ${timeout}`);
    }
  }
}

// --- internal ---

const READ = "read the API keys";
const COLUMNS =
  "hash, name, prefix, scopes, expires_at, max_concurrent, rate_per_minute, created_at, last_used_at";

interface Row {
  readonly hash: string;
  readonly name: string;
  readonly prefix: string;
  /** Separated by spaces. */
  readonly scopes: string;
  readonly expires_at: number | null;
  readonly max_concurrent: number | null;
  readonly rate_per_minute: number | null;
  readonly created_at: number;
  readonly last_used_at: number | null;
}

function hashOf(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}

/** Scopes of a newer Tug mean nothing here. */
function toScopes(text: string): KeyScope[] {
  const words = text.split(" ");
  return KEY_SCOPES.filter((scope) => words.includes(scope));
}

function isExpired({ expires_at: at }: Row, nowMs: number): boolean {
  return at !== null && at <= nowMs;
}

function toKnown(row: Row, nowMs: number): KnownKey {
  return {
    hash: row.hash,
    name: row.name,
    scopes: toScopes(row.scopes),
    expiresAtMs: row.expires_at,
    maxConcurrent: row.max_concurrent,
    ratePerMinute: row.rate_per_minute,
    isExpired: isExpired(row, nowMs),
  };
}

function toInfo(row: Row, nowMs: number): ApiKeyInfo {
  return {
    name: row.name,
    prefix: row.prefix,
    scopes: toScopes(row.scopes),
    created: toTime(row.created_at) ?? "",
    expires: toTime(row.expires_at),
    expired: isExpired(row, nowMs),
    last_used: toTime(row.last_used_at),
    max_concurrent: row.max_concurrent,
    rate_per_minute: row.rate_per_minute,
  };
}

function toTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
