/** Publishes models: the blobs first, several at once, then the manifest under its name. */
import { type FileHandle, open, stat } from "node:fs/promises";
import type { PushRequest, PushResult } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import { AppError, errnoOf } from "../errors.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { displayReference, formatReference, type Reference } from "../oci/reference.ts";
import type { UploadSource } from "../oci/registry.ts";
import type { Store } from "../store/store.ts";
import { isImageModel } from "./image-record.ts";
import { requireOciRegistry, sendBlobs, type OutgoingBlob } from "./outgoing.ts";
import { chooseTarget, mountCandidates } from "./push-target.ts";
import type { Remotes } from "./remotes.ts";

/** Large enough for the network to be the limit, small enough to hold the event loop for a fraction of a millisecond. */
const READ_BYTES = 256 * 1024;

export interface PushOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
}

export interface PushModelOptions extends PushOptions, Pick<PushRequest, "to"> {
  /** A model of the store. */
  readonly name: string;
}

/** A model that is published, wherever its bytes are. */
export interface OutgoingArtifact {
  /** Its tag, or else its digest, is what it gets in the registry. */
  readonly reference: Reference;
  /** Published exactly as they are. */
  readonly manifest: Uint8Array;
  readonly mediaType: string;
  /** All that the manifest refers to; a digest may occur several times. */
  readonly blobs: readonly OutgoingBlob[];
}

/**
 * Pushes a model of the store, as it is, to the registry that its name or `to` says.
 *
 * @throws model_not_found, usage (no target can be told), not_supported (the target takes no pushes), blob_not_found,
 *   digest_mismatch, unauthorized, forbidden, too_many_requests, registry_unavailable, offline, cancelled
 */
export async function pushModel(
  store: Store,
  remotes: Pick<Remotes, "registry">,
  options: PushModelOptions,
): Promise<PushResult> {
  const model = await store.resolve(options.name);
  if (isImageModel(model)) throw imageIsElsewhere(options.name);
  const reference = chooseTarget(model, options);
  requireOciRegistry(reference, "push");
  const manifest = await store.readBlob(model.manifestDescriptor);
  const { config, layers, mediaType } = model.manifest;
  const mounts = mountCandidates(reference, model, await store.list());
  const blobs = [...layers, config].map(({ digest, size }) => ({
    digest,
    size,
    source: fileSource(store.blobPath(digest), size),
    mountFrom: mounts(digest),
  }));
  for (const blob of blobs) await requireWhole(store, blob);
  return pushArtifact(remotes, { reference, manifest, mediaType, blobs }, options);
}

/**
 * Pushes a manifest and what it refers to. The manifest comes last: a registry never shows a model that is not whole.
 *
 * @throws not_supported, invalid_reference (another digest is asked for), digest_mismatch, unauthorized, forbidden,
 *   too_many_requests, registry_unavailable, offline, cancelled, and what the blobs' sources throw
 */
export async function pushArtifact(
  remotes: Pick<Remotes, "registry">,
  artifact: OutgoingArtifact,
  { signal, onProgress }: PushOptions,
): Promise<PushResult> {
  const { reference, manifest, mediaType, blobs } = artifact;
  requireOciRegistry(reference, "push");
  const digest = digestOf(manifest);
  requireDigest(reference, digest);
  const repository = remotes.registry.repository(reference);
  const sent = await sendBlobs(repository, blobs, { signal, onProgress, verb: "push" });
  signal.throwIfAborted();
  await repository.pushManifest({ bytes: manifest, mediaType }, reference.tag ?? digest, {
    signal,
  });
  return {
    reference: formatReference(reference),
    digest,
    size_bytes: sent.uploadedBytes + sent.reusedBytes + manifest.length,
    uploaded_bytes: sent.uploadedBytes + manifest.length,
    reused_bytes: sent.reusedBytes,
  };
}

/**
 * A file as a source. It is opened when the first bytes are wanted, and read no faster than they are taken. A stream fails
 * with `not_found` if the file is gone, with `conflict` if it has become shorter.
 */
export function fileSource(path: string, size: number): UploadSource {
  return { size, open: (start, end) => readRange(path, { start, end }) };
}

/** A digest in the name of a target can only be the one that it has. @throws invalid_reference */
export function requireDigest(target: Reference, digest: Digest): void {
  if (target.digest === undefined || target.digest === digest) return;
  const name = displayReference(formatReference(target));
  throw new AppError(
    "invalid_reference",
    `cannot publish as \`${name}\`: the digest is \`${digest}\``,
    { hint: "Leave out what follows `@`." },
  );
}

// --- internal ---

function imageIsElsewhere(name: string): AppError {
  const reason = "it is a container image, of which Tug has only the name";
  return new AppError("not_supported", `cannot push \`${name.slice(0, 200)}\`: ${reason}`, {
    hint: "Push the image with `podman push` or `docker push`.",
  });
}

function readRange(path: string, range: { start: number; end: number }) {
  let handle: FileHandle | undefined;
  let at = range.start;
  const close = async (): Promise<void> => {
    const opened = handle;
    handle = undefined;
    await opened?.close();
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          handle ??= await open(path, "r");
          // A new one each time: the connection still holds the last.
          const buffer = new Uint8Array(Math.min(READ_BYTES, range.end - at));
          const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
          if (bytesRead === 0 && at < range.end) throw shortened(path, at);
          at += bytesRead;
          if (bytesRead > 0) controller.enqueue(buffer.subarray(0, bytesRead));
        } catch (error) {
          await close();
          throw explainRead(path, error);
        }
        if (at < range.end) return;
        await close();
        controller.close();
      },
      cancel: close,
    },
    { highWaterMark: 0 },
  );
}

function shortened(path: string, size: number): AppError {
  return new AppError(
    "conflict",
    `cannot upload \`${path}\`: it has become shorter, ${size} bytes`,
    {
      hint: "Try again when nothing writes to it.",
    },
  );
}

function explainRead(path: string, error: unknown): unknown {
  if (errnoOf(error) !== "ENOENT") return error;
  return new AppError("not_found", `cannot upload \`${path}\`: it is not there any more`, {
    hint: "Check the path, or run `tug verify` if it is in the model store.",
    cause: error,
  });
}

/** Before the first byte is sent: what is damaged in the store is no matter of the registry. */
async function requireWhole(store: Store, { digest, size }: OutgoingBlob): Promise<void> {
  let found: number;
  try {
    found = (await stat(store.blobPath(digest))).size;
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") throw cause;
    throw new AppError("blob_not_found", `cannot push blob \`${digest}\`: it is not in the store`, {
      hint: "Run `tug verify` to see what is missing.",
      cause,
    });
  }
  if (found === size) return;
  throw new AppError(
    "digest_mismatch",
    `cannot push blob \`${digest}\`: it has ${found} bytes, not ${size}`,
    { hint: "Run `tug verify` to see what is damaged, and get the model again." },
  );
}
