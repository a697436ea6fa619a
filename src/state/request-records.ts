/** Recorded requests in `tug.db`: a ring, bounded in rows and in bytes. Only the runner adds; anyone may look. */
import type { Database } from "bun:sqlite";
import type { RequestRecord } from "../api/requests.ts";
import type { StateDatabase } from "./database.ts";

/** A day's work of a person, and more than anybody reads. */
const MAX_ROWS = 1000;
/** With bodies at their bound that is some thirty requests, with those of a chat all thousand. */
const MAX_BYTES = 64 * 1024 * 1024;
/** When there is no room, some is made for more than one: neighbours share the pages that their removal writes. Of each limit. */
const SLACK = 1 / 128;
/**
 * Of the write-ahead log: beyond, moving it into the database holds up tokens after all, some 20 ms. SQLite's own limit of
 * 1000 would do so each 4 MiB. Pages of 4 KiB.
 */
const MAX_LOG_PAGES = 4096;
/** What is worth being moved while nobody waits: some 4 ms. Bytes of the write-ahead log. */
const SETTLE_BYTES = 4 * 1024 * 1024;
/** For another process that writes; a record is not worth more of everybody's time. Milliseconds. */
const BUSY_TIMEOUT_MS = 25;
/** Pages that a record takes of the log apart from itself: those of the table and of its indices. Bytes. */
const ROW_OVERHEAD = 32 * 1024;

export interface RecordLimits {
  readonly maxRows: number;
  /** Of the records' JSON. */
  readonly maxBytes: number;
}

interface Row {
  readonly record: string;
}

export class RequestRecords {
  readonly #state: StateDatabase;
  readonly #limits: RecordLimits;
  /** Not less than there is, so that the table is measured only when it may be too much. */
  #known: Extent | undefined;
  /** Added and still in the write-ahead log; an estimate. Bytes. */
  #unsettledBytes = 0;

  /** @param limits 1000 rows and 64 MiB unless given */
  constructor(
    state: StateDatabase,
    limits: RecordLimits = { maxRows: MAX_ROWS, maxBytes: MAX_BYTES },
  ) {
    this.#state = state;
    this.#limits = limits;
  }

  /**
   * The oldest make room. It is not flushed to the disk: it outlives the process, not a power cut.
   *
   * @throws as `StateDatabase.write`; conflict comes at once
   */
  add(record: RequestRecord): void {
    const text = JSON.stringify(record);
    const bytes = Buffer.byteLength(text);
    const values = [record.id, Date.parse(record.started_at), record.model_id, text, bytes];
    // Nothing here may wait for a disk or for somebody else: tokens of other answers would wait as well.
    const undo = this.#hurry(this.#state.open());
    try {
      this.#known = this.#state.write("record a request", (tables) => {
        tables.run("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?)", values);
        return this.#makeRoom(tables, bytes);
      });
      this.#unsettledBytes += bytes + ROW_OVERHEAD;
    } finally {
      undo();
    }
  }

  /** Moves what was added from the write-ahead log to its place, if it is much: for a moment when nobody waits. */
  settle(): void {
    if (this.#unsettledBytes < SETTLE_BYTES) return;
    this.#unsettledBytes = 0;
    this.#state.read("settle what was recorded", (database) =>
      database.run("PRAGMA wal_checkpoint(PASSIVE)"),
    );
  }

  find(id: string): RequestRecord | undefined {
    return this.#state.read("find a request", (database) => {
      const sql = "SELECT record FROM requests WHERE id = ?";
      const row = database.query<Row, [string]>(sql).get(id);
      return row === null ? undefined : toRecord(row);
    });
  }

  /** The newest, oldest of them first. @param options.keep which of them count; all unless given */
  list(options: {
    readonly limit: number;
    readonly keep?: (record: RequestRecord) => boolean;
  }): RequestRecord[] {
    const { limit, keep = () => true } = options;
    return this.#state.read("list requests", (database) => {
      const sql = "SELECT record FROM requests ORDER BY started_at DESC, rowid DESC";
      const found: RequestRecord[] = [];
      for (const row of database.query<Row, []>(sql).iterate()) {
        if (found.length >= limit) break;
        const record = toRecord(row);
        if (keep(record)) found.push(record);
      }
      return found.toReversed();
    });
  }

  /** Leaves no trace of them in the file. @returns how many there were */
  clear(): number {
    this.#state.open().run("PRAGMA secure_delete = ON");
    try {
      const removed = this.#state.write(
        "forget requests",
        (tables) => tables.run("DELETE FROM requests").changes,
      );
      this.#state.open().run("PRAGMA wal_checkpoint(TRUNCATE)");
      return removed;
    } finally {
      this.#state.open().run("PRAGMA secure_delete = OFF");
    }
  }

  // --- internal ---

  #hurry(database: Database): () => void {
    const { timeout } = database.query("PRAGMA busy_timeout").get() as { timeout: number };
    database.run("PRAGMA synchronous = NORMAL");
    database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    // For good: what others of this connection write must not move it either.
    database.run(`PRAGMA wal_autocheckpoint = ${MAX_LOG_PAGES}`);
    return () => {
      // Another one, if it turned out to be damaged.
      const current = this.#state.open();
      current.run("PRAGMA synchronous = FULL");
      current.run(`PRAGMA busy_timeout = ${timeout}`);
    };
  }

  /** @param bytes that were added @returns what there is then */
  #makeRoom(database: Database, bytes: number): Extent {
    const { maxRows, maxBytes } = this.#limits;
    const guess = this.#known && { rows: this.#known.rows + 1, bytes: this.#known.bytes + bytes };
    if (guess !== undefined && guess.rows <= maxRows && guess.bytes <= maxBytes) return guess;
    const extent = measure(database);
    if (extent.rows <= maxRows && extent.bytes <= maxBytes) return extent;
    return removeOldest(database, extent, {
      maxRows: maxRows - Math.floor(maxRows * SLACK),
      maxBytes: maxBytes - Math.floor(maxBytes * SLACK),
    });
  }
}

// --- internal ---

/** How much is kept. */
interface Extent {
  readonly rows: number;
  readonly bytes: number;
}

/** From the index alone: the records themselves are long. */
function measure(database: Database): Extent {
  const sql = "SELECT count(*) AS rows, coalesce(sum(bytes), 0) AS bytes FROM requests";
  return database.query(sql).get() as Extent;
}

function removeOldest(database: Database, extent: Extent, limits: RecordLimits): Extent {
  const sql = "SELECT bytes FROM requests ORDER BY started_at, rowid";
  let { rows, bytes } = extent;
  let removed = 0;
  for (const row of database.query<{ bytes: number }, []>(sql).iterate()) {
    if (rows <= limits.maxRows && bytes <= limits.maxBytes) break;
    rows -= 1;
    bytes -= row.bytes;
    removed += 1;
  }
  const oldest = "SELECT rowid FROM requests ORDER BY started_at, rowid LIMIT ?";
  database.query(`DELETE FROM requests WHERE rowid IN (${oldest})`).run(removed);
  return { rows, bytes };
}

function toRecord({ record }: Row): RequestRecord {
  return JSON.parse(record) as RequestRecord;
}
