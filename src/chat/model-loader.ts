/** Loads the model while the person types, and shows how it goes only to who waits for it. */
import type { LoadRequest } from "../api/engines.ts";
import type { ProgressListener } from "../api/progress.ts";
import type { ChatClient } from "./client.ts";

export interface ModelLoaderOptions {
  readonly client: Pick<ChatClient, "load">;
  /** Of the whole conversation: a load outlives the turn that waits for it. */
  readonly signal: AbortSignal;
}

type LastEvent = Parameters<ProgressListener>[0];

export class ModelLoader {
  readonly #options: ModelLoaderOptions;
  #load: Promise<void> | undefined;
  #listener: ProgressListener | undefined;
  #last: LastEvent | undefined;
  #request: LoadRequest | undefined;
  #isLoaded = false;

  constructor(options: ModelLoaderOptions) {
    this.#options = options;
  }

  /** Begins to load. A failure goes to whoever waits, and to `onFailed`. */
  start(request: LoadRequest, onFailed?: (error: unknown) => void): void {
    const { client, signal } = this.#options;
    this.#request = request;
    this.#last = undefined;
    this.#isLoaded = false;
    const onProgress: ProgressListener = (event) => {
      this.#last = event;
      this.#listener?.(event);
    };
    const load = client.load(request, { signal, onProgress }).then(() => {
      if (this.#load === load) this.#isLoaded = true;
    });
    this.#load = load;
    load.catch((error: unknown) => {
      // The next one to wait tries again; whoever waits now gets the error from the same promise.
      if (this.#load === load) this.#load = undefined;
      onFailed?.(error);
    });
  }

  /** The next one to wait loads with this request; what is loaded now is of no use. */
  reset(request: LoadRequest): void {
    this.#request = request;
    this.#load = undefined;
    this.#isLoaded = false;
  }

  /**
   * Waits for the load in flight, or for a new one if the last failed.
   *
   * @param options.signal ends the waiting, not the load
   */
  async wait(options: { signal: AbortSignal; onProgress: ProgressListener }): Promise<void> {
    const { signal, onProgress } = options;
    signal.throwIfAborted();
    if (this.#isLoaded) return;
    if (this.#load === undefined && this.#request !== undefined) this.start(this.#request);
    if (this.#load === undefined) return;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#listener = onProgress;
    if (this.#last !== undefined) onProgress(this.#last);
    try {
      await Promise.race([this.#load, aborted.promise]);
    } finally {
      this.#listener = undefined;
      signal.removeEventListener("abort", onAbort);
    }
  }
}
