/** The time a server has for its answer. A body that is being sent keeps it from running out. */
import type { RequestBody } from "./http.ts";

export interface Deadline {
  readonly ms: number;
  /** Aborts when the time is over. */
  readonly signal: AbortSignal;
  /** Begins to count anew. */
  readonly feed: () => void;
  readonly stop: () => void;
}

export function startDeadline(ms: number): Deadline {
  const controller = new AbortController();
  const expire = (): void => controller.abort(new Error("no answer in time"));
  let timer = setTimeout(expire, ms);
  let isStopped = false;
  return {
    ms,
    signal: controller.signal,
    feed: () => {
      if (isStopped) return;
      clearTimeout(timer);
      timer = setTimeout(expire, ms);
    },
    stop: () => {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}

interface WatchedBody {
  readonly body: RequestBody | undefined;
  /** What the stream itself failed with: no fault of the network. */
  readonly failure: { readonly error: unknown } | undefined;
}

/** A body whose every chunk feeds the deadline, and whose own failure is remembered. */
export function watchedBody(body: RequestBody | undefined, deadline: Deadline): WatchedBody {
  if (!(body instanceof ReadableStream)) return { body, failure: undefined };
  let failure: { error: unknown } | undefined;
  const reader = body.getReader();
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await reader.read().catch((error: unknown) => {
          failure = { error };
          throw error;
        });
        deadline.feed();
        // A connection that broke has closed the stream by now: this throws then, and the exchange says what happened.
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    },
    // Nothing is read ahead: whoever counts what was sent counts these reads.
    { highWaterMark: 0 },
  );
  return {
    body: stream,
    get failure() {
      return failure;
    },
  };
}
