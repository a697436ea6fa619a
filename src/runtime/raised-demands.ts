/** Remembers for which worker keys the expected memory was too small. Pure: no clock, no I/O. */
import { type Demand, scaleDemand } from "./demand.ts";

/** How much more is assumed after the engine ran out of memory. It does not say how much it lacked. */
const RAISE_FACTOR = 1.25;
/** Bound on memory: keys with a raise; the oldest is forgotten first. */
const MAX_REMEMBERED = 256;

export class RaisedDemands {
  readonly #demands = new Map<string, Demand>();

  get byKey(): ReadonlyMap<string, Demand> {
    return this.#demands;
  }

  /** @param held what the worker was taken to hold when it ran out */
  raise(key: string, held: Demand): void {
    this.#demands.delete(key);
    this.#demands.set(key, scaleDemand(held, RAISE_FACTOR));
    const oldest = this.#demands.keys().next();
    if (this.#demands.size > MAX_REMEMBERED && !oldest.done) this.#demands.delete(oldest.value);
  }

  /** Forgets a key that has shown to work. */
  clear(key: string): void {
    this.#demands.delete(key);
  }
}
