/**
 * How many connections one blob is worth: one to begin with, twice as many for as long as they are slow and doubling helps.
 * On a line that is full already, more connections only take from others. Pure.
 */

/** A single look may have met a moment in which the disk or the processor was busy. */
const SLOW_LOOKS = 2;

/** So much faster, twice as many connections help for certain; less than the other, they do not. */
const CLEAR_GAIN = 1.4;
const LEAST_GAIN = 1.15;

/** New connections need so many looks to get going before they are judged. */
const LOOKS_TO_JUDGE = 4;

export interface RampOptions {
  /** Faster than this there is nothing to gain. Bytes a second. */
  readonly fastBytesPerSecond: number;
  /** Of one blob. */
  readonly most: number;
  /** After this long without a gain it is tried again. Milliseconds. */
  readonly coolDownMs: number;
}

export class Ramp {
  readonly #options: RampOptions;
  #connections = 1;
  #slowLooks = 0;
  #lastRate: number | undefined;
  /** Bytes a second before the last doubling. */
  #before: number | undefined;
  #looks = 0;
  #stuckSince: number | undefined;

  constructor(options: RampOptions) {
    this.#options = options;
  }

  /** How many there should be. */
  get connections(): number {
    return this.#connections;
  }

  /** @param now milliseconds, of any clock */
  observe(bytesPerSecond: number, now: number): void {
    const rate = (bytesPerSecond + (this.#lastRate ?? bytesPerSecond)) / 2;
    this.#lastRate = bytesPerSecond;
    this.#slowLooks = rate < this.#options.fastBytesPerSecond ? this.#slowLooks + 1 : 0;
    if (this.#slowLooks < SLOW_LOOKS || this.#connections >= this.#options.most) return;
    this.#looks += 1;
    if (!this.#helps(rate, now)) return;
    this.#before = rate;
    this.#lastRate = undefined;
    this.#looks = 0;
    this.#stuckSince = undefined;
    this.#connections = Math.min(this.#connections * 2, this.#options.most);
  }

  #helps(rate: number, now: number): boolean {
    if (this.#before === undefined) return true;
    if (rate >= this.#before * CLEAR_GAIN) return true;
    if (this.#looks < LOOKS_TO_JUDGE) return false;
    if (rate >= this.#before * LEAST_GAIN) return true;
    this.#stuckSince ??= now;
    return now - this.#stuckSince >= this.#options.coolDownMs;
  }
}
