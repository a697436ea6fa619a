/** Finds models to pull: in Docker Hub's `ai` namespace and on Hugging Face. */
import * as v from "valibot";
import type { SearchResult } from "../api/models.ts";
import { AppError, toAppError } from "../errors.ts";
import { readBounded } from "../http/body.ts";
import { printable } from "../http/host.ts";
import { withRetry } from "../http/retry.ts";
import { searchHuggingFace } from "../huggingface/search.ts";
import { displayReference } from "../oci/reference.ts";
import type { Remotes } from "./remotes.ts";

export type SearchSource = "docker" | "huggingface" | "all";

export interface SearchQuery {
  /** Empty: everything, the most popular first. */
  readonly text: string;
  readonly source: SearchSource;
  readonly limit: number;
}

export interface SearchOptions {
  readonly signal: AbortSignal;
  /** One of two sources failing is no failure. */
  readonly onWarning?: (message: string) => void;
  /** Base URL of Docker Hub's API; for tests. */
  readonly hubEndpoint?: string;
}

const HUB = "https://hub.docker.com";
const NAMESPACE = "ai";
const PAGE_SIZE = 100;
/** The namespace has some hundred repositories. */
const MAX_PAGES = 10;
/** A page of 100 has about 100 KB. */
const MAX_PAGE_BYTES = 4 * 1024 * 1024;

/**
 * @returns at most `limit`; of two sources each gets its share, so that none hides the other
 * @throws registry_unavailable and what else the only source fails with, offline
 */
export async function searchModels(
  remotes: Remotes,
  query: SearchQuery,
  options: SearchOptions,
): Promise<SearchResult[]> {
  const { signal } = options;
  const { http, huggingFace } = remotes;
  const searches: Record<Exclude<SearchSource, "all">, () => Promise<SearchResult[]>> = {
    docker: () => searchHub(remotes, query, options),
    huggingface: () =>
      searchHuggingFace(query.text, {
        http,
        endpoint: huggingFace.endpoint,
        token: huggingFace.token(),
        limit: query.limit,
        signal,
      }),
  };
  if (query.source !== "all") return (await searches[query.source]()).slice(0, query.limit);
  const outcomes = await Promise.allSettled([searches.docker(), searches.huggingface()]);
  signal.throwIfAborted();
  const [docker, other] = outcomes.map((outcome) =>
    outcome.status === "fulfilled" ? outcome.value : undefined,
  );
  for (const outcome of outcomes) {
    if (outcome.status !== "rejected") continue;
    const error = toAppError(outcome.reason);
    if (docker === undefined && other === undefined) throw error;
    options.onWarning?.(error.message);
  }
  return share(docker ?? [], other ?? [], query.limit);
}

// --- internal ---

/** @see https://docs.docker.com/reference/api/hub/latest/ */
const HUB_PAGE = v.object({
  next: v.nullish(v.string()),
  results: v.array(
    v.object({
      name: v.pipe(v.string(), v.regex(/^[\w.-]{1,255}$/)),
      description: v.nullish(v.string()),
      pull_count: v.nullish(v.number()),
      star_count: v.nullish(v.number()),
      last_updated: v.nullish(v.string()),
    }),
  ),
});

type HubPage = v.InferOutput<typeof HUB_PAGE>;

/** The API cannot search in a namespace, so that happens here. */
async function searchHub(
  { http }: Remotes,
  { text, limit }: SearchQuery,
  { signal, hubEndpoint = HUB }: SearchOptions,
): Promise<SearchResult[]> {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found: SearchResult[] = [];
  for (let page = 1; page <= MAX_PAGES && found.length < limit; page += 1) {
    const query = `page=${page}&page_size=${PAGE_SIZE}&ordering=pull_count`;
    const url = `${hubEndpoint}/v2/repositories/${NAMESPACE}/?${query}`;
    const { results, next } = await withRetry(async () => fetchPage(http, url, signal), { signal });
    for (const result of results) {
      const haystack = `${result.name} ${result.description ?? ""}`.toLowerCase();
      if (words.every((word) => haystack.includes(word))) found.push(toResult(result));
    }
    if (!next) break;
  }
  return found;
}

async function fetchPage(
  http: Remotes["http"],
  url: string,
  signal: AbortSignal,
): Promise<HubPage> {
  const response = await http.send(url, { headers: { accept: "application/json" }, signal });
  const bytes = await readBounded(response, { maxBytes: MAX_PAGE_BYTES, signal });
  if (!response.ok) throw refused(response.status);
  const parsed = v.safeParse(HUB_PAGE, tryParse(bytes));
  if (parsed.success) return parsed.output;
  throw new AppError(
    "registry_unavailable",
    "cannot search Docker Hub: its answer is not readable",
    {
      hint: "Try again later, or search with `--source huggingface`.",
      details: { permanent: true },
    },
  );
}

function refused(status: number): AppError {
  const code = status === 429 ? "too_many_requests" : "registry_unavailable";
  const isPermanent = status < 500 && status !== 429 && status !== 408;
  return new AppError(code, `cannot search Docker Hub: it answered with status ${status}`, {
    hint: "Try again later, or search with `--source huggingface`.",
    ...(isPermanent ? { details: { permanent: true } } : {}),
  });
}

function toResult(result: HubPage["results"][number]): SearchResult {
  return {
    name: displayReference(`docker.io/${NAMESPACE}/${result.name}`),
    source: "docker",
    description: printable(result.description ?? "") || null,
    downloads: result.pull_count ?? null,
    likes: result.star_count ?? null,
    official: true,
    updated: result.last_updated ?? null,
  };
}

/** What one does not fill the other may take. */
function share(first: SearchResult[], second: SearchResult[], limit: number): SearchResult[] {
  const half = Math.ceil(limit / 2);
  const ofFirst = Math.min(first.length, Math.max(half, limit - second.length));
  return [...first.slice(0, ofFirst), ...second.slice(0, limit - ofFirst)];
}

function tryParse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
