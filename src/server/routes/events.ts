/** `GET /engines/events`: what happens in the runtime, as Server-Sent Events. */
import type { Hono } from "hono";
import type { EventsSnapshot } from "../../api/engines.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import type { RuntimeEvents } from "../../runtime/events.ts";
import type { AppDeps, AppEnv } from "../deps.ts";
import { toWorkerStatus } from "../worker-status.ts";
import { requireRuntime } from "../worker-request.ts";

/** Proxies cut connections that are silent for 30 seconds and more. */
const COMMENT_INTERVAL_MS = 15_000;
/** What a burst of requests causes while a reader is busy; who is further behind misses some, and is told. */
const MAX_WAITING = 1000;

/** The first event is `snapshot`; the names of the others are the kinds of `RuntimeEvent`, and `dropped`. */
export function addEventRoute(app: Hono<AppEnv>, deps: AppDeps): void {
  app.get("/events", (c) => {
    const runtime = requireRuntime(deps);
    const signals = [c.req.raw.signal, deps.runner?.watching].filter((one) => one !== undefined);
    const snapshot: EventsSnapshot = { workers: runtime.list().map(toWorkerStatus) };
    const feed = new Feed({
      events: runtime.events,
      snapshot,
      signals,
      clock: deps.clock ?? systemClock,
    });
    return new Response(new ReadableStream(feed, { highWaterMark: 1 }), {
      headers: { "content-type": "text/event-stream", "cache-control": "no-cache" },
    });
  });
}

// --- internal ---

interface FeedOptions {
  readonly events: Pick<RuntimeEvents, "subscribe">;
  readonly snapshot: EventsSnapshot;
  /** Any of them ends it. */
  readonly signals: readonly AbortSignal[];
  readonly clock: Clock;
}

type Controller = ReadableStreamDefaultController<Uint8Array>;

const ENCODER = new TextEncoder();

/** One reader's view of the events, bounded. */
class Feed {
  readonly #options: FeedOptions;
  readonly #waiting: string[] = [];
  #dropped = 0;
  #timer: Disposable | undefined;
  #unsubscribe: (() => void) | undefined;
  #end: () => void = () => undefined;
  #isOver = false;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  readonly start = (controller: Controller): void => {
    const { events, snapshot, signals } = this.#options;
    controller.enqueue(toEvent("snapshot", snapshot));
    this.#unsubscribe = events.subscribe((event) => {
      const { kind, ...rest } = event;
      this.#push(controller, kind, rest);
    });
    this.#comment(controller);
    this.#end = () => {
      if (this.#isOver) return;
      this.#stop();
      controller.close();
    };
    for (const signal of signals) signal.addEventListener("abort", this.#end, { once: true });
    if (signals.some(({ aborted }) => aborted)) this.#end();
  };

  readonly pull = (controller: Controller): void => this.#flush(controller);

  readonly cancel = (): void => this.#stop();

  #push(controller: Controller, kind: string, facts: object): void {
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push(toText(kind, facts));
    else this.#dropped += 1;
    this.#flush(controller);
  }

  #flush(controller: Controller): void {
    if (this.#isOver || (controller.desiredSize ?? 0) <= 0) return;
    if (this.#waiting.length === 0) return;
    const text = this.#waiting.splice(0).join("");
    const missed = this.#dropped === 0 ? "" : toText("dropped", { dropped: this.#dropped });
    this.#dropped = 0;
    controller.enqueue(ENCODER.encode(text + missed));
  }

  #comment(controller: Controller): void {
    this.#timer = this.#options.clock.setTimer(COMMENT_INTERVAL_MS, () => {
      // Whoever has something to read needs no sign of life.
      if ((controller.desiredSize ?? 0) > 0) controller.enqueue(ENCODER.encode(": \n\n"));
      this.#comment(controller);
    });
  }

  #stop(): void {
    this.#isOver = true;
    // The runner's signal outlives every reader.
    for (const signal of this.#options.signals) signal.removeEventListener("abort", this.#end);
    this.#unsubscribe?.();
    this.#timer?.[Symbol.dispose]();
  }
}

function toEvent(kind: string, facts: object): Uint8Array {
  return ENCODER.encode(toText(kind, facts));
}

function toText(kind: string, facts: object): string {
  return `event: ${kind}\ndata: ${JSON.stringify(toSnakeCase(facts))}\n\n`;
}

/** Events are plain values: records, lists, text and numbers. What is in the words of the wire already stays. */
function toSnakeCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toSnakeCase);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      toSnakeCase(member),
    ]),
  );
}
