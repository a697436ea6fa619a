/** A bound on the request bodies that are held in memory at once, counted as their bytes come. */
import { AppError } from "../errors.ts";

/** Two of the largest bodies; ten thousand ordinary ones. Bytes. */
const MAX_HELD_BYTES = 1024 * 1024 * 1024;

/** One request's share. Disposing it gives the bytes back. */
export interface Reservation extends Disposable {
  /** @throws queue_full if it does not fit beside what others hold; one alone always has room */
  readonly take: (bytes: number) => void;
}

export class BodyBudget {
  readonly #maxBytes: number;
  #heldBytes = 0;

  constructor(maxBytes: number = MAX_HELD_BYTES) {
    this.#maxBytes = maxBytes;
  }

  open(): Reservation {
    let ownBytes = 0;
    return {
      take: (bytes) => {
        const isAlone = this.#heldBytes === ownBytes;
        if (!isAlone && this.#heldBytes + bytes > this.#maxBytes) throw full();
        ownBytes += bytes;
        this.#heldBytes += bytes;
      },
      [Symbol.dispose]: () => {
        this.#heldBytes -= ownBytes;
        ownBytes = 0;
      },
    };
  }
}

// --- internal ---

function full(): AppError {
  return new AppError("queue_full", "cannot take the request: too many large ones are waiting", {
    hint: "Try again in a moment.",
  });
}
