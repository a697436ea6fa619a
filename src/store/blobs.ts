/** Reading blobs: nothing leaves here without size and digest having been checked. */
import { open, readdir, readFile, stat } from "node:fs/promises";
import { AppError, errnoOf } from "../errors.ts";
import { type Digest, digestOf, digestOfHex, tryParseDigest } from "../oci/digest.ts";
import { MAX_MANIFEST_BYTES } from "../oci/manifest.ts";
import { orIfMissing } from "./files.ts";
import type { Layout } from "./layout.ts";

/** Configs, templates and licences are far smaller; what is larger is weights, which nobody reads whole. */
export const MAX_READ_BYTES = 4 * MAX_MANIFEST_BYTES;

/** Large enough for the disk to be the limit, small enough to hold the event loop for about a millisecond while hashing. */
const CHUNK_BYTES = 1024 * 1024;

const DAMAGED_HINT =
  "Run `tug verify` to see which models are damaged, remove them with `tug rm` and get them again.";

/** What identifies a blob. */
export interface BlobId {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

export interface HashOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with the number of bytes hashed so far. */
  readonly onBytes?: ((done: number) => void) | undefined;
}

/**
 * @param options.maxBytes refuses larger blobs; `MAX_READ_BYTES` unless given
 * @throws blob_not_found, digest_mismatch, request_too_large
 */
export async function readBlob(
  layout: Layout,
  { digest, size }: BlobId,
  options: { maxBytes?: number } = {},
): Promise<Uint8Array> {
  const maxBytes = options.maxBytes ?? MAX_READ_BYTES;
  if (size > maxBytes) {
    throw new AppError(
      "request_too_large",
      `cannot read blob \`${digest}\`: its ${size} bytes are over the limit of ${maxBytes}`,
    );
  }
  const onDisk = await blobSize(layout, digest);
  if (onDisk === undefined) throw missingBlob(digest);
  // Before reading: the file may have become anything.
  if (onDisk !== size) throw damagedBlob(digest, `it has ${onDisk} bytes, not ${size}`);
  const bytes = await orIfMissing(readFile(layout.blob(digest)), undefined);
  // Removed by another process since.
  if (bytes === undefined) throw missingBlob(digest);
  if (digestOf(bytes) !== digest) throw damagedBlob(digest, "its bytes have another digest");
  return bytes;
}

/** Bytes, or undefined if there is no such blob. */
export async function blobSize(layout: Layout, digest: Digest): Promise<number | undefined> {
  return (await orIfMissing(stat(layout.blob(digest)), undefined))?.size;
}

/** The blobs on disk. Files whose names are no digests are not ours. */
export async function listBlobs(layout: Layout): Promise<Digest[]> {
  const names = await orIfMissing(readdir(layout.blobs), []);
  return names.flatMap((name) => tryParseDigest(`sha256:${name}`) ?? []);
}

/** Reads a file once, in constant memory. */
export async function hashFile(
  path: string,
  { signal, onBytes }: HashOptions = {},
): Promise<BlobId> {
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  for await (const chunk of readChunks(path)) {
    signal?.throwIfAborted();
    hasher.update(chunk);
    size += chunk.length;
    onBytes?.(size);
  }
  return { digest: digestOfHex(hasher.digest("hex")), size };
}

/** A chunk is valid until the next one is asked for. */
export async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  const handle = await open(path, "r");
  try {
    const buffer = new Uint8Array(CHUNK_BYTES);
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

export function missingBlob(digest: Digest): AppError {
  return new AppError("blob_not_found", `cannot read blob \`${digest}\`: it is not in the store`, {
    hint: DAMAGED_HINT,
  });
}

/** Whether an error says that content in the store is missing or damaged. */
export function isDamage(error: unknown): boolean {
  if (errnoOf(error) === "EIO") return true;
  return (
    error instanceof AppError &&
    [
      "blob_not_found",
      "digest_mismatch",
      "invalid_model_file",
      "unsupported_model",
      "request_too_large",
    ].includes(error.code)
  );
}

// --- internal ---

function damagedBlob(digest: Digest, reason: string): AppError {
  return new AppError("digest_mismatch", `cannot read blob \`${digest}\`: ${reason}`, {
    hint: DAMAGED_HINT,
  });
}
