/**
 * What the Responses API keeps, in `tug.db`: each response with the input items that came with it, so that a conversation
 * is a chain of them. Bounded in age, rows and bytes; what is oldest goes first, where a response counts as used when it
 * is continued, with all that came before it. Whatever is too old goes when something is written: there is no timer.
 */
import type { Database } from "bun:sqlite";
import type { OutputItem, ResponseItem, ResponseObject } from "../api/responses.ts";
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import type { StateDatabase } from "./database.ts";

/** As long as OpenAI keeps them. Milliseconds. */
const MAX_AGE_MS = 30 * 24 * 60 * 60 * 1000;
/** A month of some hundred turns a day. */
const MAX_ROWS = 10_000;
/** Of JSON: some hundred conversations with images. Bytes. */
const MAX_BYTES = 512 * 1024 * 1024;
/** One response with what came with it; more would push out too many others. Bytes. */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
/** A longer conversation fits no context. */
const MAX_CHAIN = 2000;
/** Of all responses of one chain; they are read into memory at once. Bytes. */
const MAX_CHAIN_BYTES = 256 * 1024 * 1024;

export interface ResponseLimits {
  readonly maxAgeMs: number;
  readonly maxRows: number;
  readonly maxBytes: number;
  readonly maxResponseBytes: number;
}

export interface StoredResponse {
  readonly response: ResponseObject;
  /** The name of the API key that asked for it; null: whoever needed none. */
  readonly owner: string | null;
  /** What came with its request; not what came before. */
  readonly input: readonly ResponseItem[];
  /** Its stream, event by event; undefined where it cannot be resumed. */
  readonly events?: readonly string[] | undefined;
}

export interface FoundItem {
  readonly item: OutputItem;
  /** Of its response. */
  readonly owner: string | null;
}

export interface ResponsesOptions {
  readonly limits?: Partial<ResponseLimits>;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

interface Row {
  readonly id: string;
  readonly owner: string | null;
  readonly previous_id: string | null;
  readonly bytes: number;
  readonly used_at: number;
}

interface Body {
  readonly response: string;
  readonly input: string;
}

const DEFAULTS: ResponseLimits = {
  maxAgeMs: MAX_AGE_MS,
  maxRows: MAX_ROWS,
  maxBytes: MAX_BYTES,
  maxResponseBytes: MAX_RESPONSE_BYTES,
};

export class Responses {
  readonly #state: StateDatabase;
  readonly #limits: ResponseLimits;
  readonly #now: () => number;

  constructor(state: StateDatabase, { limits, now = Date.now }: ResponsesOptions = {}) {
    this.#state = state;
    this.#limits = { ...DEFAULTS, ...limits };
    this.#now = now;
  }

  /**
   * Replaces one of the same id. It outlives the process, not a power cut. Its events are left out where they alone are
   * too much.
   *
   * @returns false if it is too large to be kept
   * @throws as `StateDatabase.write`
   */
  save({ response, owner, input, events }: StoredResponse): boolean {
    const { maxResponseBytes } = this.#limits;
    const texts = [JSON.stringify(response), JSON.stringify(input)] as const;
    const size = Buffer.byteLength(texts[0]) + Buffer.byteLength(texts[1]);
    const said = events === undefined ? "" : JSON.stringify(events);
    const told = said !== "" && size + Buffer.byteLength(said) <= maxResponseBytes ? said : null;
    const bytes = size + Buffer.byteLength(told ?? "");
    const { id, previous_response_id: previous } = response;
    const now = this.#now();
    return this.#quickly("keep a response", (tables) => {
      const lineage = this.#lineage(tables, previous).map((row) => row.id);
      this.#remove(tables, [id]);
      const fits = bytes <= maxResponseBytes;
      if (fits) {
        const row = [id, previous, now, bytes, owner];
        tables.run(`INSERT INTO responses (${COLUMNS}) VALUES (?, ?, ?, ?, ?)`, row);
        tables.run("INSERT INTO response_bodies VALUES (?, ?, ?, ?)", [id, ...texts, told]);
        indexItems(tables, id, response.output);
        this.#touch(tables, lineage, now);
      }
      this.#makeRoom(tables, now);
      return fits && findRow(tables, id) !== undefined;
    });
  }

  find(id: string): StoredResponse | undefined {
    return this.#state.read("find a response", (tables) => {
      const row = findRow(tables, id);
      const body = row === undefined || this.#isExpired(row) ? undefined : readBody(tables, row);
      return body === undefined ? undefined : { ...body, events: readEvents(tables, id) };
    });
  }

  /**
   * A response and all it continues, oldest first, without their events.
   *
   * @param take told how many bytes they have before they are read; what it throws is thrown
   * @throws not_found naming the one that is not there; request_too_large
   */
  chain(id: string, take?: (bytes: number) => void): StoredResponse[] {
    return this.#state.read("read a conversation", (tables) => {
      const rows = this.#lineage(tables, id);
      const last = rows.at(-1);
      const absent = last === undefined ? id : last.previous_id;
      const bytes = sum(rows);
      if (rows.length >= MAX_CHAIN || bytes > MAX_CHAIN_BYTES) throw tooLong(id);
      if (absent !== null) throw absentResponse(absent, PREVIOUS);
      take?.(bytes);
      return rows.toReversed().map((row) => readBody(tables, row) ?? absentAt(row.id));
    });
  }

  /**
   * An item that was made for any response that is kept. Those that clients sent are not found: their ids are theirs,
   * and may be anything.
   */
  findItem(itemId: string): FoundItem | undefined {
    return this.#state.read("find an item", (tables) => {
      const sql = "SELECT response_id AS id FROM response_items WHERE item_id = ?";
      const found = tables.query<{ id: string }, [string]>(sql).get(itemId);
      const row = found === null ? undefined : findRow(tables, found.id);
      if (row === undefined || this.#isExpired(row)) return undefined;
      const item = readBody(tables, row)?.response.output.find((one) => one.id === itemId);
      return item === undefined ? undefined : { item, owner: row.owner };
    });
  }

  /** @returns whether there was one */
  remove(id: string): boolean {
    return this.#quickly("forget a response", (tables) => {
      const row = findRow(tables, id);
      this.#remove(tables, [id]);
      return row !== undefined && !this.#isExpired(row);
    });
  }

  // --- internal ---

  /** Others' tokens wait meanwhile: nothing here may wait for the disk. */
  #quickly<T>(goal: string, work: (tables: Database) => T): T {
    this.#state.open().run("PRAGMA synchronous = NORMAL");
    try {
      return this.#state.write(goal, work);
    } finally {
      this.#state.open().run("PRAGMA synchronous = FULL");
    }
  }

  /** Newest first, as far as they are there. It ends: a response continues only what was there before it. */
  #lineage(tables: Database, from: string | null): Row[] {
    const rows: Row[] = [];
    const seen = new Set<string>();
    let next = from;
    while (next !== null && rows.length < MAX_CHAIN && !seen.has(next)) {
      const row = findRow(tables, next);
      if (row === undefined || this.#isExpired(row)) break;
      seen.add(next);
      rows.push(row);
      next = row.previous_id;
    }
    return rows;
  }

  #isExpired({ used_at }: Row): boolean {
    return used_at < this.#now() - this.#limits.maxAgeMs;
  }

  #touch(tables: Database, ids: readonly string[], now: number): void {
    const statement = tables.query("UPDATE responses SET used_at = ? WHERE id = ?");
    for (const id of ids) statement.run(now, id);
  }

  #makeRoom(tables: Database, now: number): void {
    const { maxAgeMs, maxRows, maxBytes } = this.#limits;
    const sql = "SELECT id FROM responses WHERE used_at < ?";
    const expired = tables.query<{ id: string }, [number]>(sql).all(now - maxAgeMs);
    this.#remove(
      tables,
      expired.map(({ id }) => id),
    );
    const totals = "SELECT count(*) AS rows, coalesce(sum(bytes), 0) AS bytes FROM responses";
    let { rows, bytes } = tables.query(totals).get() as { rows: number; bytes: number };
    if (rows <= maxRows && bytes <= maxBytes) return;
    const surplus: string[] = [];
    const byUse = "SELECT id, bytes FROM responses ORDER BY used_at, rowid";
    for (const row of tables.query<{ id: string; bytes: number }, []>(byUse).iterate()) {
      if (rows <= maxRows && bytes <= maxBytes) break;
      rows -= 1;
      bytes -= row.bytes;
      surplus.push(row.id);
    }
    log.debug(`state: responses forgotten count=${surplus.length}`);
    this.#remove(tables, surplus);
  }

  #remove(tables: Database, ids: readonly string[]): void {
    for (const id of ids) {
      tables.query("DELETE FROM responses WHERE id = ?").run(id);
      tables.query("DELETE FROM response_bodies WHERE id = ?").run(id);
      tables.query("DELETE FROM response_items WHERE response_id = ?").run(id);
    }
  }
}

/** @param id as the client wrote it @param param the field that names it, if one does */
export function absentResponse(id: string, param?: string): AppError {
  return new AppError("not_found", `cannot find the response \`${id.slice(0, 80)}\``, {
    hint: "It was not stored, was deleted, or is too old; send the whole conversation as `input`.",
    ...(param === undefined ? {} : { details: { param } }),
  });
}

// --- internal ---

const COLUMNS = "id, previous_id, used_at, bytes, owner";
/** Where a request names a response. */
const PREVIOUS = "previous_response_id";

function findRow(tables: Database, id: string): Row | undefined {
  const sql = `SELECT ${COLUMNS} FROM responses WHERE id = ?`;
  return tables.query<Row, [string]>(sql).get(id) ?? undefined;
}

function readBody(tables: Database, { id, owner }: Row): StoredResponse | undefined {
  const sql = "SELECT response, input FROM response_bodies WHERE id = ?";
  const body = tables.query<Body, [string]>(sql).get(id);
  if (body === null) return undefined;
  return {
    response: JSON.parse(body.response) as ResponseObject,
    input: JSON.parse(body.input) as ResponseItem[],
    owner,
  };
}

/** Apart: there may be many, and conversations are read without them. */
function readEvents(tables: Database, id: string): string[] | undefined {
  const sql = "SELECT events FROM response_bodies WHERE id = ?";
  const events = tables.query<{ events: string | null }, [string]>(sql).get(id)?.events;
  return typeof events === "string" ? (JSON.parse(events) as string[]) : undefined;
}

function indexItems(tables: Database, id: string, items: readonly OutputItem[]): void {
  const statement = tables.query("INSERT OR IGNORE INTO response_items VALUES (?, ?)");
  for (const item of items) statement.run(item.id, id);
}

function absentAt(id: string): never {
  throw absentResponse(id, PREVIOUS);
}

function sum(rows: readonly Row[]): number {
  return rows.reduce((bytes, row) => bytes + row.bytes, 0);
}

function tooLong(id: string): AppError {
  return new AppError(
    "request_too_large",
    `cannot continue the response \`${id.slice(0, 80)}\`: the conversation is too long`,
    { hint: "Begin a new one, with what matters of the old one as `input`." },
  );
}
