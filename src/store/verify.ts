/** Reads every blob of every model again and compares it with its digest. */
import { errnoOf } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { blobSize, hashFile } from "./blobs.ts";
import { type Index, readIndex, tagsOf } from "./index-file.ts";
import type { Layout } from "./layout.ts";
import { mark } from "./mark.ts";

interface BlobProblem {
  readonly digest: Digest;
  /** References of the models that use the blob, or their digests. */
  readonly models: readonly string[];
  readonly problem: "missing" | "wrong size" | "wrong digest" | "unreadable";
}

export interface VerifyReport {
  readonly blobs: number;
  readonly bytes: number;
  readonly problems: readonly BlobProblem[];
}

export interface VerifyOptions {
  readonly signal: AbortSignal;
  readonly onBytes?: (done: number, total: number) => void;
}

/** Takes no lock: what is removed meanwhile is not missed. */
export async function verifyStore(
  layout: Layout,
  { signal, onBytes }: VerifyOptions,
): Promise<VerifyReport> {
  const wanted = await wantedBlobs(layout, await readIndex(layout));
  const total = [...wanted.values()].reduce((sum, { size }) => sum + size, 0);
  const problems: BlobProblem[] = [];
  let done = 0;
  for (const [digest, { size, models }] of wanted) {
    signal.throwIfAborted();
    const before = done;
    const onBlob = (bytes: number): void => onBytes?.(before + bytes, total);
    const problem = await inspect(layout, { digest, size, onBytes: onBlob, signal });
    if (problem !== undefined) problems.push({ digest, models, problem });
    done += size;
  }
  onBytes?.(done, total);
  return { blobs: wanted.size, bytes: total, problems: await stillWanted(layout, problems) };
}

// --- internal ---

interface Wanted {
  readonly size: number;
  readonly models: readonly string[];
}

interface Inspection {
  readonly digest: Digest;
  readonly size: number;
  readonly signal: AbortSignal;
  readonly onBytes: (done: number) => void;
}

async function wantedBlobs(layout: Layout, index: Index): Promise<Map<Digest, Wanted>> {
  const wanted = new Map<Digest, Wanted>();
  const { roots } = await mark(layout, index);
  for (const [root, blobs] of roots) {
    const tags = tagsOf(index, root);
    const names = tags.length === 0 ? [root] : tags;
    for (const [digest, size] of blobs) {
      wanted.set(digest, { size, models: [...(wanted.get(digest)?.models ?? []), ...names] });
    }
  }
  return wanted;
}

async function inspect(
  layout: Layout,
  { digest, size, signal, onBytes }: Inspection,
): Promise<BlobProblem["problem"] | undefined> {
  try {
    const onDisk = await blobSize(layout, digest);
    if (onDisk === undefined) return "missing";
    if (onDisk !== size) return "wrong size";
    const found = await hashFile(layout.blob(digest), { signal, onBytes });
    return found.digest === digest ? undefined : "wrong digest";
  } catch (error) {
    signal.throwIfAborted();
    if (errnoOf(error) === undefined) throw error;
    return errnoOf(error) === "ENOENT" ? "missing" : "unreadable";
  }
}

/** A model that was removed while we read has lost its blobs rightly. */
async function stillWanted(
  layout: Layout,
  problems: readonly BlobProblem[],
): Promise<readonly BlobProblem[]> {
  if (problems.length === 0) return problems;
  const wanted = await wantedBlobs(layout, await readIndex(layout));
  return problems.filter(({ digest }) => wanted.has(digest));
}
