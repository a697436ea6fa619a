/** Unpacks a tar, plain or compressed, as a stream. */
import { mkdir } from "node:fs/promises";

import { decompressed } from "../../archive/decompress.ts";
import { readTar } from "../../archive/tar.ts";
import type { TarEntry } from "../../archive/tar.ts";
import { AppError } from "../../errors.ts";
import {
  ENTRY_LIMIT,
  UNPACKED_LIMIT_BYTES,
  createFile,
  makeLinks,
  placeOf,
  refuse,
} from "./unpack.ts";
import type { Link, UnpackRequest } from "./unpack.ts";

/**
 * Files, directories and symbolic links within the archive are made; every other kind of entry is refused.
 *
 * @throws install_failed if the archive is damaged, too large, or reaches out of the directory
 */
export async function unpackTar({ archive, directory, signal }: UnpackRequest): Promise<void> {
  const links: Link[] = [];
  let count = 0;
  for await (const entry of readArchive(archive, UNPACKED_LIMIT_BYTES, signal)) {
    count += 1;
    if (count > ENTRY_LIMIT) throw refuse("it is too large");
    const path = placeOf(directory, entry.name);
    if (entry.kind === "other" || entry.isHardLink) {
      throw refuse(`\`${entry.name}\` is neither file nor directory`);
    }
    if (entry.kind === "link") links.push({ path, target: entry.target });
    if (entry.kind === "directory") await mkdir(path, { recursive: true });
    if (entry.kind === "file") await writeEntry(entry, path);
  }
  await makeLinks(directory, links);
}

/** @throws install_failed where it is damaged, or larger than `maxBytes`; what the signal was aborted with */
export async function* readArchive(
  path: string,
  maxBytes: number,
  signal: AbortSignal,
): AsyncGenerator<TarEntry> {
  const packed = Bun.file(path).stream() as AsyncIterable<Uint8Array>;
  try {
    yield* readTar(untilAborted(decompressed(packed, { maxBytes }), signal));
  } catch (error) {
    throw asRefusal(error);
  }
}

/** @param path does not exist; its directory is made if need be @throws install_failed where the archive is damaged */
export async function writeEntry(entry: TarEntry, path: string): Promise<void> {
  await using file = await createFile(path, entry.isExecutable);
  try {
    for await (const chunk of entry.body) await file.appendFile(chunk);
  } catch (error) {
    throw asRefusal(error);
  }
}

// --- internal ---

/** By chunk: what is passed over may be gigabytes. */
async function* untilAborted(
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    signal.throwIfAborted();
    yield chunk;
  }
}

/** What is wrong with an archive is, here, what is wrong with an installation. */
function asRefusal(error: unknown): unknown {
  if (!(error instanceof AppError) || error.code !== "invalid_model_file") return error;
  return refuse(error.message.replace(/^cannot read the archive: /, ""));
}
