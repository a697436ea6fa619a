/** One piece of work that several callers wait for, whatever it is. */

type Work<Event, Result> = (signal: AbortSignal, emit: (event: Event) => void) => Promise<Result>;

interface Caller<Event> {
  readonly signal: AbortSignal;
  readonly onProgress: (event: Event) => void;
}

/**
 * Joins callers into one run. Each may leave by its own signal; the work is aborted when the last one has left.
 *
 * A finished run is forgotten: the next caller starts another.
 */
export class SharedTask<Event, Result> {
  #run: Run<Event, Result> | undefined;

  join(work: Work<Event, Result>, caller: Caller<Event>): Promise<Result> {
    if (caller.signal.aborted) return Promise.reject(caller.signal.reason as Error);
    const run = (this.#run ??= start(work));
    run.callers.add(caller);
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    const leave = (): void => {
      reject(caller.signal.reason as Error);
      this.#leave(run, caller);
    };
    caller.signal.addEventListener("abort", leave, { once: true });
    void run.result.then(resolve, reject).finally(() => {
      caller.signal.removeEventListener("abort", leave);
      this.#leave(run, caller);
    });
    return promise;
  }

  #leave(run: Run<Event, Result>, caller: Caller<Event>): void {
    run.callers.delete(caller);
    if (run.callers.size > 0) return;
    if (this.#run === run) this.#run = undefined;
    run.abort.abort();
  }
}

// --- internal ---

interface Run<Event, Result> {
  readonly abort: AbortController;
  readonly callers: Set<Caller<Event>>;
  readonly result: Promise<Result>;
}

function start<Event, Result>(work: Work<Event, Result>): Run<Event, Result> {
  const abort = new AbortController();
  const callers = new Set<Caller<Event>>();
  const emit = (event: Event): void => {
    for (const caller of callers) caller.onProgress(event);
  };
  return { abort, callers, result: work(abort.signal, emit) };
}
