/** Searches for models on Hugging Face. */
import * as v from "valibot";
import { printable } from "../http/host.ts";
import type { Asked } from "./failure.ts";
import { bearer, type HubOptions, hubFetch, making } from "./repository.ts";

/** A page of a terminal, several times over; the Hub would go on for a million. */
const MAX_RESULTS = 100;

/** A row of `SearchResult`. */
export interface HuggingFaceSearchResult {
  /** What to give to `pull`. */
  readonly name: string;
  readonly source: "huggingface";
  readonly description: string | null;
  readonly downloads: number | null;
  readonly likes: number | null;
  readonly official: boolean;
  /** RFC 3339. */
  readonly updated: string | null;
}

export interface SearchOptions extends HubOptions {
  /** From 1 to 100. */
  readonly limit: number;
}

/**
 * Models whose names fit, those with GGUF files first, because they run everywhere; then those with safetensors. Each of
 * the two in the order of downloads. One or two requests.
 *
 * @throws unauthorized, too_many_requests, registry_unavailable, offline, timed_out
 */
export async function searchHuggingFace(
  query: string,
  options: SearchOptions,
): Promise<HuggingFaceSearchResult[]> {
  const limit = Math.min(Math.max(Math.trunc(options.limit), 1), MAX_RESULTS);
  const results = new Map<string, HuggingFaceSearchResult>();
  for (const tag of ["gguf", "safetensors"]) {
    if (results.size >= limit) break;
    for (const result of await listTagged(query, tag, { ...options, limit })) {
      if (results.size < limit && !results.has(result.name)) results.set(result.name, result);
    }
  }
  return [...results.values()];
}

// --- internal ---

const COUNT = v.optional(v.nullable(v.number()));
const MODEL = v.object({
  name: v.pipe(v.string(), v.regex(/^[\w.-]{1,96}\/[\w.-]{1,96}$/)),
  downloads: COUNT,
  likes: COUNT,
  updatedAt: v.instance(Date),
  task: v.optional(v.unknown()),
});

async function listTagged(
  query: string,
  tag: string,
  options: SearchOptions,
): Promise<HuggingFaceSearchResult[]> {
  const attempt = "cannot search Hugging Face";
  const asked: Asked = { attempt, hasToken: bearer(options.token) !== undefined };
  return making({ asked, what: "its results", signal: options.signal }, async () => {
    const { listModels } = await import("./hub.ts");
    const results: HuggingFaceSearchResult[] = [];
    const models = listModels({
      search: { query, tags: [tag] },
      sort: "downloads",
      limit: options.limit,
      hubUrl: options.endpoint,
      fetch: hubFetch(asked, options),
    });
    for await (const found of models) {
      const model = v.safeParse(MODEL, found);
      // One without an organization, from before they existed, cannot be pulled by its name.
      if (model.success) results.push(toResult(model.output));
    }
    return results;
  });
}

function toResult(model: v.InferOutput<typeof MODEL>): HuggingFaceSearchResult {
  const { name, downloads, likes, updatedAt, task } = model;
  return {
    name: `hf.co/${name}`,
    source: "huggingface",
    description: typeof task === "string" && task !== "" ? printable(task) : null,
    downloads: downloads ?? null,
    likes: likes ?? null,
    official: false,
    updated: Number.isNaN(updatedAt.getTime()) ? null : updatedAt.toISOString(),
  };
}
