/** Brings a model into the store, from wherever its name says. */
import type { PullRequest, PullResult } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { findStored } from "./complete.ts";
import { BUILTIN_NAME, ensureBuiltin, isBuiltin } from "./builtin.ts";
import { isImageName } from "./image-record.ts";
import { pullArtifact } from "./pull-artifact.ts";
import type { ImageSettings } from "./pull-image.ts";
import type { AdoptedFile } from "./adopt.ts";
import type { Remotes } from "./remotes.ts";

export interface PullContext {
  readonly store: Store;
  readonly remotes: Remotes;
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
  /** A file of another program on this machine that should have these bytes. */
  readonly findAdopted?: (blob: { digest: string; size: number }) => AdoptedFile | undefined;
  /** Absent: no name is a container image's. */
  readonly images?: ImageSettings | undefined;
}

/** What a pull came to. */
export interface Pulled {
  readonly model: StoredModel;
  /** Canonical. */
  readonly reference: string;
  readonly fetchedBytes: number;
  readonly isUpToDate: boolean;
}

/**
 * Pulls from an OCI registry, Hugging Face (`hf.co/…`), the Ollama library (`ollama.com/…`) or a plain URL. What
 * is interrupted goes on at the next attempt; a model that has not changed costs one request.
 *
 * @throws invalid_reference, not_found, unauthorized, forbidden, too_many_requests, registry_unavailable, offline,
 *   unsupported_model, digest_mismatch, insufficient_storage, cancelled
 */
export async function pullModel(context: PullContext, request: PullRequest): Promise<PullResult> {
  const { model, reference, fetchedBytes, isUpToDate } = await pull(context, request);
  return {
    reference,
    id: model.digest,
    size_bytes: model.sizeBytes,
    fetched_bytes: fetchedBytes,
    up_to_date: isUpToDate,
  };
}

// --- internal ---

async function pull(context: PullContext, request: PullRequest): Promise<Pulled> {
  const name = request.from.trim();
  if (isBuiltin(name)) return pullBuiltin(context);
  const foreign = await tryForeign(context, name);
  if (foreign !== undefined) return foreign;
  const reference = parseReference(name);
  const { images } = context;
  if (images !== undefined && isImageName(reference, images.prefixes)) {
    const { pullImageModel } = await import("./pull-image.ts");
    return pullImageModel({ ...context, images }, { reference, platform: request.platform });
  }
  return pullArtifact(context, { reference, platform: request.platform });
}

async function pullBuiltin({ store, signal }: PullContext): Promise<Pulled> {
  const reference = formatReference(parseReference(BUILTIN_NAME));
  const before = await findStored(store, reference);
  const model = await ensureBuiltin(store, { signal });
  return { model, reference, fetchedBytes: 0, isUpToDate: before?.digest === model.digest };
}

/** Sources that are not OCI artifacts. Each is loaded only for names that could be its own. */
async function tryForeign(context: PullContext, name: string): Promise<Pulled | undefined> {
  if (
    !/^(?:[a-z]+:\/\/|hf\.co\/|(?:www\.)?huggingface\.co\/|(?:www\.|registry\.)?ollama\.)/i.test(
      name,
    )
  )
    return undefined;
  const { pullForeign } = await import("./pull-foreign.ts");
  return pullForeign(context, name);
}
