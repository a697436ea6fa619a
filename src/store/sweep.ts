/** The sweep of mark and sweep: removes what nothing refers to and nobody pins. */
import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, hexOf, tryParseDigest } from "../oci/digest.ts";
import { blobSize, listBlobs } from "./blobs.ts";
import { orIfMissing, removeFile } from "./files.ts";
import type { Index } from "./index-file.ts";
import { type Layout, namesIn } from "./layout.ts";
import { mark, markedDigests } from "./mark.ts";
import { allocatedBytes, digestOfPartial, surveyPartials } from "./partial-files.ts";
import { type LivePin, readPins } from "./pins.ts";

export interface SweepOptions {
  /** What the store is to contain. */
  readonly index: Index;
  /** Count only. */
  readonly dryRun: boolean;
  /** Also what interrupted pulls could go on with. */
  readonly isThorough: boolean;
}

export interface SweepReport {
  readonly blobs: number;
  /** Stale files of interrupted writes. */
  readonly ingests: number;
  readonly bundles: number;
  readonly freedBytes: number;
  /** Manifests that cannot be read. While there are any, no blob is swept: it might be theirs. */
  readonly damaged: readonly Digest[];
}

export const NOTHING_SWEPT: SweepReport = {
  blobs: 0,
  ingests: 0,
  bundles: 0,
  freedBytes: 0,
  damaged: [],
};

/** The caller holds the store's lock. */
export async function sweep(layout: Layout, options: SweepOptions): Promise<SweepReport> {
  const { index, dryRun, isThorough } = options;
  const pins = await readPins(layout, { dryRun });
  const marks = await mark(layout, index);
  const present = await listBlobs(layout);
  const [marked, pinned] = [markedDigests(marks), new Set(pins.flatMap((pin) => pin.digests))];
  const { resumable, stale } = await surveyPartials(layout, {
    isThorough,
    present: new Set(present),
    marked,
    pinned,
  });
  const kept = new Set([...marked, ...pinned, ...resumable]);
  const orphans = marks.damaged.length > 0 ? [] : present.filter((digest) => !kept.has(digest));
  const ingests = await staleIngests(layout, pins);
  const bundles = await staleBundles(layout, pins, marks.roots);
  const debris = [...ingests, ...stale.flat(), ...bundles];
  let freedBytes = 0;
  for (const digest of orphans) freedBytes += (await blobSize(layout, digest)) ?? 0;
  for (const path of debris) freedBytes += await ownBytes(path);
  if (!dryRun) {
    for (const digest of orphans) await removeFile(layout.blob(digest));
    for (const path of debris) await removeTree(path);
  }
  return {
    blobs: orphans.length,
    ingests: ingests.length + stale.filter((paths) => paths.some(isPart)).length,
    bundles: bundles.length,
    freedBytes,
    damaged: marks.damaged,
  };
}

/**
 * Removes those of `candidates` that nothing refers to and nobody pins; what an abandoned transaction leaves.
 * The caller holds the store's lock.
 */
export async function sweepOnly(
  layout: Layout,
  index: Index,
  candidates: readonly Digest[],
): Promise<void> {
  const pins = await readPins(layout, { dryRun: true });
  const marks = await mark(layout, index);
  if (marks.damaged.length > 0) return;
  const kept = new Set([...markedDigests(marks), ...pins.flatMap((pin) => pin.digests)]);
  for (const digest of candidates) if (!kept.has(digest)) await removeFile(layout.blob(digest));
}

/** Removes a file or a directory with read-only files in it. */
export async function removeTree(path: string): Promise<void> {
  const stats = await orIfMissing(lstat(path), undefined);
  if (stats === undefined) return;
  if (!stats.isDirectory()) return void (await removeFile(path));
  for (const name of await readdir(path)) await removeTree(join(path, name));
  await rm(path, { recursive: true, force: true });
}

/** Bytes of a tree that go away with it: what is linked from elsewhere does not. */
async function ownBytes(path: string): Promise<number> {
  const stats = await orIfMissing(lstat(path), undefined);
  if (stats === undefined) return 0;
  if (!stats.isDirectory()) return stats.nlink > 1 ? 0 : sizeOnDisk(path, stats.size);
  let bytes = 0;
  for (const name of await readdir(path)) bytes += await ownBytes(join(path, name));
  return bytes;
}

// --- internal ---

function isPart(path: string): boolean {
  return path.endsWith(".part");
}

/** A blob that was being fetched has holes. */
async function sizeOnDisk(path: string, size: number): Promise<number> {
  return isPart(path) ? allocatedBytes(path) : size;
}

/** `<pin>-<n>.part` of dead pins, and index files that were never renamed: whoever holds the lock writes none now. */
async function staleIngests(layout: Layout, pins: readonly LivePin[]): Promise<string[]> {
  const live = new Set(pins.map((pin) => pin.id));
  const names = (await namesIn(layout.ingest)).filter(
    (name) => !live.has(name.split("-")[0] ?? "") && digestOfPartial(name) === undefined,
  );
  return names.map((name) => join(layout.ingest, name));
}

async function staleBundles(
  layout: Layout,
  pins: readonly LivePin[],
  roots: ReadonlyMap<Digest, unknown>,
): Promise<string[]> {
  const live = new Set(pins.map((pin) => pin.id));
  const pinned = new Set(
    pins.flatMap((pin) => (pin.kind === "bundle" ? pin.digests.map(hexOf) : [])),
  );
  const names = (await namesIn(layout.bundles)).filter((name) => {
    const digest = tryParseDigest(`sha256:${name}`);
    if (digest === undefined) return !live.has(name.split(".")[0] ?? "");
    return !roots.has(digest) && !pinned.has(name);
  });
  return names.map((name) => join(layout.bundles, name));
}
