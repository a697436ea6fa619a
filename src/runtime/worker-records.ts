/** Engine processes of this runner, on disk, so that the next one can end what a killed one left behind. */
import { Database } from "bun:sqlite";
import { existsSync, renameSync } from "node:fs";
import { errnoOf } from "../errors.ts";
import { log } from "../log.ts";

export interface WorkerRecord {
  readonly pid: number;
  /** What tells this process from a later one with the same pid: its start time as the platform gives it. */
  readonly startTime: string;
}

/** Rows of the table `workers` in tug.db. Synchronous: a record must be on disk before the process can be orphaned. */
export class WorkerRecords {
  readonly #path: string;
  readonly #busyTimeoutMs: number;
  #database: Database | undefined;

  /** @param options.busyTimeoutMs how long to wait for another process; 5 s unless given */
  constructor(path: string, options: { busyTimeoutMs?: number } = {}) {
    this.#path = path;
    this.#busyTimeoutMs = options.busyTimeoutMs ?? 5000;
  }

  add(record: WorkerRecord): void {
    this.#open().run("INSERT OR REPLACE INTO workers (pid, start_time) VALUES (?, ?)", [
      record.pid,
      record.startTime,
    ]);
  }

  remove(pid: number): void {
    this.#open().run("DELETE FROM workers WHERE pid = ?", [pid]);
  }

  list(): readonly WorkerRecord[] {
    const rows = this.#open().query("SELECT pid, start_time FROM workers").all() as {
      pid: number;
      start_time: string;
    }[];
    return rows.map(({ pid, start_time }) => ({ pid, startTime: start_time }));
  }

  close(): void {
    this.#database?.close();
    this.#database = undefined;
  }

  // --- internal ---

  #open(): Database {
    if (this.#database !== undefined) return this.#database;
    try {
      this.#database = openDatabase(this.#path, this.#busyTimeoutMs);
    } catch (error) {
      if (!/^SQLITE_(?:CORRUPT|NOTADB)/.test(errnoOf(error) ?? "")) throw error;
      // It holds nothing that cannot be made again; whoever wants to look at it finds it beside the new one.
      log.warn(`runtime: damaged database moved aside path=${this.#path}`);
      for (const suffix of ["", "-wal", "-shm"]) moveAside(`${this.#path}${suffix}`);
      this.#database = openDatabase(this.#path, this.#busyTimeoutMs);
    }
    return this.#database;
  }
}

// --- internal ---

function moveAside(path: string): void {
  if (existsSync(path)) renameSync(path, `${path}.damaged`);
}

function openDatabase(path: string, busyTimeoutMs: number): Database {
  const database = new Database(path, { create: true });
  try {
    database.run(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
    database.run("PRAGMA journal_mode = WAL");
    database.run(
      "CREATE TABLE IF NOT EXISTS workers (pid INTEGER PRIMARY KEY, start_time TEXT NOT NULL) STRICT",
    );
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}
