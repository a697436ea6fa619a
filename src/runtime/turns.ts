/**
 * Requests that a worker has been granted to and that its engine has no slot for wait here, not in the engine: each of its
 * connections takes one of its threads, the one that answers `/health` too, and costs more of ours than a request that waits.
 */
import { AppError } from "../errors.ts";
import { REQUESTS_A_SLOT } from "./backend.ts";

/** Far more than anybody's clients at once, each of which holds its body. */
const MAX_WAITING = 8192;

/** Connections that an engine gets at the same time. */
export function turnsOf(slots: number): number {
  return REQUESTS_A_SLOT * Math.max(1, slots);
}

interface Waiting {
  readonly resolve: () => void;
}

export class Turns {
  readonly #limit: number;
  readonly #waiting = new Set<Waiting>();
  #taken = 0;
  #isOver = false;

  constructor(slots: number) {
    this.#limit = turnsOf(slots);
  }

  /**
   * First come, first served.
   *
   * Resolves at once while there are some.
   *
   * @throws queue_full; the signal's reason
   */
  async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#isOver || this.#taken < this.#limit) {
      this.#taken += 1;
      return;
    }
    if (this.#waiting.size >= MAX_WAITING) {
      throw new AppError(
        "queue_full",
        `cannot take the request: ${MAX_WAITING} wait for this model`,
        {
          hint: "Try again in a moment.",
        },
      );
    }
    await this.#wait(signal);
  }

  give(): void {
    this.#taken -= 1;
    const [next] = this.#waiting;
    if (next === undefined || this.#taken >= this.#limit) return;
    this.#taken += 1;
    next.resolve();
  }

  /** The engine has gone: nobody needs to wait to find that out. */
  end(): void {
    this.#isOver = true;
    for (const waiting of this.#waiting) {
      this.#taken += 1;
      waiting.resolve();
    }
  }

  // --- internal ---

  #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      this.#waiting.delete(waiting);
      reject(signal.reason as Error);
    };
    const waiting = {
      resolve: () => {
        this.#waiting.delete(waiting);
        signal.removeEventListener("abort", leave);
        resolve();
      },
    };
    this.#waiting.add(waiting);
    signal.addEventListener("abort", leave, { once: true });
    return promise;
  }
}
