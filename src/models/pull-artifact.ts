/** Pulls a model that is an OCI artifact: its manifest, then what that refers to, then its name. */
import { log } from "../log.ts";
import { isRecord } from "../oci/descriptor.ts";
import { chooseManifest, parseIndex } from "../oci/image-index.ts";
import { type Manifest, parseManifest } from "../oci/manifest.ts";
import { DOCKER_MANIFEST_LIST, OCI_INDEX } from "../oci/media-types.ts";
import { displayReference, formatReference, type Reference } from "../oci/reference.ts";
import type { FetchedManifest, Repository } from "../oci/registry.ts";
import type { StoredModel } from "../store/store.ts";
import { findComplete, notHereOffline, outdatedOffline } from "./complete.ts";
import { bringBlobs } from "./layers.ts";
import { requireModelManifest } from "./model-manifest.ts";
import { type Pulled, type PullContext } from "./pull.ts";

export interface ArtifactRequest {
  readonly reference: Reference;
  /** `os/arch[/variant]`. */
  readonly platform?: string | undefined;
}

export async function pullArtifact(
  context: PullContext,
  request: ArtifactRequest,
): Promise<Pulled> {
  const { store, remotes } = context;
  const { reference } = request;
  const name = formatReference(reference);
  const stored = await findComplete(store, name);
  // A digest names the same bytes for ever, so there is nothing to ask; offline there is nobody to ask.
  const isSettled = reference.digest !== undefined || remotes.offline;
  if (stored !== undefined && isSettled) return settle(context, request, stored);
  if (remotes.offline) throw notHereOffline(name);
  const repository = remotes.registry.repository(reference);
  const tip = await repository.resolve(reference.digest ?? reference.tag ?? "latest", context);
  if (stored !== undefined && stored.digest === tip.digest) return upToDate(name, stored);
  const { descriptor, bytes } = await fetchChosen(repository, tip.digest, {
    platform: request.platform,
    signal: context.signal,
  });
  if (stored !== undefined && stored.digest === descriptor.digest) return upToDate(name, stored);
  const manifest = parseManifest(bytes);
  requireModelManifest(manifest, displayReference(name));
  return receive(context, { repository, manifest, bytes, reference });
}

/**
 * The manifest of a digest or tag; of an index the one for this machine or the platform that was asked for.
 *
 * @throws unsupported_model if an index has none that fits
 */
export async function fetchChosen(
  repository: Repository,
  ref: string,
  options: { readonly platform: string | undefined; readonly signal: AbortSignal },
): Promise<FetchedManifest> {
  const fetched = await repository.fetchManifest(ref, options);
  if (!isIndex(fetched)) return fetched;
  const { platform } = options;
  const chosen = chooseManifest(
    parseIndex(fetched.bytes),
    platform === undefined ? {} : { platform },
  );
  return repository.fetchManifest(chosen.digest, options);
}

// --- internal ---

interface Arrival {
  readonly repository: Repository;
  readonly manifest: Manifest;
  readonly bytes: Uint8Array;
  readonly reference: Reference;
}

async function receive(context: PullContext, arrival: Arrival): Promise<Pulled> {
  const { repository, manifest, bytes, reference } = arrival;
  await using transaction = await context.store.begin();
  const blobs = [manifest.config, ...manifest.layers].map(({ digest, size }) => ({
    digest,
    size,
    sources: repository.blobSources(digest),
  }));
  const fetchedBytes = await bringBlobs(context, transaction, blobs);
  context.signal.throwIfAborted();
  const model = await transaction.commit(
    bytes,
    reference.tag === undefined ? undefined : tagged(reference),
  );
  log.debug(`pull: done digest=${model.digest} fetched=${fetchedBytes}`);
  return { model, reference: formatReference(reference), fetchedBytes, isUpToDate: false };
}

/** A digest in the name may be an index's, which is not the model's own. */
function tagged({ registry, repository, tag }: Reference): Reference {
  return tag === undefined ? { registry, repository } : { registry, repository, tag };
}

/** `name:tag@digest` of a model that is here under another name gives it that tag. */
async function settle(
  { store, remotes, onProgress }: PullContext,
  { reference }: ArtifactRequest,
  model: StoredModel,
): Promise<Pulled> {
  const name = formatReference(reference);
  if (remotes.offline && reference.digest === undefined) {
    onProgress?.({ type: "warning", message: outdatedOffline(name) });
  }
  if (reference.tag === undefined || reference.digest === undefined) return upToDate(name, model);
  const tag = formatReference(tagged(reference));
  if (model.tags.includes(tag)) return upToDate(name, model);
  await store.tag(model.digest, tagged(reference));
  return { ...upToDate(name, await store.resolve(tag)), isUpToDate: false };
}

function upToDate(reference: string, model: StoredModel): Pulled {
  return { model, reference, fetchedBytes: 0, isUpToDate: true };
}

function isIndex({ descriptor, bytes }: FetchedManifest): boolean {
  if (descriptor.mediaType === OCI_INDEX || descriptor.mediaType === DOCKER_MANIFEST_LIST)
    return true;
  const value: unknown = tryParse(bytes);
  return isRecord(value) && Array.isArray(value["manifests"]) && value["layers"] === undefined;
}

function tryParse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
