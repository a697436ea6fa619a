/** The last step of every write: a finished file becomes a blob. */
import { type BlobId, blobSize, hashFile } from "./blobs.ts";
import { orIfMissing, removeFile, renameDurably } from "./files.ts";
import type { Layout } from "./layout.ts";

/** Whether a blob is there whose bytes are what its name says. Reads all of it. */
export async function isSoundBlob(
  layout: Layout,
  { digest, size }: BlobId,
  signal?: AbortSignal,
): Promise<boolean> {
  if ((await blobSize(layout, digest)) !== size) return false;
  const found = await orIfMissing(hashFile(layout.blob(digest), { signal }), undefined);
  return found?.digest === digest;
}

/**
 * Renames a part into place. A sound blob stays, because bundles may be links to it; a damaged one is replaced. The part is
 * read-only, synchronised and verified; the caller holds the store's lock, and the blob is pinned.
 *
 * @param options.isSound what `isSoundBlob` said before the lock was taken
 * @returns whether there was no blob of this digest before
 */
export async function publishPart(
  layout: Layout,
  { digest, size }: BlobId,
  options: { readonly part: string; readonly isSound: boolean },
): Promise<boolean> {
  const present = await blobSize(layout, digest);
  if (options.isSound && present === size) {
    await removeFile(options.part);
    return false;
  }
  await renameDurably(options.part, layout.blob(digest));
  return present === undefined;
}
