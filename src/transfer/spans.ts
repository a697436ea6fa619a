/**
 * Who fetches which bytes. Ranges are handed out from the beginning on, long first and short near the end; when none is
 * left, an idle connection takes over a part of what a slower one still has to do. Pure.
 */
import type { ByteRange } from "../http/blob-source.ts";

export interface SpanLimits {
  readonly longestSpanBytes: number;
  readonly shortestSpanBytes: number;
}

/** What one connection is fetching. */
export interface Span {
  readonly start: number;
  /** The next byte that is to come. */
  position: number;
  /** Exclusive. It goes back when another connection takes over what follows. */
  end: number;
  /** Bytes a second lately; undefined while nobody knows. */
  rate: number | undefined;
  /** How often its rate was looked at. */
  looks: number;
  /** How often these bytes were taken from a connection that was too slow. */
  readonly takeovers: number;
  /** Called when nothing is left to do, for the connection may be waiting for bytes. */
  onCut?: () => void;
}

/** An idle connection leaves alone what is done sooner than it could begin. Seconds. */
const WORTH_STEALING_SECONDS = 0.5;

/** A connection that is this much slower than the fastest one loses all it has. */
const LAGGARD_FACTOR = 4;

/** A connection that has just begun is slow as they all are; after so many looks it is judged. */
const MATURE_LOOKS = 5;

/** A connection without its first byte after so many looks counts as one that stands still. */
const SILENT_LOOKS = 10;

/** A laggard is cut amid the blob if the rest of its span would take longer than this. Seconds. */
const TOO_LONG_SECONDS = 10;

/** Slow connections are cut so often amid a blob: a source may be like that. */
const MAX_CUTS = 32;

/** Bytes are taken from slow connections so often; then the source is slow, and cutting more would not help. */
const MAX_TAKEOVERS = 3;

export class SpanPlanner {
  readonly #limits: SpanLimits;
  /** Sorted; no two touch the same byte. */
  #unassigned: ByteRange[] = [];
  readonly #active = new Set<Span>();
  /** Of the fastest connection that there was lately. */
  #fastest: number | undefined;
  #cuts = 0;

  constructor(limits: SpanLimits) {
    this.#limits = limits;
  }

  get active(): ReadonlySet<Span> {
    return this.#active;
  }

  /** Whether another connection would find something to do. */
  get hasWork(): boolean {
    return this.#unassigned.length > 0 || this.#chooseVictim() !== undefined;
  }

  /** Whether a connection is so slow that another one should do its work. */
  get hasLaggard(): boolean {
    return [...this.#active].some(
      (span) => span.position < span.end && span.takeovers < MAX_TAKEOVERS && this.#isLaggard(span),
    );
  }

  add(range: ByteRange): void {
    if (range.end > range.start)
      this.#unassigned = [...this.#unassigned, range].toSorted((a, b) => a.start - b.start);
  }

  /** Forgets what nobody does yet. */
  clear(): void {
    this.#unassigned = [];
  }

  /** @param connections how many share the work; a single one gets as much as there is in one stretch */
  take(connections: number): Span | undefined {
    const [range, ...others] = this.#unassigned;
    if (range === undefined) return this.#steal();
    const length = Math.min(range.end - range.start, this.#spanBytes(connections));
    const end = range.start + length;
    this.#unassigned = end < range.end ? [{ start: end, end: range.end }, ...others] : others;
    return this.#begin({ start: range.start, end, takeovers: 0 });
  }

  /** The connection has left: what it did not fetch is to be done by others. */
  release(span: Span): void {
    this.#active.delete(span);
    this.add({ start: span.position, end: span.end });
  }

  /** Another connection is coming: nobody keeps more than a long span. */
  share(): void {
    for (const span of this.#active) {
      const end = span.position + this.#limits.longestSpanBytes;
      if (end >= span.end) continue;
      this.add({ start: end, end: span.end });
      span.end = end;
    }
  }

  /** Takes note of what came since the last time. @param received bytes of the spans that have begun to flow */
  observe(received: ReadonlyMap<Span, number>, seconds: number): void {
    for (const span of this.#active) {
      const bytes = received.get(span);
      span.looks += 1;
      if (bytes === undefined && span.looks < SILENT_LOOKS) continue;
      const now = (bytes ?? 0) / seconds;
      span.rate = span.rate === undefined ? now : span.rate * 0.6 + now * 0.4;
    }
    const rates = [...this.#active].flatMap(({ rate }) => rate ?? []);
    if (rates.length === 1) rates.push(this.#fastest ?? 0);
    if (rates.length > 0) this.#fastest = Math.max(...rates);
  }

  /** Cuts connections that hold up the beginning of the blob: what they have left goes to the next who asks. */
  cutLaggards(): void {
    for (const span of this.#active) {
      const isTooLong = this.#secondsOf(span) > TOO_LONG_SECONDS;
      if (!isTooLong || !this.#isLaggard(span) || this.#cuts >= MAX_CUTS) continue;
      this.#cuts += 1;
      this.add({ start: span.position, end: span.end });
      span.end = span.position;
      span.onCut?.();
    }
  }

  #spanBytes(connections: number): number {
    if (connections <= 1) return Number.POSITIVE_INFINITY;
    const { longestSpanBytes, shortestSpanBytes } = this.#limits;
    const left = this.#unassigned.reduce((sum, { start, end }) => sum + end - start, 0);
    const share = Math.ceil(left / (2 * connections));
    return Math.min(Math.max(share, shortestSpanBytes), longestSpanBytes);
  }

  #begin(range: ByteRange & { readonly takeovers: number }): Span {
    const span: Span = { ...range, position: range.start, rate: undefined, looks: 0 };
    this.#active.add(span);
    return span;
  }

  #steal(): Span | undefined {
    const victim = this.#chooseVictim();
    if (victim === undefined) return undefined;
    const left = victim.end - victim.position;
    const share = this.#shareOf(victim);
    const isAll = share === left;
    const stolen = this.#begin({
      start: victim.end - share,
      end: victim.end,
      takeovers: isAll ? victim.takeovers + 1 : victim.takeovers,
    });
    victim.end = stolen.start;
    if (isAll) victim.onCut?.();
    return stolen;
  }

  /** The span that would be done last, if taking something from it is worth it. */
  #chooseVictim(): Span | undefined {
    const spans = [...this.#active].filter(({ position, end }) => end > position);
    const last = spans.reduce<Span | undefined>(
      (slowest, span) =>
        slowest === undefined || this.#secondsOf(span) > this.#secondsOf(slowest) ? span : slowest,
      undefined,
    );
    if (last === undefined || this.#secondsOf(last) < WORTH_STEALING_SECONDS) return undefined;
    return this.#shareOf(last) > 0 ? last : undefined;
  }

  #secondsOf(span: Span): number {
    const rate = this.#rateOf(span);
    return rate === undefined ? 0 : (span.end - span.position) / rate;
  }

  #rateOf(span: Span): number | undefined {
    return span.looks < MATURE_LOOKS ? this.#fastest : (span.rate ?? this.#fastest);
  }

  #isLaggard(span: Span): boolean {
    return (this.#rateOf(span) ?? 0) * LAGGARD_FACTOR < (this.#fastest ?? 0);
  }

  /** How much of the rest of a span another connection is to take, so that both are done at once. */
  #shareOf(span: Span): number {
    const left = span.end - span.position;
    if (this.#isLaggard(span)) return span.takeovers < MAX_TAKEOVERS ? left : 0;
    const [own, other] = [this.#rateOf(span) ?? 1, this.#fastest ?? 1];
    const share = Math.floor((left * other) / (own + other));
    // Half a short span is what one more request is worth.
    return share >= this.#limits.shortestSpanBytes / 2 ? share : 0;
  }
}
