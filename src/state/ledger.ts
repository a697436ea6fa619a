/** What engines really held, by everything that decides it; it replaces the estimate from then on. */
import { log } from "../log.ts";
import type { StateDatabase } from "./database.ts";

/** Bytes by device, as `runtime/demand.ts` has them. */
type BytesByDevice = Readonly<Record<string, number>>;

/** Some hundred kilobytes. More settings than anybody tries; the least recently measured go first. */
const MAX_ROWS = 10_000;

/** Absent and null are the same: left to the engine. */
export interface LedgerFacts {
  /** `sha256:<hex>`, or what stands for the identity of a bare file. */
  readonly modelId: string;
  /** Engine, version and variant: `llama.cpp/b11669-cpu`. */
  readonly build: string;
  readonly mode: string;
  readonly contextTokens?: number | null | undefined;
  readonly parallel?: number | null | undefined;
  readonly cacheTypeK?: string | null | undefined;
  readonly cacheTypeV?: string | null | undefined;
  /** In any order. */
  readonly devices?: readonly string[] | null | undefined;
  readonly gpuLayers?: number | null | undefined;
  /** In any order: adapters loaded beside the model. */
  readonly adapters?: readonly string[] | null | undefined;
  readonly draftModelId?: string | null | undefined;
  /** In their order: any of them may decide. */
  readonly runtimeFlags?: readonly string[] | null | undefined;
  /** Whatever else decides; keys in any order. */
  readonly further?: Readonly<Record<string, string | number | boolean>> | null | undefined;
}

/** Stable text: the same facts give the same key in any version, other facts never do. */
export function ledgerKey(facts: LedgerFacts): string {
  const further = Object.entries(facts.further ?? {}).toSorted(([one], [other]) =>
    one < other ? -1 : 1,
  );
  return JSON.stringify([
    facts.modelId,
    facts.build,
    facts.mode,
    facts.contextTokens ?? null,
    facts.parallel ?? null,
    facts.cacheTypeK ?? null,
    facts.cacheTypeV ?? null,
    (facts.devices ?? []).toSorted(),
    facts.gpuLayers ?? null,
    (facts.adapters ?? []).toSorted(),
    facts.draftModelId ?? null,
    facts.runtimeFlags ?? [],
    further,
  ]);
}

/** Nothing here throws: without it, models are still loaded by their estimates. */
export class Ledger {
  readonly #state: StateDatabase;
  readonly #now: () => number;
  readonly #maxRows: number;
  /** Said once: a disk that is full would be told of at each release. */
  #hasWarned = false;

  constructor(state: StateDatabase, options: { now?: () => number; maxRows?: number } = {}) {
    this.#state = state;
    this.#now = options.now ?? Date.now;
    this.#maxRows = options.maxRows ?? MAX_ROWS;
  }

  /** The largest that was ever measured; undefined if it never ran so. */
  find(key: string): BytesByDevice | undefined {
    return this.#tolerantly("read the measured memory of models", (goal) =>
      this.#state.read(goal, (database) => {
        const row = database.query("SELECT demand FROM ledger WHERE key = ?").get(key);
        return row === null ? undefined : parseDemand((row as { demand: string }).demand);
      }),
    );
  }

  /** Keeps the larger of this and what is known, device by device. What is no number of bytes is left out. */
  record(key: string, measured: BytesByDevice): void {
    const clean = keepBytes(measured);
    if (clean === undefined) return;
    this.#tolerantly("record the measured memory of a model", (goal) => {
      const known = this.find(key);
      // The usual case: nothing new, and the disk is left alone.
      if (known !== undefined && isCovered(clean, known)) return;
      this.#state.write(goal, (database) => this.#store(database, key, clean));
    });
  }

  #store(database: ReturnType<StateDatabase["open"]>, key: string, measured: BytesByDevice): void {
    const row = database.query("SELECT demand FROM ledger WHERE key = ?").get(key);
    const known = row === null ? undefined : parseDemand((row as { demand: string }).demand);
    const demand = JSON.stringify(largest(known ?? {}, measured));
    const insert = "INSERT OR REPLACE INTO ledger (key, demand, measured_at) VALUES (?, ?, ?)";
    database.query(insert).run(key, demand, Math.floor(this.#now()));
    const remove = `DELETE FROM ledger WHERE key IN
      (SELECT key FROM ledger ORDER BY measured_at DESC, rowid DESC LIMIT -1 OFFSET ?)`;
    if (row === null) database.query(remove).run(this.#maxRows);
  }

  #tolerantly<T>(goal: string, work: (goal: string) => T): T | undefined {
    try {
      return work(goal);
    } catch (thrown) {
      if (!this.#hasWarned) {
        log.warn(`state: ledger not used reason=${thrown instanceof Error ? thrown.message : ""}`);
      }
      this.#hasWarned = true;
      return undefined;
    }
  }
}

// --- internal ---

/** What cannot be read counts as nothing and is replaced by the next measurement. */
function parseDemand(text: string): BytesByDevice | undefined {
  try {
    return keepBytes(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function keepBytes(value: unknown): BytesByDevice | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value).filter(
    ([, bytes]) => Number.isSafeInteger(bytes) && (bytes as number) > 0,
  );
  return entries.length === 0 ? undefined : (Object.fromEntries(entries) as BytesByDevice);
}

function isCovered(measured: BytesByDevice, known: BytesByDevice): boolean {
  return Object.entries(measured).every(([device, bytes]) => bytes <= (known[device] ?? 0));
}

function largest(one: BytesByDevice, other: BytesByDevice): BytesByDevice {
  const result: Record<string, number> = { ...one };
  for (const [device, bytes] of Object.entries(other)) {
    result[device] = Math.max(result[device] ?? 0, bytes);
  }
  return result;
}
