/** Where a blob is while it is fetched, and which of these files are debris. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, hexOf, tryParseDigest } from "../oci/digest.ts";
import { tryLock } from "../lock.ts";
import { orIfMissing, removeFile } from "./files.ts";
import { type Layout, namesIn } from "./layout.ts";

/** An interrupted pull can be taken up again for this long, unless somebody prunes. Milliseconds. */
const KEEP_PARTIAL_MS = 7 * 24 * 60 * 60 * 1000;

const KINDS = ["part", "journal", "done", "lock", "lock-journal"] as const;
type Kind = (typeof KINDS)[number];

/** Where a file of a partial blob is. */
export function partialPath(layout: Layout, digest: Digest, kind: Kind): string {
  return join(layout.ingest, `${hexOf(digest)}.${kind}`);
}

/**
 * Takes the right to write a partial blob. A lock file is opened and removed only under the store's lock, so that nobody
 * gets a lock on a file that has no name any more. The caller holds the store's lock.
 *
 * @returns undefined if somebody else fetches the blob now
 */
export function tryLockPartial(layout: Layout, digest: Digest): Disposable | undefined {
  return tryLock(partialPath(layout, digest, "lock"));
}

/** Gives the right back, and the lock file with it. The caller holds the store's lock. */
export async function unlockPartial(
  layout: Layout,
  digest: Digest,
  lock: Disposable,
): Promise<void> {
  // First, because Windows removes no open file.
  lock[Symbol.dispose]();
  await removePartial(layout, digest, ["lock", "lock-journal"]);
}

export async function removePartial(
  layout: Layout,
  digest: Digest,
  kinds: readonly Kind[],
): Promise<void> {
  for (const kind of kinds) await removeFile(partialPath(layout, digest, kind));
}

/** Bytes on disk of a blob that somebody fetches; a file with holes takes only what was written. */
export async function partialBytes(layout: Layout, digest: Digest): Promise<number> {
  return allocatedBytes(partialPath(layout, digest, "part"));
}

/** What a file takes on disk, holes not counted. 0 if there is none. */
export async function allocatedBytes(path: string): Promise<number> {
  const stats = await orIfMissing(stat(path), undefined);
  if (stats === undefined) return 0;
  // A unit of its own: POSIX leaves it open, every system uses 512. Some tell nothing.
  return stats.blocks > 0 ? Math.min(stats.size, stats.blocks * 512) : stats.size;
}

/** Says that a blob was fetched for a model that is not complete yet. The caller holds the store's lock. */
export async function markFetched(layout: Layout, digest: Digest): Promise<void> {
  await Bun.write(partialPath(layout, digest, "done"), "\n");
}

/** The blobs belong to a model now: they stay for as long as it does. The caller holds the store's lock. */
export async function clearFetched(layout: Layout, digests: readonly Digest[]): Promise<void> {
  const names = new Set(await namesIn(layout.ingest));
  for (const digest of digests)
    if (names.has(`${hexOf(digest)}.done`)) await removePartial(layout, digest, ["done"]);
}

export interface PartialSurvey {
  /** Blobs that an interrupted pull can go on with. */
  readonly resumable: readonly Digest[];
  /** For each partial blob that is debris, its files. */
  readonly stale: readonly (readonly string[])[];
}

export interface SurveyOptions {
  /** Nothing is resumable but what somebody wants right now. */
  readonly isThorough: boolean;
  /** Blobs in the store. */
  readonly present: ReadonlySet<Digest>;
  /** Blobs that belong to a model. */
  readonly marked: ReadonlySet<Digest>;
  /** Blobs that are in use by somebody. */
  readonly pinned: ReadonlySet<Digest>;
  /** Milliseconds since 1970. */
  readonly now?: number;
}

/** Looks at all partial blobs. The caller holds the store's lock. */
export async function surveyPartials(
  layout: Layout,
  options: SurveyOptions,
): Promise<PartialSurvey> {
  const resumable: Digest[] = [];
  const stale: string[][] = [];
  for (const [digest, kinds] of await listPartials(layout)) {
    if (isLocked(layout, digest)) continue;
    const isWanted =
      // By a pull that waits for its turn, or between two attempts.
      options.pinned.has(digest) ||
      (!options.isThorough && (await isRecent(layout, digest, { kinds, ...options })));
    const isPresent = options.present.has(digest);
    const isKept = (kind: Kind): boolean => {
      if (kind === "done") return isPresent && !options.marked.has(digest) && isWanted;
      return isWanted && !isPresent && kinds.includes("part");
    };
    if (kinds.includes("done") && isKept("done")) resumable.push(digest);
    const debris = kinds.filter((kind) => !isKept(kind));
    if (debris.length > 0) stale.push(debris.map((kind) => partialPath(layout, digest, kind)));
  }
  return { resumable, stale };
}

/** The digest a file in `ingest` belongs to, if it belongs to a partial blob. */
export function digestOfPartial(name: string): Digest | undefined {
  return parseName(name)?.digest;
}

/** What the journal says, up to a bound. */
export async function readJournal(path: string, maxBytes: number): Promise<string> {
  const size = (await orIfMissing(stat(path), undefined))?.size ?? 0;
  return size > maxBytes ? "" : orIfMissing(readFile(path, "utf8"), "");
}

// --- internal ---

async function listPartials(layout: Layout): Promise<Map<Digest, Kind[]>> {
  const found = new Map<Digest, Kind[]>();
  for (const name of await namesIn(layout.ingest)) {
    const { digest, kind } = parseName(name) ?? {};
    if (digest === undefined || kind === undefined) continue;
    found.set(digest, [...(found.get(digest) ?? []), kind]);
  }
  return found;
}

function parseName(name: string): { digest: Digest; kind: Kind } | undefined {
  const dot = name.indexOf(".");
  const digest = tryParseDigest(`sha256:${name.slice(0, Math.max(dot, 0))}`);
  const kind = KINDS.find((known) => known === name.slice(dot + 1));
  return digest === undefined || kind === undefined ? undefined : { digest, kind };
}

function isLocked(layout: Layout, digest: Digest): boolean {
  const lock = tryLock(partialPath(layout, digest, "lock"), { create: false });
  lock?.[Symbol.dispose]();
  return lock === undefined;
}

async function isRecent(
  layout: Layout,
  digest: Digest,
  { kinds, now = Date.now() }: { kinds: readonly Kind[]; now?: number },
): Promise<boolean> {
  let newest = 0;
  for (const kind of kinds) {
    if (kind === "lock" || kind === "lock-journal") continue;
    const stats = await orIfMissing(stat(partialPath(layout, digest, kind)), undefined);
    newest = Math.max(newest, stats?.mtimeMs ?? 0);
  }
  return now - newest < KEEP_PARTIAL_MS;
}
