/** What all workers together may hold, read again when it matters. */
import { log } from "../log.ts";
import type { Clock } from "./clock.ts";
import type { Demand } from "./demand.ts";

export interface BudgetSourceOptions {
  /** Undefined: memory is not limited. */
  readonly read: () => Promise<Demand | undefined>;
  readonly clock: Clock;
  onBudget(budget: Demand | undefined): void;
}

/** Other programs come and go in seconds, and asking a GPU's driver takes tens of milliseconds. */
const FRESH_MS = 10_000;

export class BudgetSource {
  readonly #options: BudgetSourceOptions;
  #readMs = -Infinity;
  #reading: Promise<void> | undefined;

  constructor(options: BudgetSourceOptions) {
    this.#options = options;
  }

  /** What was read last does not hold any more: the machine slept. */
  expire(): void {
    this.#readMs = -Infinity;
  }

  /** Up to date when it resolves; one reading serves all who wait. What cannot be read leaves what was. Never rejects. */
  refresh(): Promise<void> {
    if (this.#options.clock.now() - this.#readMs < FRESH_MS) return Promise.resolve();
    this.#reading ??= this.#read().finally(() => (this.#reading = undefined));
    return this.#reading;
  }

  async #read(): Promise<void> {
    try {
      const budget = await this.#options.read();
      this.#readMs = this.#options.clock.now();
      this.#options.onBudget(budget);
    } catch (thrown) {
      log.warn(`runtime: memory budget not read reason=${(thrown as Error).message}`);
    }
  }
}
