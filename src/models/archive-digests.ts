/** Which blobs somebody has, read from an earlier export or from any text with digests in it. */
import { type FileHandle, open } from "node:fs/promises";
import { AppError, errnoOf, toAppError } from "../errors.ts";
import { isRecord } from "../oci/descriptor.ts";
import { MAX_MANIFEST_BYTES } from "../oci/manifest.ts";
import { blobDigestOf, readWhole, tryParseJson } from "./archive-entries.ts";
import { compressionOf, decompressed } from "../archive/decompress.ts";
import { readTar, type TarSource } from "../archive/tar.ts";

/** A list of ten thousand models is some megabytes. */
const MAX_TEXT_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;
/** Where a tar archive says that it is one. */
const USTAR_OFFSET = 257;

const DIGESTS = /sha256:[0-9a-f]{64}(?![0-9a-f])/g;

/**
 * Of an archive: the blobs in it, and those its manifests refer to, because whoever took the archive in has them too. Of a
 * text: every digest in it.
 *
 * @param path absolute
 * @throws not_found, forbidden, invalid_model_file, invalid_request (nothing of the kind in it), cancelled
 */
export async function readDigests(
  path: string,
  { signal }: { signal: AbortSignal },
): Promise<ReadonlySet<string>> {
  await using file = await openFile(path);
  const archive = await tryArchive(path, file, signal);
  const digests =
    archive === undefined ? await ofText(path, file, signal) : await ofArchive(archive);
  if (digests.size > 0) return digests;
  throw new AppError("invalid_request", `cannot use \`${path}\`: there is no digest in it`, {
    hint: "Give an archive of `tug export`, or the output of `tug list --json` from the other machine.",
  });
}

// --- internal ---

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") throw toAppError(cause);
    throw new AppError("not_found", `cannot read \`${path}\`: there is no such file`, { cause });
  }
}

/** Undefined for a text, and for a pipe, whose beginning cannot be read twice. */
async function tryArchive(
  path: string,
  file: FileHandle,
  signal: AbortSignal,
): Promise<TarSource | undefined> {
  const stats = await file.stat();
  if (stats.isDirectory()) {
    throw new AppError("invalid_request", `cannot read \`${path}\`: it is a directory`, {
      hint: "Give an archive of `tug export`, or a text with digests in it.",
    });
  }
  if (!stats.isFile()) return undefined;
  const { buffer, bytesRead } = await file.read(Buffer.alloc(512), 0, 512, 0);
  const head = buffer.subarray(0, bytesRead);
  const source = seekable(file, stats.size, signal);
  if (compressionOf(head) !== undefined) return decompressed(source);
  const isTar = head.toString("latin1", USTAR_OFFSET, USTAR_OFFSET + 5) === "ustar";
  return isTar ? source : undefined;
}

/** Bodies are passed over without being read: what matters are the names, and they are few. */
function seekable(file: FileHandle, size: number, signal: AbortSignal): TarSource {
  let position = 0;
  return {
    skip: async (bytes) => {
      position += bytes;
      // Behind the end there is nothing to read, as behind a whole archive: a blob that was cut would count as there.
      if (position > size) throw cutShort();
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        signal.throwIfAborted();
        const chunk = Buffer.alloc(CHUNK_BYTES);
        const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
        if (bytesRead === 0) return;
        position += bytesRead;
        yield chunk.subarray(0, bytesRead);
      }
    },
  };
}

function cutShort(): AppError {
  return new AppError("invalid_model_file", "cannot read the archive: it ends within an entry", {
    hint: "Transfer the whole file again.",
  });
}

async function ofArchive(source: TarSource): Promise<Set<string>> {
  const digests = new Set<string>();
  for await (const entry of readTar(source)) {
    const digest = entry.kind === "file" ? blobDigestOf(entry.name) : undefined;
    if (digest === undefined) continue;
    digests.add(digest);
    if (entry.size > MAX_MANIFEST_BYTES) continue;
    for (const referred of referredBy(tryParseJson(await readWhole(entry)))) digests.add(referred);
  }
  return digests;
}

/** What a manifest refers to; nothing if it is none. */
function referredBy(value: unknown): string[] {
  if (!isRecord(value) || !isRecord(value["config"]) || !Array.isArray(value["layers"])) return [];
  return [value["config"], ...value["layers"].filter(isRecord)].flatMap(({ digest }) =>
    typeof digest === "string" ? [digest] : [],
  );
}

async function ofText(path: string, file: FileHandle, signal: AbortSignal): Promise<Set<string>> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of file.createReadStream({ signal, autoClose: false })) {
    parts.push(part as Buffer);
    size += (part as Buffer).length;
    if (size <= MAX_TEXT_BYTES) continue;
    throw new AppError(
      "request_too_large",
      `cannot read \`${path}\`: it is no archive, and too long for a list of digests`,
    );
  }
  return new Set(Buffer.concat(parts).toString("utf8").match(DIGESTS));
}
