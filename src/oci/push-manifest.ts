/**
 * Publishes a manifest, and keeps the list of what refers to a subject where the registry does not.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests
 */
import { AppError } from "../errors.ts";
import { discard } from "../http/body.ts";
import { type Descriptor, isRecord, parseAnnotations, parseDescriptor } from "./descriptor.ts";
import { type Digest, digestOf, tryParseDigest } from "./digest.ts";
import type { Exchange } from "./exchange.ts";
import { encodeCanonical, MAX_MANIFEST_BYTES } from "./manifest.ts";
import { OCI_INDEX } from "./media-types.ts";
import { fetchFallback, fallbackTag } from "./referrers.ts";
import type { CallOptions } from "./registry.ts";

/** Others may write the list at the same time; registries that know conditions let one of them win. */
const MAX_LIST_ATTEMPTS = 4;

export interface OutgoingManifest {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
}

/**
 * @param options.ref a tag, or the digest
 * @returns its digest
 * @throws request_too_large, digest_mismatch, invalid_model_file (its subject cannot be read), conflict (the list of
 *   referrers cannot be kept), unauthorized, forbidden, too_many_requests, registry_unavailable, offline, cancelled
 */
export async function pushManifest(
  exchange: Exchange,
  manifest: OutgoingManifest,
  { ref, signal }: CallOptions & { readonly ref: string },
): Promise<Digest> {
  const { bytes } = manifest;
  const digest = digestOf(bytes);
  refuseTooLarge(bytes);
  const asked = tryParseDigest(ref);
  if (asked !== undefined && asked !== digest) throw mismatch(asked, digest, "it would get");
  // Before anything is published.
  const referrer = toReferrer(manifest, digest);
  const response = await put(exchange, manifest, { ref, signal });
  const stored = tryParseDigest(response.headers.get("docker-content-digest") ?? "");
  if (stored !== undefined && stored !== digest)
    throw mismatch(digest, stored, `${exchange.registry} stored`);
  const isListed = response.headers.has("oci-subject");
  if (referrer !== undefined && !isListed) await addReferrer(exchange, referrer, { signal });
  return digest;
}

// --- internal ---

interface Referrer {
  readonly subject: Descriptor;
  /** What the list of the subject's referrers says about the manifest. */
  readonly entry: Descriptor;
}

async function put(
  exchange: Exchange,
  { bytes, mediaType }: OutgoingManifest,
  options: CallOptions & { readonly ref: string; readonly ifMatch?: string | undefined },
): Promise<Response> {
  const { ref, signal, ifMatch } = options;
  const response = await exchange.send(`/manifests/${ref}`, {
    method: "PUT",
    access: "push",
    headers: {
      "content-type": mediaType,
      ...(ifMatch === undefined ? {} : { "if-match": ifMatch }),
    },
    body: () => new Uint8Array(bytes),
    signal,
    accept: ifMatch === undefined ? [] : [412],
  });
  await discard(response);
  return response;
}

/** @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests-with-subject */
async function addReferrer(
  exchange: Exchange,
  { subject, entry }: Referrer,
  { signal }: CallOptions,
): Promise<void> {
  const ref = fallbackTag(subject.digest);
  for (let attempt = 1; attempt <= MAX_LIST_ATTEMPTS; attempt += 1) {
    const list = await fetchFallback(exchange, subject.digest, { signal });
    if (list.manifests.some((each) => isRecord(each) && each["digest"] === entry.digest)) return;
    const manifests = [...list.manifests, entry];
    const bytes = encodeCanonical({ ...list.index, manifests });
    refuseTooLarge(bytes);
    const index = { bytes, mediaType: OCI_INDEX };
    const response = await put(exchange, index, { ref, signal, ifMatch: list.etag });
    if (response.status !== 412) return;
  }
  throw new AppError(
    "conflict",
    `cannot list \`${entry.digest}\` under \`${ref}\`: others keep changing that list`,
    { hint: "Push it again." },
  );
}

function toReferrer({ bytes, mediaType }: OutgoingManifest, digest: Digest): Referrer | undefined {
  const value = tryJson(bytes);
  if (!isRecord(value) || value["subject"] === undefined || value["subject"] === null)
    return undefined;
  const { artifactType, config, annotations } = value;
  const configType = isRecord(config) ? config["mediaType"] : undefined;
  const kept = parseAnnotations(annotations, "the manifest");
  const type = [artifactType, configType].find((text) => typeof text === "string" && text !== "");
  return {
    subject: parseDescriptor(value["subject"], "the manifest's subject"),
    entry: {
      mediaType,
      digest,
      size: bytes.length,
      ...(typeof type === "string" ? { artifactType: type } : {}),
      ...(kept === undefined ? {} : { annotations: kept }),
    },
  };
}

function tryJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    // What it is, is for the registry to say.
    return undefined;
  }
}

function refuseTooLarge(bytes: Uint8Array): void {
  if (bytes.length <= MAX_MANIFEST_BYTES) return;
  throw new AppError(
    "request_too_large",
    `cannot push the manifest: its ${bytes.length} bytes are over the limit of ${MAX_MANIFEST_BYTES}`,
    { hint: "Package fewer files: registries take no larger manifests." },
  );
}

function mismatch(expected: Digest, actual: Digest, what: string): AppError {
  return new AppError(
    "digest_mismatch",
    `cannot push the manifest as \`${expected}\`: ${what} \`${actual}\``,
    { details: { expected, actual } },
  );
}
