/** Copies a model from registry to registry, byte by byte the same, without keeping anything on this machine. */
import type { CopyRequest, PushResult } from "../api/models.ts";
import { AppError } from "../errors.ts";
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { parseIndex } from "../oci/image-index.ts";
import { type Manifest, parseManifest } from "../oci/manifest.ts";
import { DOCKER_MANIFEST_LIST, OCI_INDEX } from "../oci/media-types.ts";
import { formatReference, parseReference, type Reference } from "../oci/reference.ts";
import type { FetchedManifest, Repository } from "../oci/registry.ts";
import { requireOciRegistry, sendBlobs } from "./outgoing.ts";
import { fetchChosen } from "./pull-artifact.ts";
import { type PushOptions, requireDigest } from "./push.ts";
import { RemoteSource } from "./remote-source.ts";
import type { Remotes } from "./remotes.ts";

/** Each is a connection to both registries. */
const BLOBS_AT_ONCE = 4;

/** An index lists platforms; one that lists hundreds, or lists lists of lists, is no model's. */
const MAX_MANIFESTS = 256;
const MAX_DEPTH = 3;

/**
 * Copies a manifest, or an index with all it lists unless a platform is chosen. The target's digest is the source's.
 *
 * @throws invalid_reference, not_found, not_supported, unsupported_model, digest_mismatch (before anything is published),
 *   unauthorized, forbidden, too_many_requests, registry_unavailable, offline, cancelled
 */
export async function copyModel(
  { registry }: Pick<Remotes, "registry">,
  request: CopyRequest,
  options: PushOptions,
): Promise<PushResult> {
  const { signal, onProgress } = options;
  const source = parseReference(request.source);
  const target = parseReference(request.target);
  for (const reference of [source, target]) requireOciRegistry(reference, "copy");
  const from = registry.repository(source);
  const to = registry.repository(target);
  const root = await fetchRoot(from, source, { platform: request.platform, signal });
  requireDigest(target, root.descriptor.digest);
  const manifests = await collect(from, root, signal);
  const blobs = contentOf(manifests).map(({ digest, size }) => ({
    digest,
    size,
    source: new RemoteSource({ digest, size, sources: from.blobSources(digest), signal }),
    ...(source.registry === target.registry ? { mountFrom: [source.repository] } : {}),
  }));
  const sent = await atSource(source, () =>
    sendBlobs(to, blobs, { signal, onProgress, verb: "copy", limit: BLOBS_AT_ONCE }),
  );
  const manifestBytes = await publish(to, { manifests, target, signal });
  return {
    reference: formatReference(target),
    digest: root.descriptor.digest,
    size_bytes: sent.uploadedBytes + sent.reusedBytes + manifestBytes,
    uploaded_bytes: sent.uploadedBytes + manifestBytes,
    reused_bytes: sent.reusedBytes,
  };
}

// --- internal ---

async function fetchRoot(
  from: Repository,
  source: Reference,
  { platform, signal }: { readonly platform: string | undefined; readonly signal: AbortSignal },
): Promise<FetchedManifest> {
  const ref = source.digest ?? source.tag ?? "latest";
  return platform === undefined
    ? from.fetchManifest(ref, { signal })
    : fetchChosen(from, ref, { platform, signal });
}

/** The root and all it lists, each once, what is listed before what lists it. */
async function collect(
  from: Repository,
  root: FetchedManifest,
  signal: AbortSignal,
): Promise<readonly FetchedManifest[]> {
  const found = new Map<Digest, FetchedManifest>();
  const visit = async (fetched: FetchedManifest, depth: number): Promise<void> => {
    for (const { digest } of childrenOf(fetched)) {
      if (found.has(digest)) continue;
      if (depth === MAX_DEPTH || found.size === MAX_MANIFESTS) throw tooMany();
      await visit(await from.fetchManifest(digest, { signal }), depth + 1);
    }
    found.set(fetched.descriptor.digest, fetched);
  };
  await visit(root, 0);
  return [...found.values()];
}

function childrenOf(fetched: FetchedManifest): readonly Descriptor[] {
  return isIndex(fetched) ? parseIndex(fetched.bytes).manifests : [];
}

function isIndex({ descriptor }: FetchedManifest): boolean {
  return descriptor.mediaType === OCI_INDEX || descriptor.mediaType === DOCKER_MANIFEST_LIST;
}

function contentOf(manifests: readonly FetchedManifest[]): readonly Descriptor[] {
  return manifests
    .filter((fetched) => !isIndex(fetched))
    .map(({ bytes }): Manifest => parseManifest(bytes))
    .flatMap(({ layers, config }) => [...layers, config]);
}

/** The last one, which is the root, by its name. */
async function publish(
  to: Repository,
  options: {
    readonly manifests: readonly FetchedManifest[];
    readonly target: Reference;
    readonly signal: AbortSignal;
  },
): Promise<number> {
  const { manifests, target, signal } = options;
  let size = 0;
  for (const [index, { descriptor, bytes }] of manifests.entries()) {
    signal.throwIfAborted();
    const { digest, mediaType } = descriptor;
    const ref = index === manifests.length - 1 ? (target.tag ?? digest) : digest;
    await to.pushManifest({ bytes, mediaType }, ref, { signal });
    size += bytes.length;
  }
  return size;
}

/** Bytes that are not what they should be came from the source, not from the store. */
async function atSource<T>({ registry }: Reference, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "digest_mismatch") throw error;
    throw new AppError(error.code, error.message, {
      hint: `Ask whoever runs ${registry}: nothing was published.`,
      details: error.details,
      cause: error,
    });
  }
}

function tooMany(): AppError {
  return new AppError(
    "unsupported_model",
    `cannot copy the index: it lists more than ${MAX_MANIFESTS} manifests, or lists in lists`,
    { hint: "Choose one of them with `--platform OS/ARCH`." },
  );
}
