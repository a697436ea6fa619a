/** The tags of a repository, page by page. */
import { AppError } from "../errors.ts";
import { isRecord } from "./descriptor.ts";
import type { Exchange } from "./exchange.ts";
import { fetchPage, nextPage, type Page } from "./page.ts";
import type { CallOptions } from "./registry.ts";

/** A page of ten thousand tags at their greatest length has less. */
const MAX_PAGE_BYTES = 4 * 1024 * 1024;
/** No repository has more that anybody would list; it ends a list that never does. */
const MAX_TAGS = 100_000;
const MAX_PAGES = 1_000;

const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/**
 * In the registry's order. What is no tag by the grammar is left out.
 *
 * @throws registry_unavailable if the answer is no list, or never ends
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags
 */
export async function* listTags(
  exchange: Exchange,
  { signal }: CallOptions,
): AsyncGenerator<string> {
  let target: string | undefined = "/tags/list";
  let count = 0;
  for (let page = 1; target !== undefined; page += 1) {
    if (page > MAX_PAGES) throw unusable(exchange, "its list of tags does not end");
    const { bytes, response }: Page = await fetchPage(exchange, target, {
      maxBytes: MAX_PAGE_BYTES,
      signal,
    });
    const next = nextPage(exchange, response);
    if (next !== undefined && next === target)
      throw unusable(exchange, "its list of tags turns in a circle");
    for (const tag of readTags(exchange, bytes)) {
      count += 1;
      if (count > MAX_TAGS) throw unusable(exchange, `it has more than ${MAX_TAGS} tags`);
      yield tag;
    }
    target = next;
  }
}

// --- internal ---

function readTags(exchange: Exchange, bytes: Uint8Array): readonly string[] {
  const value = tryJson(bytes);
  const tags = isRecord(value) ? value["tags"] : undefined;
  // Some registries say null for none.
  if (isRecord(value) && (tags === null || tags === undefined)) return [];
  if (!Array.isArray(tags)) throw unusable(exchange, "its answer is not a list of tags");
  return tags.filter((tag): tag is string => typeof tag === "string" && TAG.test(tag));
}

function tryJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

function unusable({ registry, repository }: Exchange, reason: string): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot list the tags of \`${registry}/${repository}\`: ${reason}`,
    { details: { permanent: true } },
  );
}
