/**
 * Long operations for clients that do not ask for our NDJSON: Docker's CLI, and whoever reads statuses. What fails before
 * anything was told has a status of its own, and lines carry Docker Model Runner's members beside ours.
 *
 * @see https://github.com/docker/model-runner pkg/distribution/oci/progress.go ProgressMessage
 */
import { PROGRESS_TYPE } from "../api/headers.ts";
import type { Progress, ProgressEvent, ProgressListener } from "../api/progress.ts";
import { progressResponse } from "./progress-response.ts";

export interface ProgressWork<Result> {
  (options: { signal: AbortSignal; onProgress: ProgressListener }): Promise<Result>;
}

/** Docker Model Runner's words; numbers are bytes and never absent. */
export interface DockerProgress {
  readonly type: "progress" | "success" | "warning" | "error";
  readonly message: string;
  /** Of all that is known to be moved. */
  readonly total: number;
  readonly layer: { readonly id?: string; readonly size: number; readonly current: number };
  readonly mode: DockerMode;
}

export type DockerMode = "pull" | "push";

/** Clients and proxies give up on a server that says nothing at all; a registry answers within seconds. */
const SILENCE_MS = 10_000;

/** Of things told at once; a model has some hundred layers. */
const MAX_LAYERS = 10_000;

/** Whether the client reads our events. */
export function readsProgress(request: Request): boolean {
  return request.headers.get("accept")?.includes(PROGRESS_TYPE) === true;
}

/**
 * @param options.done what is said of success
 * @throws what the work throws before it tells of any progress, in the first 10 s
 */
export async function dockerProgress<Result>(
  request: Request,
  { mode, done }: { readonly mode: DockerMode; readonly done: (result: Result) => string },
  work: ProgressWork<Result>,
): Promise<Response> {
  if (readsProgress(request)) return progressResponse(request.signal, work);
  const begun = Promise.withResolvers<"begun">();
  let failure: { readonly thrown: unknown } | undefined;
  let isBegun = false;
  const begin = (): void => {
    isBegun = true;
    begun.resolve("begun");
  };
  const words = new DockerWords(mode, done);
  const watched: ProgressWork<Result> = async ({ signal, onProgress }) => {
    try {
      return await work({ signal, onProgress: (event) => (begin(), onProgress(event)) });
    } catch (thrown) {
      if (!isBegun) failure = { thrown };
      throw thrown;
    } finally {
      begin();
    }
  };
  const response = progressResponse(request.signal, watched, (event) =>
    words.line(event as ProgressEvent<Result>),
  );
  const timer = setTimeout(begin, SILENCE_MS);
  await begun.promise;
  clearTimeout(timer);
  if (failure === undefined) return response;
  await response.body?.cancel();
  throw failure.thrown;
}

/** Each event with Docker's members; ours keep their meaning. */
export class DockerWords<Result> {
  readonly #mode: DockerMode;
  readonly #done: (result: Result) => string;
  readonly #sizes = new Map<string, number>();
  #total = 0;

  constructor(mode: DockerMode, done: (result: Result) => string) {
    this.#mode = mode;
    this.#done = done;
  }

  /**
   * One line of JSON. Docker's CLI takes HTML's entities out of a line before it parses it, and passes over what is no
   * JSON then: an `&` that is spelt out, as Go spells it, begins none.
   *
   * @see https://github.com/docker/model-runner cmd/cli/desktop/progress.go DisplayProgress
   */
  line(event: ProgressEvent<Result>): string {
    return `${JSON.stringify(this.#say(event)).replaceAll("&", String.raw`\u0026`)}\n`;
  }

  #say(event: ProgressEvent<Result>): ProgressEvent<Result> & DockerProgress {
    if (event.type === "progress") return this.#progress(event);
    if (event.type === "warning") return { ...event, ...this.#rest(event.message) };
    if (event.type === "error") return { ...event, ...this.#rest(sentence(event.error)) };
    return { ...event, ...this.#rest(this.#done(event.result)) };
  }

  /** What moves no bytes has no layer: its readers add up what layers have. */
  #progress(event: Progress): Progress & DockerProgress {
    const { id, phase, done_bytes: current, total_bytes: size } = event;
    if (current === null || size === null || ASIDE.has(phase)) {
      return { ...event, ...this.#rest(`${phase} ${id}`) };
    }
    this.#count(id, size);
    const done = this.#mode === "pull" ? "Downloaded" : "Uploaded";
    const message = `${done}: ${(current / 1e6).toFixed(2)} MB`;
    return { ...event, ...this.#rest(message), layer: { id, size, current } };
  }

  #count(id: string, size: number): void {
    const known = this.#sizes.get(id);
    if (known === undefined && this.#sizes.size >= MAX_LAYERS) return;
    this.#sizes.set(id, size);
    this.#total += size - (known ?? 0);
  }

  #rest(message: string): Omit<DockerProgress, "type"> {
    return { message, total: this.#total, layer: { size: 0, current: 0 }, mode: this.#mode };
  }
}

// --- internal ---

/** They count bytes that were moved already, or will be. */
const ASIDE: ReadonlySet<string> = new Set(["verifying", "hashing", "reading", "unpacking"]);

function sentence({ message, hint }: { message: string; hint: string | null }): string {
  return hint === null ? message : `${message}. ${hint}`;
}
