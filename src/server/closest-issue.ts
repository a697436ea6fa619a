/** What is wrong with a field that may be of several kinds: that of the kind it is. Pure. */
import type * as v from "valibot";

type Issue = v.BaseIssue<unknown>;

/** Unions in unions, as deep as schemas have them. */
const MAX_DEPTH = 16;

/**
 * Of a text-or-list that is a list with a wrong member, the member's issue says more than that it is neither.
 *
 * @returns the issue itself where none of the kinds was closer than the others
 */
export function closestIssue(issue: Issue): Issue {
  let closest = issue;
  for (let depth = 0; depth < MAX_DEPTH; depth += 1) {
    const inner = closest.type === "union" ? farthest(closest.issues ?? []) : undefined;
    if (inner?.path === undefined) return closest;
    const [first, ...rest] = [...(closest.path ?? []), ...inner.path];
    closest = first === undefined ? inner : { ...inner, path: [first, ...rest] };
  }
  return closest;
}

// --- internal ---

/** Whose path leads farthest into the value. */
function farthest(issues: readonly Issue[]): Issue | undefined {
  return issues.toSorted((one, other) => lengthOf(other) - lengthOf(one))[0];
}

function lengthOf({ path }: Issue): number {
  return path?.length ?? 0;
}
