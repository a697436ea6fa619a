/** Who leaves when room is needed. Pure: sizes and times in, worker ids out. */

/** Room, counted in engine processes and in bytes. */
export interface Room {
  readonly workers: number;
  /** `Infinity` where bytes are not limited. */
  readonly bytes: number;
}

/** A worker that may be asked to leave. */
export interface Candidate {
  readonly id: number;
  readonly bytes: number;
  /** What loading it took; loading it again will take about as much. */
  readonly loadMs: number;
  /** When its last request ended or, while it serves, the present. */
  readonly lastUsedMs: number;
}

/** A reload is never free: process start, page cache, first prompt. */
const MIN_LOAD_MS = 100;

/**
 * The workers to stop so that `missing` becomes free, in the order of stopping; undefined if all candidates together
 * do not free that much. Nothing missing gives an empty list. No worker is named whose leaving is not needed.
 */
export function chooseEvictions(
  missing: Room,
  candidates: readonly Candidate[],
  nowMs: number,
): readonly number[] | undefined {
  const chosen: Candidate[] = [];
  for (const candidate of inOrderOfEviction(candidates, nowMs)) {
    if (isFreed(missing, chosen)) break;
    chosen.push(candidate);
  }
  return isFreed(missing, chosen) ? withoutSpares(missing, chosen).map(({ id }) => id) : undefined;
}

// --- internal ---

/** Idle time measured in reloads: among equals in cost the least recently used, among equals in age the cheapest. */
function inOrderOfEviction(candidates: readonly Candidate[], nowMs: number): readonly Candidate[] {
  const score = ({ lastUsedMs, loadMs }: Candidate): number =>
    (nowMs - lastUsedMs) / Math.max(loadMs, MIN_LOAD_MS);
  return candidates.toSorted((a, b) => score(b) - score(a) || a.loadMs - b.loadMs || a.id - b.id);
}

function isFreed(missing: Room, chosen: readonly Candidate[]): boolean {
  return chosen.length >= missing.workers && sumBytes(chosen) >= missing.bytes;
}

/** A small worker chosen first may turn out to be unnecessary once a big one was added. */
function withoutSpares(missing: Room, chosen: readonly Candidate[]): readonly Candidate[] {
  let kept = chosen;
  for (const candidate of chosen) {
    const rest = kept.filter((other) => other !== candidate);
    if (isFreed(missing, rest)) kept = rest;
  }
  return kept;
}

function sumBytes(candidates: readonly Candidate[]): number {
  return candidates.reduce((sum, { bytes }) => sum + bytes, 0);
}
