/** Recorded requests in `tug.db`: a ring, bounded in rows and in bytes. Only the runner adds; anyone may look. */
import type { Database } from "bun:sqlite";
import type { RequestRecord } from "../api/requests.ts";
import type { StateDatabase } from "./database.ts";

/** A day's work of a person, and more than anybody reads. */
const MAX_ROWS = 1000;
/** With bodies at their bound that is some thirty requests, with those of a chat all thousand. */
const MAX_BYTES = 64 * 1024 * 1024;

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

  /** @param limits 1000 rows and 64 MiB unless given */
  constructor(
    state: StateDatabase,
    limits: RecordLimits = { maxRows: MAX_ROWS, maxBytes: MAX_BYTES },
  ) {
    this.#state = state;
    this.#limits = limits;
  }

  /** The oldest make room. It is not flushed to the disk: it outlives the process, not a power cut. */
  add(record: RequestRecord): void {
    const text = JSON.stringify(record);
    const values = [
      record.id,
      Date.parse(record.started_at),
      record.model_id,
      text,
      Buffer.byteLength(text),
    ];
    // An fsync after each answer would hold up the tokens of others.
    this.#state.open().run("PRAGMA synchronous = NORMAL");
    try {
      this.#state.write("record a request", (tables) => {
        tables.run("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?)", values);
        this.#makeRoom(tables);
      });
    } finally {
      this.#state.open().run("PRAGMA synchronous = FULL");
    }
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

  #makeRoom(database: Database): void {
    const { maxRows, maxBytes } = this.#limits;
    // From the index alone: the records themselves are long.
    const rows = database
      .query<{ rowid: number; bytes: number }, []>(
        "SELECT rowid, bytes FROM requests ORDER BY started_at DESC",
      )
      .all();
    let sum = 0;
    rows.forEach(({ rowid, bytes }, index) => {
      sum += bytes;
      if (index < maxRows && sum <= maxBytes) return;
      database.run("DELETE FROM requests WHERE rowid = ?", [rowid]);
    });
  }
}

// --- internal ---

function toRecord({ record }: Row): RequestRecord {
  return JSON.parse(record) as RequestRecord;
}
