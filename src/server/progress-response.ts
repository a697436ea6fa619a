/** Long operations as NDJSON: progress while they last, then one `success` or `error`. */
import { PROGRESS_TYPE } from "../api/headers.ts";
import type { Progress, ProgressEvent, ProgressListener, Warning } from "../api/progress.ts";
import { toAppError, toErrorObject } from "../errors.ts";

/** Between two lines about one thing; a person reads no faster. */
const INTERVAL_MS = 50;
/** Things being worked on at once; beyond, a reader that is too slow misses lines about new ones. */
const MAX_PENDING = 1000;

/** An event as a part of the body; empty where there is nothing to say of it. */
export type ProgressEncoder = (event: ProgressEvent<unknown>) => string;

/**
 * Answers at once and runs `work` while the answer is read. Of each id only the newest progress waits for a slow
 * reader.
 *
 * @param signal the request's own; `work` gets one that also fires when the reader leaves
 * @param encode a line of JSON unless given
 */
export function progressResponse<Result>(
  signal: AbortSignal,
  work: (options: { signal: AbortSignal; onProgress: ProgressListener }) => Promise<Result>,
  encode: ProgressEncoder = toLine,
): Response {
  const left = new AbortController();
  const toBytes = (event: ProgressEvent<unknown>): Uint8Array =>
    new TextEncoder().encode(encode(event));
  const pending = new Pending(toBytes);
  const stream = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        void run(controller);
      },
      pull: (controller) => pending.flush(controller),
      cancel: () => {
        pending.close();
        left.abort();
      },
    },
    { highWaterMark: 1 },
  );
  return new Response(stream, {
    headers: { "content-type": PROGRESS_TYPE, "cache-control": "no-cache" },
  });

  async function run(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    const options = {
      signal: AbortSignal.any([signal, left.signal]),
      onProgress: (event: Progress | Warning) => pending.add(event, controller),
    };
    const last = await settle(() => work(options));
    pending.close();
    if (left.signal.aborted) return;
    pending.flush(controller, { force: true });
    controller.enqueue(toBytes(last));
    controller.close();
  }
}

// --- internal ---

class Pending {
  readonly #toBytes: (event: Progress | Warning) => Uint8Array;
  readonly #events = new Map<string, Progress | Warning>();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(toBytes: (event: Progress | Warning) => Uint8Array) {
    this.#toBytes = toBytes;
  }

  add(event: Progress | Warning, controller: ReadableStreamDefaultController<Uint8Array>): void {
    if (this.#isClosed) return;
    const key = event.type === "progress" ? `progress ${event.id}` : `warning ${event.message}`;
    const previous = this.#events.get(key);
    if (previous === undefined && this.#events.size >= MAX_PENDING) return;
    // Behind the others: lines come in the order of what they tell.
    this.#events.delete(key);
    this.#events.set(key, event);
    if (this.#timer === undefined) this.flush(controller);
  }

  flush(
    controller: ReadableStreamDefaultController<Uint8Array>,
    { force }: { force: boolean } = { force: false },
  ): void {
    if (!force && (this.#timer !== undefined || (controller.desiredSize ?? 0) <= 0)) return;
    if (this.#events.size === 0) return;
    const events = [...this.#events.values()];
    this.#events.clear();
    for (const event of events) controller.enqueue(this.#toBytes(event));
    if (this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.flush(controller);
    }, INTERVAL_MS);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }
}

async function settle<Result>(work: () => Promise<Result>): Promise<ProgressEvent<Result>> {
  try {
    return { type: "success", result: await work() };
  } catch (error) {
    return { type: "error", error: toErrorObject(toAppError(error)) };
  }
}

function toLine(event: ProgressEvent<unknown>): string {
  return `${JSON.stringify(event)}\n`;
}
