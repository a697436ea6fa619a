/**
 * A streamed answer that begins before there is anything to say: comments keep the client, and the proxies on the way,
 * from giving up while a model loads or another one makes room.
 */
import { type AppError, toAppError } from "../errors.ts";
import { log } from "../log.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Dialect } from "./dialect.ts";
import type { InferenceTrace } from "./observer.ts";
import { type Answer, notStreamed, Relay } from "./proxy.ts";

/** Clients and proxies that give up on silence do so after 10 seconds at the earliest. */
export const COMMENT_INTERVAL_MS = 5000;

export interface WaitingOptions {
  /** What is waited for. */
  readonly answer: Promise<Answer>;
  readonly dialect: Dialect & Required<Pick<Dialect, "comment">>;
  /** What the wait is about now; one line. */
  readonly describe: () => string;
  readonly clock: Clock;
  readonly trace: InferenceTrace | undefined;
  /** Called if the client leaves: nobody waits any more. */
  readonly leave: () => void;
}

/** 200, whatever comes: a failure is an event. */
export function waitingResponse(options: WaitingOptions): Response {
  const headers = new Headers({
    "content-type": options.dialect.streamType,
    "cache-control": "no-cache",
    // nginx would keep comments back until its buffer is full.
    "x-accel-buffering": "no",
  });
  options.trace?.responded(200, headers);
  const stream = new ReadableStream(new WaitingStream(options), { highWaterMark: 0 });
  return new Response(stream, { headers });
}

// --- internal ---

type Controller = ReadableStreamDefaultController<Uint8Array>;

const ENCODER = new TextEncoder();

class WaitingStream {
  readonly #options: WaitingOptions;
  #timer: Disposable | undefined;
  #relay: Relay | undefined;
  #isOver = false;
  #isLeft = false;

  constructor(options: WaitingOptions) {
    this.#options = options;
  }

  readonly start = (controller: Controller): void => {
    this.#comment(controller);
    const stop = (): void => this.#stopComments();
    void this.#options.answer.then(stop, stop);
  };

  readonly pull = (controller: Controller): Promise<void> =>
    this.#relay === undefined ? this.#begin(controller) : this.#relay.pull(controller);

  readonly cancel = async (reason?: unknown): Promise<void> => {
    this.#isLeft = true;
    this.#stopComments();
    this.#options.leave();
    await this.#relay?.cancel(reason);
  };

  #comment(controller: Controller): void {
    if (this.#isOver) return;
    const { dialect, describe, clock } = this.#options;
    // To a reader that is behind, the comment it has not read is as good as another one.
    if ((controller.desiredSize ?? 0) >= 0) {
      controller.enqueue(ENCODER.encode(dialect.comment(describe())));
    }
    this.#timer = clock.setTimer(COMMENT_INTERVAL_MS, () => this.#comment(controller));
  }

  #stopComments(): void {
    this.#isOver = true;
    this.#timer?.[Symbol.dispose]();
  }

  async #begin(controller: Controller): Promise<void> {
    try {
      const answer = await this.#options.answer;
      if (this.#isLeft) return;
      if (answer.body instanceof Relay) await this.#relayed(controller, answer.body);
      else this.#refused(controller, answer.body);
    } catch (thrown) {
      if (!this.#isLeft) this.#fail(controller, toAppError(thrown));
    }
  }

  async #relayed(controller: Controller, relay: Relay): Promise<void> {
    this.#relay = relay;
    if (relay.isEventStream) return relay.start(controller);
    await relay.cancel();
    throw notStreamed();
  }

  /** The status is spent: what the engine refuses with becomes an event. */
  #refused(controller: Controller, body: Uint8Array | undefined): void {
    const { dialect, trace } = this.#options;
    if (body !== undefined) {
      const refusal = JSON.parse(new TextDecoder().decode(body)) as object;
      const event = ENCODER.encode(dialect.errorEvent(refusal));
      trace?.chunk(event);
      controller.enqueue(event);
    }
    trace?.ended();
    controller.close();
  }

  #fail(controller: Controller, error: AppError): void {
    const { dialect } = this.#options;
    log.debug(`server: answer failed after its head reason=${error.message}`);
    if (error.code === "cancelled") return controller.error(error);
    controller.enqueue(ENCODER.encode(dialect.errorEvent(dialect.errorBody(error))));
    return controller.close();
  }
}
