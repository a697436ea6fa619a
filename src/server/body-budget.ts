/** A bound on the request bodies that are held in memory at once, counted as their bytes come. */
import { AppError } from "../errors.ts";
import { garbage } from "./garbage.ts";
import { DEFAULT_MAX_BODY_BYTES } from "./request-body.ts";

/** Four of the largest bodies; ten thousand ordinary ones. Bytes. */
const MAX_HELD_BYTES = 1024 * 1024 * 1024;

/** One request's share. Disposing it gives the bytes back. */
export interface Reservation extends Disposable {
  /** @throws queue_full if it does not fit beside what others hold; one alone always has room */
  readonly take: (bytes: number) => void;
}

/** A body from which on its memory is asked back: the collector does not see how much hangs on so few objects. Bytes. */
const LARGE_BYTES = 32 * 1024 * 1024;

interface Limits {
  /** Of all together. Bytes. */
  readonly maxBytes?: number;
  readonly maxBodyBytes?: number;
}

export class BodyBudget {
  /** What one request may bring. Bytes. */
  readonly maxBodyBytes: number;
  readonly #maxBytes: number;
  #heldBytes = 0;

  constructor({ maxBytes = MAX_HELD_BYTES, maxBodyBytes = DEFAULT_MAX_BODY_BYTES }: Limits = {}) {
    this.#maxBytes = maxBytes;
    this.maxBodyBytes = maxBodyBytes;
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
        if (ownBytes >= LARGE_BYTES) garbage.collectSoon();
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
