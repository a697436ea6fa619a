/**
 * Of Ollama's API: files that a model is to be made of, uploaded one by one and verified.
 *
 * @see https://github.com/ollama/ollama/blob/main/docs/api.md#create-a-blob
 */
import type { Context, Hono } from "hono";
import { AppError } from "../../../errors.ts";
import { type Digest, tryParseDigest } from "../../../oci/digest.ts";
import type { Store } from "../../../store/store.ts";
import type { AppDeps, AppEnv } from "../../deps.ts";
import { requireModels } from "./requests.ts";

/** Larger than any file of weights; it ends what would only fill the disk. Bytes. */
const MAX_BLOB_BYTES = 512 * 1024 ** 3;
/** Each writes to the disk, and waits for it. */
const MAX_UPLOADS = 8;
/** Without a byte; a disk that is slow makes the client wait, not the server. */
const SILENCE_MS = 60_000;

export function addOllamaBlobRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  let uploads = 0;
  // `HEAD` is what clients send.
  app.get("/api/blobs/:digest", async (c) => {
    const digest = digestOf(c);
    if (await requireModels(deps).store.hasBlob(digest)) return c.body(null, 200);
    throw new AppError("blob_not_found", `cannot find blob \`${digest}\`: it is not here`, {
      hint: "Send it with POST.",
    });
  });
  app.post("/api/blobs/:digest", async (c) => {
    const digest = digestOf(c);
    const { store } = requireModels(deps);
    if (uploads >= MAX_UPLOADS) throw tooManyUploads();
    uploads += 1;
    try {
      return c.body(null, (await receive(c, store, digest)) ? 201 : 200);
    } finally {
      uploads -= 1;
    }
  });
}

// --- internal ---

/** The store keeps it for a week, or for as long as a model has it. @returns whether it is new */
async function receive(c: Context<AppEnv>, store: Store, digest: Digest): Promise<boolean> {
  const { body, signal } = c.req.raw;
  await using transaction = await store.begin();
  if (await store.hasBlob(digest)) {
    await transaction.pin([digest]);
    // What is swept between the look and the pin is sent again.
    if (await store.hasBlob(digest)) {
      await body?.cancel();
      await transaction.keep(digest);
      return false;
    }
  }
  const chunks = withinLimits(body ?? new Blob().stream());
  const written = await transaction.ingestStream(chunks, { signal });
  // The transaction takes away what nobody asked for.
  if (written.digest !== digest) throw mismatch(digest, written.digest);
  await transaction.keep(digest);
  return true;
}

async function* withinLimits(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await inTime(reader.read());
      if (done) return;
      size += value.length;
      if (size > MAX_BLOB_BYTES) throw tooLarge();
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function inTime<T>(reading: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(silent()), SILENCE_MS);
  try {
    return await Promise.race([reading, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Older clients write a dash. @throws invalid_request */
function digestOf(c: Context<AppEnv>): Digest {
  const text = c.req.param("digest") ?? "";
  const digest = tryParseDigest(text.replace(/^sha256-/, "sha256:"));
  if (digest !== undefined) return digest;
  throw new AppError("invalid_request", `cannot read digest \`${text.slice(0, 200)}\``, {
    hint: "Give `sha256:` and 64 lower-case hexadecimal digits.",
  });
}

function mismatch(expected: Digest, found: Digest): AppError {
  return new AppError(
    "invalid_request",
    `cannot store blob \`${expected}\`: what came is \`${found}\``,
    { hint: "Send the bytes that the digest is of." },
  );
}

function tooLarge(): AppError {
  return new AppError(
    "request_too_large",
    `cannot store a blob: it has more than ${MAX_BLOB_BYTES} bytes`,
  );
}

function tooManyUploads(): AppError {
  return new AppError("too_many_requests", `cannot store a blob: ${MAX_UPLOADS} are coming in`, {
    hint: "Wait until one of them is done.",
  });
}

function silent(): AppError {
  const seconds = SILENCE_MS / 1000;
  return new AppError("timed_out", `cannot store a blob: nothing came for ${seconds} seconds`, {
    hint: "Send it again.",
  });
}
