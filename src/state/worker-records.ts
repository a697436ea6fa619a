/** Engine processes of this runner, on disk, so that the next one can end what a killed one left behind. */
import type { StateDatabase } from "./database.ts";

export interface WorkerRecord {
  readonly pid: number;
  /** What tells this process from a later one with the same pid: its start time as the platform gives it. */
  readonly startTime: string;
}

export class WorkerRecords {
  readonly #state: StateDatabase;

  constructor(state: StateDatabase) {
    this.#state = state;
  }

  add({ pid, startTime }: WorkerRecord): void {
    const sql = "INSERT OR REPLACE INTO workers (pid, start_time) VALUES (?, ?)";
    this.#state.write("record an engine", (database) => database.run(sql, [pid, startTime]));
  }

  remove(pid: number): void {
    const sql = "DELETE FROM workers WHERE pid = ?";
    this.#state.write("forget an engine", (database) => database.run(sql, [pid]));
  }

  list(): readonly WorkerRecord[] {
    const rows = this.#state.read("read the records of engines", (database) =>
      database.query("SELECT pid, start_time FROM workers").all(),
    ) as { pid: number; start_time: string }[];
    return rows.map(({ pid, start_time }) => ({ pid, startTime: start_time }));
  }
}
