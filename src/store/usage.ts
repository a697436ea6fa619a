/** What the store takes on disk. */
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Digest } from "../oci/digest.ts";
import { orIfMissing } from "./files.ts";
import { readIndex, tagsOf } from "./index-file.ts";
import type { Layout } from "./layout.ts";
import { mark } from "./mark.ts";
import { allocatedBytes } from "./partial-files.ts";

interface ModelUsage {
  readonly digest: Digest;
  readonly tags: readonly string[];
  /** Bytes of its blobs, manifest included. */
  readonly sizeBytes: number;
  /** Those of them that another model has too. */
  readonly sharedBytes: number;
}

export interface StoreUsage {
  readonly models: readonly ModelUsage[];
  /** Bytes of all files; one that has several names counts once. */
  readonly totalBytes: number;
  /** Bytes that a prune would free. */
  readonly reclaimableBytes: number;
}

export async function measureUsage(layout: Layout, reclaimableBytes: number): Promise<StoreUsage> {
  const index = await readIndex(layout);
  const { roots } = await mark(layout, index);
  const holders = new Map<Digest, number>();
  for (const blobs of roots.values()) {
    for (const digest of blobs.keys()) holders.set(digest, (holders.get(digest) ?? 0) + 1);
  }
  const models = [...roots].map(([digest, blobs]) => ({
    digest,
    tags: tagsOf(index, digest),
    sizeBytes: sum(blobs.values()),
    sharedBytes: sum([...blobs].map(([blob, size]) => ((holders.get(blob) ?? 0) > 1 ? size : 0))),
  }));
  return { models, totalBytes: await treeBytes(layout.root, new Set()), reclaimableBytes };
}

// --- internal ---

function sum(numbers: Iterable<number>): number {
  let total = 0;
  for (const number of numbers) total += number;
  return total;
}

async function treeBytes(path: string, seen: Set<string>): Promise<number> {
  const stats = await orIfMissing(lstat(path, { bigint: true }), undefined);
  if (stats === undefined) return 0;
  if (stats.isDirectory()) {
    let bytes = 0;
    for (const name of await orIfMissing(readdir(path), []))
      bytes += await treeBytes(join(path, name), seen);
    return bytes;
  }
  const inode = `${stats.dev} ${stats.ino}`;
  if (!stats.isFile() || seen.has(inode)) return 0;
  seen.add(inode);
  // One that is being fetched has holes.
  return path.endsWith(".part") ? allocatedBytes(path) : Number(stats.size);
}
