/**
 * What refers to a manifest by its `subject`: signatures, measurements, variants.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers
 */
import { AppError } from "../errors.ts";
import { type Descriptor, isRecord, parseDescriptor } from "./descriptor.ts";
import { type Digest, hexOf } from "./digest.ts";
import type { Exchange } from "./exchange.ts";
import { MAX_MANIFEST_BYTES } from "./manifest.ts";
import { OCI_INDEX } from "./media-types.ts";
import { fetchPage, nextPage, type Page } from "./page.ts";
import type { CallOptions } from "./registry.ts";

/** A list longer than this is a registry that turns in a circle. */
const MAX_PAGES = 64;
/** Thousands of signatures on one model are an accident, tens of thousands an attack. */
const MAX_REFERRERS = 16_384;

/**
 * Asks the registry, else reads the list that clients keep under a tag where registries do not. An empty list if there is
 * neither.
 *
 * @param options.artifactType only these
 * @throws registry_unavailable (also if the list cannot be understood), unauthorized, forbidden, offline, cancelled
 */
export async function referrers(
  exchange: Exchange,
  digest: Digest,
  options: CallOptions & { readonly artifactType?: string },
): Promise<Descriptor[]> {
  const { artifactType, signal } = options;
  const listed = await fetchListed(exchange, digest, options);
  const entries = listed?.entries ?? (await fetchFallback(exchange, digest, { signal })).manifests;
  if (entries.length > MAX_REFERRERS) throw unreadable(exchange, "it has too many entries");
  const found = entries.map((entry, index) => toDescriptor(exchange, entry, index));
  if (artifactType === undefined || listed?.isFiltered === true) return found;
  return found.filter((entry) => entry.artifactType === artifactType);
}

/** The list that clients keep where the registry keeps none. */
export interface FallbackList {
  /** The other members, as they came. */
  readonly index: Readonly<Record<string, unknown>>;
  readonly manifests: readonly unknown[];
  /** The state that a change is based on, if the registry says. */
  readonly etag: string | undefined;
}

/** An empty list if there is none. @throws conflict if something else has the tag */
export async function fetchFallback(
  exchange: Exchange,
  digest: Digest,
  { signal }: CallOptions,
): Promise<FallbackList> {
  const tag = fallbackTag(digest);
  const { response, bytes } = await fetchPage(exchange, `/manifests/${tag}`, {
    headers: { accept: OCI_INDEX },
    maxBytes: MAX_MANIFEST_BYTES,
    signal,
    accept: [404],
  });
  const none = { schemaVersion: 2, mediaType: OCI_INDEX };
  if (!response.ok) return { index: none, manifests: [], etag: undefined };
  const value = parseIndex(bytes);
  if (value === undefined) {
    throw new AppError(
      "conflict",
      `cannot read the referrers of \`${digest}\`: \`${tag}\` is no list of them`,
      { hint: "Remove that tag from the repository." },
    );
  }
  const { manifests, ...index } = value;
  return { index, manifests, etag: response.headers.get("etag") ?? undefined };
}

/** Where clients keep that list: the digest as a tag. */
export function fallbackTag(digest: Digest): string {
  return `sha256-${hexOf(digest)}`;
}

// --- internal ---

interface Listed {
  readonly entries: readonly unknown[];
  readonly isFiltered: boolean;
}

/** @returns undefined if the registry has no such list */
async function fetchListed(
  exchange: Exchange,
  digest: Digest,
  { artifactType, signal }: CallOptions & { readonly artifactType?: string },
): Promise<Listed | undefined> {
  const query =
    artifactType === undefined ? "" : `?artifactType=${encodeURIComponent(artifactType)}`;
  let target: string | undefined = `/referrers/${digest}${query}`;
  const entries: unknown[] = [];
  let isFiltered = true;
  for (let page = 1; target !== undefined; page += 1) {
    if (page > MAX_PAGES) throw unreadable(exchange, "it has no end");
    const { response, bytes }: Page = await fetchPage(exchange, target, {
      headers: { accept: OCI_INDEX },
      maxBytes: MAX_MANIFEST_BYTES,
      signal,
      accept: page === 1 ? [400, 404, 405, 501] : [],
    });
    const index = response.ok ? parseIndex(bytes) : undefined;
    if (index === undefined) {
      // Registries that do not know the question answer with pages of their own.
      if (page === 1) return undefined;
      throw unreadable(exchange, "it is no index");
    }
    entries.push(...index.manifests);
    if (entries.length > MAX_REFERRERS) throw unreadable(exchange, "it has too many entries");
    isFiltered &&= isFilterApplied(response);
    target = nextPage(exchange, response);
  }
  return { entries, isFiltered };
}

function isFilterApplied({ headers }: Response): boolean {
  const applied = headers.get("oci-filters-applied") ?? "";
  return applied.split(",").some((name) => name.trim().toLowerCase() === "artifacttype");
}

function parseIndex(
  bytes: Uint8Array,
): ({ readonly manifests: readonly unknown[] } & Record<string, unknown>) | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
  if (!isRecord(value) || !Array.isArray(value["manifests"])) return undefined;
  return { ...value, manifests: value["manifests"] };
}

function toDescriptor({ registry }: Exchange, entry: unknown, index: number): Descriptor {
  try {
    return parseDescriptor(entry, `entry ${index} of the referrers`);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw unreadable({ registry }, reason, cause);
  }
}

function unreadable(
  { registry }: Pick<Exchange, "registry">,
  reason: string,
  cause?: unknown,
): AppError {
  return new AppError(
    "registry_unavailable",
    `cannot read the list of referrers of ${registry}: ${reason}`,
    { details: { permanent: true }, cause },
  );
}
