/** What somebody meant who typed something else. Pure. */

/** The candidate closest to what was typed, if it is close enough to be meant. */
export function nearest(typed: string, candidates: readonly string[]): string | undefined {
  const scored = candidates.map((candidate) => ({
    candidate,
    distance: editDistance(typed, candidate),
  }));
  const best = scored.toSorted((a, b) => a.distance - b.distance)[0];
  const bound = Math.max(1, Math.floor(typed.length / 3));
  return best !== undefined && best.distance <= bound ? best.candidate : undefined;
}

// --- internal ---

/** Levenshtein distance with one row. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substitution));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
