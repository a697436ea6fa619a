/** A model in the store, as everything above sees it. */
import type { Descriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { type Manifest, MAX_MANIFEST_BYTES, parseManifest } from "../oci/manifest.ts";
import { displayReference, formatReference, type Reference } from "../oci/reference.ts";
import { type BlobId, readBlob } from "./blobs.ts";
import { type Index, tagsOf } from "./index-file.ts";
import type { Layout } from "./layout.ts";

export interface StoredModel {
  /** Of the manifest: the model's identity. */
  readonly digest: Digest;
  /** Canonical references, sorted by display name; empty for an untagged model. */
  readonly tags: readonly string[];
  readonly manifest: Manifest;
  readonly manifestDescriptor: Descriptor;
  /** Bytes of all its blobs, manifest included; a blob counts once. */
  readonly sizeBytes: number;
}

/** @throws blob_not_found, digest_mismatch, invalid_model_file, unsupported_model */
export async function loadModel(
  layout: Layout,
  index: Index,
  { digest, size }: BlobId,
): Promise<StoredModel> {
  const bytes = await readBlob(layout, { digest, size }, { maxBytes: MAX_MANIFEST_BYTES });
  return createModel({ digest, size }, parseManifest(bytes), tagsOf(index, digest));
}

export function createModel(
  { digest, size }: BlobId,
  manifest: Manifest,
  tags: readonly string[],
): StoredModel {
  const { mediaType, artifactType, config, layers } = manifest;
  const sizes = new Map(
    [{ digest, size }, config, ...layers].map((blob) => [blob.digest, blob.size]),
  );
  return {
    digest,
    tags: tags.toSorted(byDisplayName),
    manifest,
    manifestDescriptor: {
      mediaType,
      digest,
      size,
      ...(artifactType === undefined ? {} : { artifactType }),
    },
    sizeBytes: [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0),
  };
}

/** The name in the index for a reference; none for a digest alone. */
export function tagOf(ref: Reference | undefined): string | undefined {
  if (ref?.tag === undefined) return undefined;
  const { registry, repository, tag } = ref;
  return formatReference({ registry, repository, tag });
}

/** By what people see, then by tag; untagged models last, by digest. */
export function byName(a: StoredModel, b: StoredModel): number {
  const [tagA, tagB] = [a.tags[0], b.tags[0]];
  if (tagA !== undefined && tagB !== undefined) return byDisplayName(tagA, tagB);
  if (tagA === tagB) return compare(a.digest, b.digest);
  return tagA === undefined ? 1 : -1;
}

// --- internal ---

function byDisplayName(a: string, b: string): number {
  const [nameA, tagA] = splitDisplay(a);
  const [nameB, tagB] = splitDisplay(b);
  return compare(nameA, nameB) || compare(tagA, tagB);
}

function splitDisplay(tag: string): [name: string, tag: string] {
  const display = displayReference(tag);
  const colon = display.indexOf(":", display.lastIndexOf("/") + 1);
  return colon === -1 ? [display, "latest"] : [display.slice(0, colon), display.slice(colon + 1)];
}

/** By code unit: the same on every machine, whatever its locale. */
function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
