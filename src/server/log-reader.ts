/** The logs of the runner and of its engines as one, in the order of time; for good, or on and on. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../errors.ts";
import { pause } from "../pause.ts";
import { FileFollower } from "./follow-file.ts";
import {
  engineLines,
  type LineFilter,
  type LineReader,
  LineSplitter,
  type LogLine,
  runnerLines,
} from "./log-lines.ts";

export interface LogQuery extends LineFilter {
  readonly follow: boolean;
  /** The last so many lines, and what is added; undefined: all. */
  readonly tail?: number | undefined;
  readonly engines: boolean;
}

export interface LogReaderOptions {
  /** Of `runner.log` and `worker-<n>.log`. */
  readonly directory: string;
  /** Whether the runner's own lines are there: one that runs at a terminal writes them to that. */
  readonly hasRunnerLog: boolean;
  /** What lines of engines look like, so that a structured log is one throughout. */
  readonly format: "text" | "json";
  /** How often followed files are looked at; default 250. */
  readonly pollMs?: number;
}

/** What the server needs of it. */
export interface LogSource {
  readonly hasRunnerLog: boolean;
  read(
    query: LogQuery,
    signal: AbortSignal,
  ): ReadableStream<Uint8Array> | Promise<ReadableStream<Uint8Array>>;
}

export interface LogReader extends LogSource {
  read(query: LogQuery, signal: AbortSignal): ReadableStream<Uint8Array>;
}

/** A person reads along. */
const POLL_MS = 250;
/** Handed over at once, if there is as much. Characters. */
const BATCH_LENGTH = 64 * 1024;
/** Of the last lines that are held until it is clear that they are the last. Characters. */
const MAX_TAIL_LENGTH = 16 * 1024 * 1024;
const ENGINE_LOG = /^(worker-\d{1,6}\.log)(?:\.1)?$/;

export function createLogReader(options: LogReaderOptions): LogReader {
  return {
    hasRunnerLog: options.hasRunnerLog,
    read(query, signal) {
      const left = new AbortController();
      const ends = AbortSignal.any([signal, left.signal]);
      const batches = readLogs(options, query, { ends, left: left.signal });
      return new ReadableStream<Uint8Array>(
        {
          async pull(controller) {
            const { value, done } = await batches.next();
            if (done === true) controller.close();
            else controller.enqueue(new TextEncoder().encode(value));
          },
          async cancel() {
            left.abort();
            await batches.return(undefined);
          },
        },
        { highWaterMark: 1 },
      );
    },
  };
}

// --- internal ---

async function* readLogs(
  options: LogReaderOptions,
  query: LogQuery,
  /** `left`: nobody reads any more. `ends`: that, or nothing more is to be waited for. */
  { ends, left }: { ends: AbortSignal; left: AbortSignal },
): AsyncGenerator<string, undefined> {
  await using sources = new Sources(options, query);
  await sources.refresh();
  const past = sources.drain({ isLast: !query.follow, signal: left });
  if (query.tail === undefined) yield* past;
  else yield* lastLines(past, query.tail);
  while (query.follow && !left.aborted) {
    await pause(options.pollMs ?? POLL_MS, ends);
    await sources.refresh();
    // The runner's last words are what somebody who follows it wants to know.
    const isLast = ends.aborted;
    yield* sources.drain({ isLast, signal: left });
    if (isLast) break;
  }
  return undefined;
}

/** The files there are, and the one line of each that is next. */
class Sources implements AsyncDisposable {
  readonly #options: LogReaderOptions;
  readonly #query: LogQuery;
  readonly #sources = new Map<string, Source>();

  constructor(options: LogReaderOptions, query: LogQuery) {
    this.#options = options;
    this.#query = query;
  }

  /** An engine may have been started since. */
  async refresh(): Promise<void> {
    const { hasRunnerLog, format } = this.#options;
    if (hasRunnerLog) this.#add("runner.log", () => runnerLines(this.#query));
    if (!this.#query.engines) return;
    for (const name of await this.#engineLogs()) {
      this.#add(name, () => engineLines(this.#query, format));
    }
  }

  /** Batches of lines until each file is at its end for now. */
  async *drain({
    isLast,
    signal,
  }: {
    isLast: boolean;
    signal: AbortSignal;
  }): AsyncGenerator<string, undefined> {
    const open = new Set(this.#sources.values());
    let batch = "";
    while (!signal.aborted) {
      for (const source of open) {
        if (source.head !== undefined) continue;
        if (!(await source.readAhead({ isLast, signal }))) open.delete(source);
      }
      const next = earliest(open);
      if (next === undefined) break;
      batch += `${next.take()}\n`;
      if (batch.length < BATCH_LENGTH) continue;
      yield batch;
      batch = "";
    }
    if (batch !== "") yield batch;
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#sources.values().map((source) => source[Symbol.asyncDispose]()));
  }

  // --- internal ---

  #add(name: string, createReader: () => LineReader): void {
    if (this.#sources.has(name)) return;
    const path = join(this.#options.directory, name);
    const { sinceMs } = this.#query;
    const follower = new FileFollower(path, sinceMs === undefined ? {} : { sinceMs });
    this.#sources.set(name, new Source(follower, createReader()));
  }

  async #engineLogs(): Promise<string[]> {
    try {
      const names = await readdir(this.#options.directory);
      return names.flatMap((name) => ENGINE_LOG.exec(name)?.[1] ?? []).toSorted();
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw error;
    }
  }
}

/** One file, read ahead by a chunk. */
class Source implements AsyncDisposable {
  readonly #follower: FileFollower;
  readonly #reader: LineReader;
  readonly #splitter = new LineSplitter();
  #lines: LogLine[] = [];
  #next = 0;

  constructor(follower: FileFollower, reader: LineReader) {
    this.#follower = follower;
    this.#reader = reader;
  }

  get head(): LogLine | undefined {
    return this.#lines[this.#next];
  }

  take(): string {
    const { text } = this.#lines[this.#next] ?? { text: "" };
    this.#next += 1;
    return text;
  }

  /** @returns false if it has no line for now */
  async readAhead({ isLast, signal }: { isLast: boolean; signal: AbortSignal }): Promise<boolean> {
    while (this.head === undefined && !signal.aborted) {
      const chunk = await this.#follower.read();
      if (typeof chunk !== "string") this.#show(this.#splitter.push(chunk));
      else if (chunk === "next" || isLast) this.#show(this.#splitter.end());
      if (chunk === "end") break;
    }
    return this.head !== undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#follower[Symbol.asyncDispose]();
  }

  // --- internal ---

  #show(lines: readonly string[]): void {
    this.#next = 0;
    this.#lines = lines.flatMap((line) => this.#reader.read(line) ?? []);
  }
}

/** Of equals the first, which is the runner: it says what it does before an engine answers to it. */
function earliest(sources: Iterable<Source>): Source | undefined {
  let found: Source | undefined;
  for (const source of sources) {
    const timeMs = source.head?.timeMs ?? Infinity;
    if (timeMs < (found?.head?.timeMs ?? Infinity)) found = source;
  }
  return found;
}

/** As many of the last lines as were asked for, and as fit into the bound. */
async function* lastLines(
  batches: AsyncIterable<string>,
  count: number,
): AsyncGenerator<string, undefined> {
  let lines: string[] = [];
  let length = 0;
  let first = 0;
  for await (const batch of batches) {
    for (const line of batch.split(/(?<=\n)/)) {
      lines.push(line);
      length += line.length;
      while (lines.length - first > count || length > MAX_TAIL_LENGTH) {
        length -= lines[first]?.length ?? 0;
        lines[first] = "";
        first += 1;
      }
    }
    // Cut when half of the list is empty, not at each line.
    if (first < lines.length / 2) continue;
    lines = lines.slice(first);
    first = 0;
  }
  const text = lines.slice(first).join("");
  if (text !== "") yield text;
  return undefined;
}
