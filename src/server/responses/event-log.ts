/** The events of a response that is made in the background, for whoever follows it, from whichever place. */
import type { Clock } from "../../runtime/clock.ts";

/** Some sixty thousand tokens, an event each. Characters. */
const MAX_LOG_SIZE = 16 * 1024 * 1024;
/** Clients and proxies that give up on silence do so after 10 seconds at the earliest. */
const COMMENT_INTERVAL_MS = 5000;

const ENCODER = new TextEncoder();

export class EventLog {
  readonly #maxSize: number;
  #events: string[] = [];
  #size = 0;
  #isOver = false;
  #isLost = false;
  #changed = Promise.withResolvers<void>();

  constructor(maxSize: number = MAX_LOG_SIZE) {
    this.#maxSize = maxSize;
  }

  /** Undefined once there were too many. */
  get events(): readonly string[] | undefined {
    return this.#isLost ? undefined : this.#events;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Resolves when there is more, or nothing comes any more. */
  get changed(): Promise<void> {
    return this.#changed.promise;
  }

  push(event: string): void {
    this.#size += event.length;
    if (this.#size > this.#maxSize) this.#isLost = true;
    if (this.#isLost) this.#events = [];
    else this.#events.push(event);
    this.#change();
  }

  end(): void {
    this.#isOver = true;
    this.#change();
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** @param after the number of the last event that is known; -1: none */
export function followEvents(
  log: EventLog,
  after: number,
  clock: Clock,
): ReadableStream<Uint8Array> {
  return new ReadableStream(new Follower(log, after, clock), { highWaterMark: 0 });
}

// --- internal ---

type Controller = ReadableStreamDefaultController<Uint8Array>;

class Follower {
  readonly #log: EventLog;
  readonly #clock: Clock;
  #next: number;
  /** Ends a wait. */
  #wake: (() => void) | undefined;
  #isGone = false;

  constructor(log: EventLog, after: number, clock: Clock) {
    this.#log = log;
    this.#next = after + 1;
    this.#clock = clock;
  }

  readonly start = (controller: Controller): void => {
    // The head of the answer is sent with its first bytes.
    if (!this.#send(controller)) controller.enqueue(ENCODER.encode(": following\n\n"));
  };

  readonly pull = async (controller: Controller): Promise<void> => {
    while (!this.#isGone && !this.#send(controller)) {
      if (this.#log.isOver) return controller.close();
      if (!(await this.#wait()) && !this.#isGone) {
        return controller.enqueue(ENCODER.encode(": waiting\n\n"));
      }
    }
  };

  readonly cancel = (): void => {
    this.#isGone = true;
    this.#wake?.();
  };

  /** @returns false if there is nothing to send */
  #send(controller: Controller): boolean {
    const { events } = this.#log;
    if (events === undefined) {
      controller.enqueue(ENCODER.encode(lost(this.#next)));
      controller.close();
      this.#isGone = true;
      return true;
    }
    if (this.#next >= events.length) return false;
    controller.enqueue(ENCODER.encode(events.slice(this.#next).join("")));
    this.#next = events.length;
    return true;
  }

  /** @returns false if nothing came for long */
  async #wait(): Promise<boolean> {
    // Of each wait its own: what outlives it would remember every one.
    const waited = Promise.withResolvers<boolean>();
    const wake = (): void => waited.resolve(true);
    this.#wake = wake;
    void this.#log.changed.then(wake);
    using _timer = this.#clock.setTimer(COMMENT_INTERVAL_MS, () => waited.resolve(false));
    return await waited.promise;
  }
}

function lost(sequence: number): string {
  const event = {
    type: "error",
    sequence_number: sequence,
    code: "server_error",
    message: "cannot follow the response: it is too long; ask for it without `stream`",
    param: null,
  };
  return `event: error\ndata: ${JSON.stringify(event)}\n\n`;
}
