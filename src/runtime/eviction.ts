/** Who leaves when room is needed. Pure: demands and times in, worker ids out. */
import { type Demand, isNothing, shortage, sumDemands } from "./demand.ts";

/** Room, counted in engine processes and in bytes by device. */
export interface Room {
  readonly workers: number;
  readonly bytes: Demand;
}

/** A worker that may be asked to leave. */
export interface Candidate {
  readonly id: number;
  readonly demand: Demand;
  /** What loading it took; loading it again will take about as much. */
  readonly loadMs: number;
  /** When its last request ended or, while it serves, the present. */
  readonly lastUsedMs: number;
}

/** A reload is never free: process start, page cache, first prompt. */
const MIN_LOAD_MS = 100;
/** Idle times that differ by less say nothing about who is needed next. */
const MIN_IDLE_MS = 1000;

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
  for (const candidate of inOrderOfEviction(missing, candidates, nowMs)) {
    if (isFreed(missing, chosen)) break;
    chosen.push(candidate);
  }
  return isFreed(missing, chosen) ? withoutSpares(missing, chosen).map(({ id }) => id) : undefined;
}

/** As `chooseEvictions`; where all candidates together are not enough, all that free anything of what is missing. */
export function chooseTrimming(
  missing: Room,
  candidates: readonly Candidate[],
  nowMs: number,
): readonly number[] {
  const enough = chooseEvictions(missing, candidates, nowMs);
  if (enough !== undefined) return enough;
  return inOrderOfEviction(missing, candidates, nowMs)
    .filter((candidate) => shareFreed(missing, candidate) > 0)
    .map(({ id }) => id);
}

export function isEnough(missing: Room): boolean {
  return missing.workers <= 0 && isNothing(missing.bytes);
}

// --- internal ---

/** Cheapest to reload for what it frees first; a reload counts the less the longer the model has not been asked for. */
function inOrderOfEviction(
  missing: Room,
  candidates: readonly Candidate[],
  nowMs: number,
): readonly Candidate[] {
  const score = (candidate: Candidate): number => {
    const { lastUsedMs, loadMs } = candidate;
    const idleMs = Math.max(nowMs - lastUsedMs, MIN_IDLE_MS);
    return (idleMs * shareFreed(missing, candidate)) / Math.max(loadMs, MIN_LOAD_MS);
  };
  return candidates.toSorted(
    (a, b) => score(b) - score(a) || a.lastUsedMs - b.lastUsedMs || byLoad(a, b) || a.id - b.id,
  );
}

/** How much of what is missing one worker gives: a share of each kind of room, added up. More than is missing is no merit. */
function shareFreed(missing: Room, { demand }: Candidate): number {
  let share = missing.workers > 0 ? 1 / missing.workers : 0;
  for (const [device, bytes] of Object.entries(missing.bytes)) {
    if (bytes > 0) share += Math.min((demand[device] ?? 0) / bytes, 1);
  }
  return share;
}

/** Infinite for workers that never were ready: their difference would be no number. */
function byLoad(a: Candidate, b: Candidate): number {
  return a.loadMs === b.loadMs ? 0 : a.loadMs - b.loadMs;
}

function isFreed(missing: Room, chosen: readonly Candidate[]): boolean {
  if (chosen.length < missing.workers) return false;
  return isNothing(shortage(missing.bytes, sumDemands(chosen.map(({ demand }) => demand))));
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
