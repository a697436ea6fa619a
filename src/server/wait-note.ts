/** What a request waits for, in a few words. */
import type { Progress, Warning } from "../api/progress.ts";

/** A name of a model may be the path of a file. Characters. */
const MAX_NAME = 100;

export class WaitNote {
  readonly #name: string;
  #text: string;
  #progress: Progress | undefined;

  constructor(modelName: string) {
    this.#name = toLine(modelName);
    this.#text = `waiting for ${this.#name}`;
  }

  /** One line without control characters. */
  get text(): string {
    // Made when it is wanted, which is seldom, and with the place in line of that time.
    return this.#progress === undefined ? this.#text : describe(this.#progress);
  }

  take(event: Progress | Warning): void {
    if (event.type === "progress") this.#progress = event;
  }

  granted(): void {
    this.#progress = undefined;
    this.#text = `${this.#name} reads the prompt`;
  }

  retry(): void {
    this.#progress = undefined;
    this.#text = `loading ${this.#name} again`;
  }
}

// --- internal ---

function describe(event: Progress): string {
  const { id, phase, done_bytes: done, total_bytes: total, position, waiting_for: other } = event;
  const place = position === undefined ? "" : `, ${ordinal(position)} in line`;
  const cause = other === undefined ? "" : `, behind ${toLine(other)}`;
  const percent = done === null || !total ? "" : ` ${percentOf(done, total)}%`;
  const what = phase === "waiting" && place !== "" ? "" : ` ${toLine(id)}`;
  return `${toLine(phase)}${what}${percent}${place}${cause}`;
}

function percentOf(done: number, total: number): number {
  return Math.max(0, Math.min(100, Math.floor((done / total) * 100)));
}

/** 1st, 2nd, 3rd, 4th, 11th, 21st. */
function ordinal(position: number): string {
  const teens = position % 100 >= 11 && position % 100 <= 13;
  const suffix = teens ? undefined : ["st", "nd", "rd"][(position % 10) - 1];
  return `${position}${suffix ?? "th"}`;
}

function toLine(text: string): string {
  return text.replaceAll(/\p{Cc}+|[\u2028\u2029]+/gu, " ").slice(0, MAX_NAME);
}
