/** Archives as files: written whole or not at all. */
import { type FileHandle, open, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Archive } from "../client/client.ts";
import { AppError, errnoOf, toAppError } from "../errors.ts";
import { openOutput } from "../terminal/output.ts";

/** Large enough to be fast, small enough to be nothing. */
const READ_BYTES = 256 * 1024;

/** @param onBytes bytes written so far */
export type BytesListener = (done: number) => void;

/**
 * Writes beside the file, and takes its place when all is there and on the disk. A device or a pipe is written to as it
 * is.
 *
 * @throws what the archive fails with, runner_unreachable if it ends early, forbidden, not_found, insufficient_storage
 */
export async function writeArchiveFile(
  path: string,
  archive: Archive,
  onBytes: BytesListener,
): Promise<void> {
  const target = await resolveTarget(path);
  const temporary = target.isSpecial
    ? target.path
    : join(dirname(target.path), `.${basename(target.path)}.${process.pid}.part`);
  try {
    await writeWhole(temporary, archive, { onBytes, isSpecial: target.isSpecial });
    if (!target.isSpecial) await rename(temporary, target.path);
  } catch (thrown) {
    if (!target.isSpecial) await rm(temporary, { force: true });
    throw explain(thrown, path);
  }
}

/** @throws what the archive fails with; cancelled if nobody reads any more */
export async function writeArchiveToStdout(archive: Archive): Promise<void> {
  const output = openOutput();
  await forward(archive, async (chunk) => {
    if (!(await output.write(chunk))) throw new AppError("cancelled", "cancelled");
  });
}

/** Bytes of a file or a named pipe, as fast as they are taken. @throws not_found, forbidden */
export async function openArchiveFile(path: string): Promise<ReadableStream<Uint8Array>> {
  try {
    if ((await stat(path)).isDirectory()) {
      throw new AppError("invalid_request", `cannot import \`${path}\`: it is a directory`, {
        hint: "Give a tar archive; `tar -C DIR -cf - . | tug import -` makes one of an image layout.",
      });
    }
    // Opened here, so that a file that may not be read is an error now; once, because a pipe ends for who writes into it.
    return toStream(await open(path, "r"));
  } catch (thrown) {
    throw explain(thrown, path);
  }
}

// --- internal ---

interface Target {
  readonly path: string;
  /** Neither a file nor absent: renaming over `/dev/null` would be a catastrophe. */
  readonly isSpecial: boolean;
}

function toStream(file: FileHandle): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const buffer = new Uint8Array(READ_BYTES);
        const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
        if (bytesRead > 0) return controller.enqueue(buffer.subarray(0, bytesRead));
        await file.close();
        return controller.close();
      },
      cancel: () => file.close(),
    },
    { highWaterMark: 0 },
  );
}

async function resolveTarget(path: string): Promise<Target> {
  try {
    // A symlink stays one: what it points to is replaced.
    const real = await realpath(path);
    const found = await stat(real);
    if (!found.isDirectory()) return { path: real, isSpecial: !found.isFile() };
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return { path: resolve(path), isSpecial: false };
    throw explain(cause, path);
  }
  throw new AppError("invalid_request", `cannot write \`${path}\`: it is a directory`, {
    hint: "Give the name of a file, such as `-o models.tar`.",
  });
}

async function writeWhole(
  path: string,
  archive: Archive,
  { onBytes, isSpecial }: { onBytes: BytesListener; isSpecial: boolean },
): Promise<void> {
  await using file = await open(path, isSpecial ? "w" : "wx", 0o644);
  let done = 0;
  await forward(archive, async (chunk) => {
    await writeAll(file, chunk);
    done += chunk.length;
    onBytes(done);
  });
  if (!isSpecial) await file.sync();
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let offset = 0;
  while (offset < chunk.length) {
    const { bytesWritten } = await file.write(chunk, offset);
    offset += bytesWritten;
  }
}

async function forward(
  { sizeBytes, chunks }: Archive,
  write: (chunk: Uint8Array) => Promise<void>,
): Promise<void> {
  let done = 0;
  for await (const chunk of chunks) {
    done += chunk.length;
    await write(chunk);
  }
  if (done === sizeBytes) return;
  throw new AppError("runner_unreachable", "the archive was cut off on its way", {
    hint: "Run the command again; `tug verify` says whether the models are damaged.",
  });
}

function explain(thrown: unknown, path: string): unknown {
  const error = toAppError(thrown);
  if (errnoOf(thrown) !== "ENOENT") return error;
  return new AppError("not_found", `cannot open \`${path}\`: there is no such file or directory`, {
    hint: `Check the path \`${resolve(path)}\`.`,
    cause: thrown,
  });
}
