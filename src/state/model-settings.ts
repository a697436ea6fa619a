/** Settings of models that `tug configure` stored, for all modes or for one. Several processes may store at once. */
import type { Database } from "bun:sqlite";
import type { ConfigureRequest, ModeName, ModelSettings } from "../api/settings.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { StateDatabase } from "./database.ts";

/** A system message may be long; what is longer than a book is a mistake. */
const MAX_SETTINGS_CHARS = 1_000_000;

export interface StoredSettingsEntry {
  readonly modelId: string;
  /** Null: for all modes. */
  readonly mode: ModeName | null;
  readonly settings: ModelSettings;
  /** Milliseconds since 1970. */
  readonly updatedAtMs: number;
}

interface Row {
  readonly model_id: string;
  readonly mode: string;
  readonly settings: string;
  readonly updated_at: number;
}

/** All methods throw what `StateDatabase.read` does: settings that cannot be had are an error, not a default. */
export class StoredSettings {
  readonly #state: StateDatabase;
  readonly #now: () => number;
  #ownWrites = 0;

  /** One instance a connection: `version` counts what this one wrote. */
  constructor(state: StateDatabase, options: { now?: () => number } = {}) {
    this.#state = state;
    this.#now = options.now ?? Date.now;
  }

  /** What is stored for exactly this mode, or (null) for all modes; empty if nothing is. */
  find(modelId: string, mode: ModeName | null): ModelSettings {
    return this.#state.read(READ, (database) => readSettings(database, modelId, mode ?? ""));
  }

  /**
   * What is named is set, what is null is unset, the rest stays, also what a newer Tug has stored and this one does not know.
   *
   * @returns what is stored then
   * @throws invalid_request (larger than 1,000,000 characters, or not JSON)
   */
  set(modelId: string, mode: ModeName | null, patch: ConfigureRequest["set"]): ModelSettings {
    const changes = Object.entries(patch).filter(([, value]) => value !== undefined);
    const merged = this.#state.write("store the settings of a model", (database) => {
      const settings = new Map(Object.entries(readSettings(database, modelId, mode ?? "")));
      for (const [name, value] of changes) {
        if (value === null) settings.delete(name);
        else settings.set(name, value);
      }
      return writeSettings(database, {
        model_id: modelId,
        mode: mode ?? "",
        settings: toText(settings),
        updated_at: Math.floor(this.#now()),
      });
    });
    this.#ownWrites += 1;
    return merged;
  }

  /**
   * Forgets settings: without a model all, without a mode those for all modes and each single one.
   *
   * @param mode null: only those for all modes
   * @returns how many rows are gone
   */
  reset(modelId?: string, mode?: ModeName | null): number {
    const { changes } = this.#state.write("reset the settings of a model", (database) => {
      if (modelId === undefined) return database.query("DELETE FROM model_settings").run();
      if (mode === undefined) {
        return database.query("DELETE FROM model_settings WHERE model_id = ?").run(modelId);
      }
      const sql = "DELETE FROM model_settings WHERE model_id = ? AND mode = ?";
      return database.query(sql).run(modelId, mode ?? "");
    });
    this.#ownWrites += 1;
    return changes;
  }

  /** By model, those for all modes first. */
  list(): readonly StoredSettingsEntry[] {
    const sql =
      "SELECT model_id, mode, settings, updated_at FROM model_settings ORDER BY model_id, mode";
    const rows = this.#state.read(READ, (database) => database.query(sql).all() as Row[]);
    return rows.flatMap((row) => {
      const settings = parseSettings(row);
      if (Object.keys(settings).length === 0) return [];
      const mode = row.mode === "" ? null : (row.mode as ModeName);
      return [{ modelId: row.model_id, mode, settings, updatedAtMs: row.updated_at }];
    });
  }

  /** Another text whenever anything may have changed, here or in another process. Some microseconds. */
  version(): string {
    return `${this.#state.foreignVersion()}.${this.#ownWrites}`;
  }
}

// --- internal ---

const READ = "read the settings of models";

function readSettings(database: Database, modelId: string, mode: string): ModelSettings {
  const sql =
    "SELECT model_id, mode, settings, updated_at FROM model_settings WHERE model_id = ? AND mode = ?";
  const row = database.query(sql).get(modelId, mode) as Row | null;
  return row === null ? {} : parseSettings(row);
}

/** A row without settings is no row. */
function writeSettings(database: Database, row: Row): ModelSettings {
  if (row.settings === "{}") {
    const sql = "DELETE FROM model_settings WHERE model_id = ? AND mode = ?";
    database.query(sql).run(row.model_id, row.mode);
    return {};
  }
  const sql =
    "INSERT OR REPLACE INTO model_settings (model_id, mode, settings, updated_at) VALUES (?, ?, ?, ?)";
  database.query(sql).run(row.model_id, row.mode, row.settings, row.updated_at);
  return parseSettings(row);
}

function toText(settings: ReadonlyMap<string, unknown>): string {
  let text: string;
  try {
    text = JSON.stringify(Object.fromEntries(settings));
  } catch (cause) {
    throw new AppError("invalid_request", "cannot store the settings: they are not JSON", {
      cause,
    });
  }
  if (text.length <= MAX_SETTINGS_CHARS) return text;
  const reason = `they have ${text.length} characters, at most ${MAX_SETTINGS_CHARS} are stored`;
  throw new AppError("invalid_request", `cannot store the settings: ${reason}`, {
    hint: "Shorten the system message.",
    details: { characters: text.length, limit: MAX_SETTINGS_CHARS },
  });
}

/** What is no JSON object was not written by Tug; the next change replaces it. */
function parseSettings({ model_id, settings }: Row): ModelSettings {
  try {
    const value: unknown = JSON.parse(settings);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // Told below.
  }
  log.warn(`state: unreadable settings ignored model=${model_id.slice(0, 80)}`);
  return {};
}
