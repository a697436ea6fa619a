/**
 * Fetches the missing bytes of one blob over as many connections as help: one to begin with, more while they are slow. A
 * connection that fails without having brought anything leaves the work to the others; the last one keeps trying.
 */
import { toAppError } from "../errors.ts";
import { log } from "../log.ts";
import type { BlobBody, BlobSource, ByteRange } from "../http/blob-source.ts";
import { isTransient, withRetry } from "../http/retry.ts";
import type { PartialBlob } from "../store/store.ts";
import { exchange } from "./exchange.ts";
import { type Frontier, nextTurn } from "./frontier.ts";
import { Ramp } from "./ramp.ts";
import type { Slot, Slots } from "./slots.ts";
import type { SourceList } from "./source-list.ts";
import { type Span, SpanPlanner } from "./spans.ts";
import type { TransferTuning } from "./tuning.ts";

/** An attempt that brought so much was none that failed. Bytes. */
const PROGRESS_BYTES = 64 * 1024;

/** What was begun is worth more patience: with the waits between them, about a minute and a half. */
const ATTEMPTS_AFTER_PROGRESS = 10;
const ATTEMPTS = 5;

/** Reading, writing and hashing may hold the event loop for so long. Milliseconds. */
const TURN_MS = 8;

/** Hints where to look first when a digest is wrong; more of them say nothing new. */
const MAX_DOUBTS = 10_000;

export interface DownloadDeps {
  readonly partial: PartialBlob;
  readonly frontier: Frontier;
  readonly sources: SourceList;
  readonly slots: Slots;
  readonly tuning: TransferTuning;
  readonly signal: AbortSignal;
  /** Takes note of bytes that came, and waits as long as the rate limit asks. @returns whether it did */
  readonly pace: (bytes: number, signal: AbortSignal) => Promise<boolean>;
  /** Told when bytes were written. */
  readonly onProgress: () => void;
}

export class Download {
  /** Bytes that came over the network, also in vain. */
  fetchedBytes = 0;
  /** Ranges that came in a way that leaves doubts: broken off, or from a mirror. */
  readonly doubts: ByteRange[] = [];
  readonly #deps: DownloadDeps;
  readonly #running = new Set<Promise<void>>();
  #planner: SpanPlanner;
  #stop = new AbortController();
  #failure: { readonly error: unknown } | undefined;

  /** Connections that have not decided to leave. */
  #active = 0;
  /** Connections that the source puts up with. */
  #most: number;
  #refusedAt = Number.NEGATIVE_INFINITY;
  /** Connections that wait for their next attempt. */
  #waiting = 0;
  #ramp: Ramp | undefined;
  #isRanged = false;
  #isLarge = false;
  /** Whether bytes have begun to come. */
  #isFlowing = false;
  #sampledAt = 0;
  #sampledBytes = 0;
  /** Whether a connection waited for the rate limit since the last look: then the speed says nothing of the source. */
  #isHeldBack = false;
  /** Connections that wait for it now. */
  #pacing = 0;
  #received = new Map<Span, number>();
  #turnBegan = 0;

  constructor(deps: DownloadDeps) {
    this.#deps = deps;
    this.#most = deps.tuning.connectionsPerBlob;
    this.#planner = new SpanPlanner(deps.tuning);
  }

  /**
   * Fetches ranges, which nobody else writes to.
   *
   * @throws what the last source said, insufficient_storage, the signal's reason
   */
  async run(ranges: readonly ByteRange[]): Promise<void> {
    const { signal, slots, tuning } = this.#deps;
    this.#planner = new SpanPlanner(tuning);
    for (const range of ranges) this.#planner.add(range);
    this.#isLarge =
      ranges.reduce((sum, { start, end }) => sum + end - start, 0) > tuning.largeBytes;
    this.#stop = new AbortController();
    this.#received = new Map();
    const slot = await slots.take(signal);
    this.#isFlowing = false;
    const { fastBytesPerSecond, coolDownMs, connectionsPerBlob: most } = tuning;
    this.#ramp = new Ramp({ fastBytesPerSecond, coolDownMs, most });
    const ticker = setInterval(() => this.#sample(), tuning.sampleMs);
    try {
      this.#launch(slot);
      while (this.#running.size > 0) await Promise.all(this.#running);
    } finally {
      clearInterval(ticker);
    }
    signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #launch(slot: Slot): void {
    this.#active += 1;
    const connection = this.#connect()
      .catch((error: unknown) => {
        this.#active -= 1;
        this.#failure ??= { error };
        this.#stop.abort();
      })
      .finally(() => {
        slot[Symbol.dispose]();
        this.#running.delete(connection);
      });
    this.#running.add(connection);
  }

  /** One connection after the other, until nothing is left to do. */
  async #connect(): Promise<void> {
    const { tuning, sources } = this.#deps;
    const signal = AbortSignal.any([this.#deps.signal, this.#stop.signal]);
    const wait = async (ms: number): Promise<void> => {
      this.#waiting += 1;
      try {
        await tuning.wait(ms, signal);
      } finally {
        this.#waiting -= 1;
      }
    };
    for (let isDone = false; !isDone;) {
      const attempts = this.fetchedBytes > 0 ? ATTEMPTS_AFTER_PROGRESS : ATTEMPTS;
      const source = sources.current;
      try {
        isDone = await withRetry(() => this.#attempt(source, signal), { signal, attempts, wait });
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransient(error) || !sources.hasNext) throw error;
        sources.refuse(source, error);
      }
    }
  }

  /**
   * One exchange.
   *
   * @returns whether the connection is to end
   * @throws what may pass, to be tried again
   */
  async #attempt(source: BlobSource, signal: AbortSignal): Promise<boolean> {
    const { slots, partial, sources, tuning } = this.#deps;
    if (slots.isContended && this.#active > 1) return this.#leave();
    const span = this.#planner.take(this.#active);
    if (span === undefined) return this.#leave();
    const [start, before] = [span.position, partial.doneBytes];
    let hasLeft = false;
    try {
      const { failure } = await exchange(span, source, {
        partial,
        signal,
        stallMs: tuning.stallMs,
        onOpen: (body) => {
          hasLeft = !this.#accept(body, source);
          return !hasLeft;
        },
        onChunk: (bytes) => this.#account(span, bytes, signal),
      });
      if (hasLeft) return this.#leave();
      if (sources.isMirror(source)) this.#doubt({ start, end: span.position });
      if (failure === undefined) return false;
      const doubtful = Math.max(start, span.position - tuning.repairBytes);
      this.#doubt({ start: doubtful, end: span.position + 1 });
      log.debug(`transfer: connection failed host=${source.host} code=${toAppError(failure).code}`);
      // A whole body fills gaps anywhere, and only it does then; of ranges each connection has its own.
      const isWhole = sources.isRangeless(source);
      return this.#judge(
        failure,
        source,
        isWhole ? partial.doneBytes - before : span.position - start,
      );
    } finally {
      this.#received.delete(span);
      this.#release(span, source);
    }
  }

  /** Whether the connection goes on; a server that sends everything serves one connection only. */
  #accept(body: BlobBody, source: BlobSource): boolean {
    this.#isRanged = body.isRanged;
    if (body.isRanged) return true;
    this.#deps.sources.markRangeless(source);
    this.#most = 1;
    return this.#active === 1;
  }

  /** @returns whether the connection is to end */
  #judge(failure: unknown, source: BlobSource, progressBytes: number): boolean {
    const { sources } = this.#deps;
    if (!isTransient(failure)) {
      const isCurrent = sources.current === source;
      if (isCurrent && !sources.hasNext) throw failure;
      sources.refuse(source, failure);
      return false;
    }
    if (progressBytes >= PROGRESS_BYTES) return false;
    if (this.#active === 1) throw failure;
    this.#most = this.#active - 1;
    this.#refusedAt = performance.now();
    return this.#leave();
  }

  #leave(): true {
    this.#active -= 1;
    return true;
  }

  #release(span: Span, source: BlobSource): void {
    if (!this.#deps.sources.isRangeless(source)) return this.#planner.release(span);
    // It filled gaps anywhere.
    span.position = span.end;
    this.#planner.release(span);
    if (this.#planner.active.size > 0) return;
    this.#planner.clear();
    for (const range of this.#deps.partial.missing) this.#planner.add(range);
  }

  async #account(span: Span, bytes: number, signal: AbortSignal): Promise<void> {
    this.fetchedBytes += bytes;
    this.#sampledBytes += bytes;
    if (!this.#isFlowing) this.#sampledAt = performance.now();
    this.#isFlowing = true;
    this.#received.set(span, (this.#received.get(span) ?? 0) + bytes);
    this.#deps.frontier.advance();
    this.#deps.onProgress();
    this.#pacing += 1;
    const wasHeldBack = await this.#deps.pace(bytes, signal);
    this.#pacing -= 1;
    this.#isHeldBack ||= wasHeldBack;
    // Bytes that are there already are read without the event loop ever turning.
    const now = performance.now();
    if (now - this.#turnBegan < TURN_MS) return;
    await nextTurn();
    this.#turnBegan = performance.now();
  }

  #doubt(range: ByteRange): void {
    if (this.doubts.length < MAX_DOUBTS) this.doubts.push(range);
  }

  /** Looks at the speed, and opens as many connections as it asks for. */
  #sample(): void {
    const { tuning } = this.#deps;
    const now = performance.now();
    const elapsedMs = now - this.#sampledAt;
    if (!this.#isFlowing || elapsedMs < tuning.sampleMs / 2) return;
    this.#sampledAt = now;
    if (this.#isHeldBack || this.#pacing > 0) return this.#forgetSample();
    this.#planner.observe(this.#received, elapsedMs / 1000);
    this.#ramp?.observe((this.#sampledBytes * 1000) / elapsedMs, now);
    this.#forgetSample();
    if (this.#isRanged && this.#isLarge && this.#waiting === 0) this.#adjust(now);
  }

  #forgetSample(): void {
    for (const span of this.#received.keys()) this.#received.set(span, 0);
    this.#sampledBytes = 0;
    this.#isHeldBack = false;
  }

  #adjust(now: number): void {
    const { tuning } = this.#deps;
    if (this.#active > 1) this.#planner.cutLaggards();
    if (now - this.#refusedAt >= tuning.coolDownMs) this.#most = tuning.connectionsPerBlob;
    const wanted = Math.min(this.#ramp?.connections ?? 1, this.#most) - this.#active;
    const isHeldUp = this.#active < this.#most && this.#planner.hasLaggard;
    this.#open(Math.max(wanted, isHeldUp ? 1 : 0));
  }

  #open(count: number): void {
    if (count === 0 || this.#stop.signal.aborted) return;
    this.#planner.share();
    for (let index = 0; index < count && this.#planner.hasWork; index += 1) {
      const slot = this.#deps.slots.isContended ? undefined : this.#deps.slots.tryTake();
      if (slot === undefined) return;
      this.#launch(slot);
    }
  }
}
