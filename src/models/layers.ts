/** Brings the blobs of a model into a transaction: what is here already, what other programs have, what is to be fetched. */
import type { ProgressListener } from "../api/progress.ts";
import { log } from "../log.ts";
import type { BlobSource } from "../http/blob-source.ts";
import type { BlobId, Transaction } from "../store/store.ts";
import { forEachConcurrently } from "./concurrent.ts";
import { reportBytes } from "./progress.ts";
import type { PullContext } from "./pull.ts";

/** Blobs at once. Large ones have connections of their own besides; this is for the many small files of a directory. */
const MAX_AT_ONCE = 4;

export interface WantedBlob extends BlobId {
  readonly sources: readonly BlobSource[];
}

/**
 * Each digest is brought once, however often it is wanted.
 *
 * @returns bytes that came over the network
 */
export async function bringBlobs(
  context: PullContext,
  transaction: Transaction,
  blobs: readonly WantedBlob[],
): Promise<number> {
  const unique = [...new Map(blobs.map((blob) => [blob.digest, blob])).values()];
  await transaction.pin(unique.map(({ digest }) => digest));
  let fetchedBytes = 0;
  // Where a bar counts, the whole is known from the beginning.
  for (const { digest, size } of unique) announce(context.onProgress, digest, size);
  await forEachConcurrently(
    unique,
    { limit: MAX_AT_ONCE, signal: context.signal },
    async (blob, signal) => {
      // Read after the wait: others add to it meanwhile.
      const fetched = await bringBlob({ ...context, signal }, transaction, blob);
      fetchedBytes += fetched;
    },
  );
  return fetchedBytes;
}

// --- internal ---

async function bringBlob(
  context: PullContext,
  transaction: Transaction,
  blob: WantedBlob,
): Promise<number> {
  const { signal, onProgress } = context;
  if (await transaction.claim(blob)) {
    reportBytes(onProgress, { id: blob.digest, phase: "present" })(blob.size, blob.size);
    return 0;
  }
  if (await adopt(context, transaction, blob)) return 0;
  let phase = "downloading";
  let done = 0;
  const report = (): void => reportBytes(onProgress, { id: blob.digest, phase })(done, blob.size);
  const paced = pace(report);
  const { fetchedBytes } = await context.remotes.transfers.fetch(transaction, blob, {
    sources: blob.sources,
    signal,
    onBytes: (bytes) => {
      done = bytes;
      paced();
    },
    onPhase: (next) => {
      phase = next;
      report();
    },
  });
  phase = "pulled";
  done = blob.size;
  report();
  return fetchedBytes;
}

/** A file that turns out not to be what the index said is no reason not to download. */
async function adopt(
  { findAdopted, signal, onProgress }: PullContext,
  transaction: Transaction,
  blob: WantedBlob,
): Promise<boolean> {
  const found = findAdopted?.(blob);
  if (found === undefined) return false;
  const report = reportBytes(onProgress, { id: blob.digest, phase: "adopting" });
  try {
    await transaction.adoptFile(found.path, blob, {
      signal,
      onBytes: (done) => report(done, blob.size),
    });
    log.debug(`pull: adopted a file digest=${blob.digest} path=${found.path}`);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    log.debug(`pull: a file was not adopted path=${found.path} error=${String(error)}`);
    return false;
  }
}

/** More often than this nobody can see. Milliseconds. */
const INTERVAL_MS = 100;

function pace(report: () => void): () => void {
  let reportedAt = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - reportedAt < INTERVAL_MS) return;
    reportedAt = now;
    report();
  };
}

function announce(onProgress: ProgressListener | undefined, id: string, size: number): void {
  onProgress?.({ type: "progress", id, phase: "waiting", done_bytes: 0, total_bytes: size });
}
