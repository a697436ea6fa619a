/** How many tokens an answer took and gave, in whatever words it says so. Pure. */
import { asCount, asObject, type JsonObject } from "./json.ts";

/** Null: it does not say. */
export interface TokenUsage {
  readonly inputTokens: number | null;
  readonly outputTokens: number | null;
}

export function readUsage(body: unknown): TokenUsage {
  const object = asObject(body);
  if (object === undefined) return { inputTokens: null, outputTokens: null };
  const usage = asObject(object["usage"]) ?? {};
  const timings = asObject(object["timings"]) ?? {};
  return {
    inputTokens:
      first(usage, ["prompt_tokens"]) ??
      sum(usage, ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]) ??
      sum(timings, ["prompt_n", "cache_n"]) ??
      first(object, ["prompt_eval_count", "tokens_evaluated"]),
    outputTokens:
      first(usage, ["completion_tokens", "output_tokens"]) ??
      first(timings, ["predicted_n"]) ??
      first(object, ["eval_count", "tokens_predicted"]),
  };
}

/**
 * For an answer that is too long to be kept whole: the last counts in its text. In a text that was written into JSON the
 * quotes are escaped, so that what a model says is never taken for them.
 */
export function scanUsage(text: string): TokenUsage {
  return {
    inputTokens: last(text, /"(?:prompt_tokens|input_tokens|prompt_eval_count)":\s*(\d{1,15})\b/g),
    outputTokens: last(text, /"(?:completion_tokens|output_tokens|eval_count)":\s*(\d{1,15})\b/g),
  };
}

// --- internal ---

function first(object: JsonObject, names: readonly string[]): number | null {
  for (const name of names) {
    const count = asCount(object[name]);
    if (count !== undefined) return count;
  }
  return null;
}

/** Null unless the first is there. */
function sum(object: JsonObject, names: readonly string[]): number | null {
  const counts = names.map((name) => asCount(object[name]));
  if (counts[0] === undefined) return null;
  return counts.reduce<number>((total, count) => total + (count ?? 0), 0);
}

function last(text: string, pattern: RegExp): number | null {
  const found = Array.from(text.matchAll(pattern)).at(-1)?.[1];
  return found === undefined ? null : Number(found);
}
