/** Taking over files that belong to other programs: they are shared where that is possible, and never written to. */
import { chmod, link, rm } from "node:fs/promises";
import { type BlobId, hashFile } from "./blobs.ts";
import { syncFile } from "./files.ts";
import {
  checkBlob,
  copyPart,
  type FileState,
  type IngestResult,
  refuseChanged,
  type StreamOptions,
  tryClone,
  whyNotLinked,
  writeFailure,
} from "./ingest.ts";

export interface ShareOptions extends StreamOptions {
  readonly expected: BlobId;
}

/**
 * Brings a file into `part`: a clone where the file system can, else a hard link, else a copy. Mode and times of the file
 * stay as they are; so a linked blob may be writable, for its owner. Leaves no part when it fails.
 *
 * @throws digest_mismatch, conflict if the file changes meanwhile, insufficient_storage
 */
export async function shareFile(
  part: string,
  source: FileState,
  options: ShareOptions,
): Promise<IngestResult> {
  const isClone = await tryClone(source.path, part);
  const reason = isClone ? undefined : await tryLink(source.path, part);
  try {
    const method = isClone ? "clone" : reason === undefined ? "link" : "copy";
    const found =
      method === "copy"
        ? await copyPart(part, source, options)
        : await hashShared(part, method, options);
    await refuseChanged(source, method);
    return { ...found, method, ...(reason === undefined ? {} : { reason }) };
  } catch (error) {
    await rm(part, { force: true });
    throw writeFailure(error);
  }
}

// --- internal ---

/** @returns why it could not be linked, for people; undefined if it is */
async function tryLink(source: string, part: string): Promise<string | undefined> {
  try {
    await link(source, part);
    return undefined;
  } catch (error) {
    return whyNotLinked(error);
  }
}

async function hashShared(
  part: string,
  method: "clone" | "link",
  { expected, signal, onBytes }: ShareOptions,
): Promise<BlobId> {
  const found = await hashFile(part, { signal, onBytes: (done) => onBytes?.(done, expected.size) });
  checkBlob(found, expected);
  // A clone is a file of our own; a link is not, and was written long ago as a rule.
  if (method === "clone") {
    await syncFile(part);
    await chmod(part, 0o444);
  }
  return found;
}
