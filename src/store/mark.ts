/** The mark of mark and sweep: what the index refers to, directly and through manifests. */
import { type Descriptor, isRecord, parseDescriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { MAX_MANIFEST_BYTES } from "../oci/manifest.ts";
import { type BlobId, isDamage, readBlob } from "./blobs.ts";
import type { Index } from "./index-file.ts";
import type { Layout } from "./layout.ts";

export interface Marks {
  /** For each manifest of the index: the blobs that belong to it, itself included, with their sizes. */
  readonly roots: ReadonlyMap<Digest, ReadonlyMap<Digest, number>>;
  /** Manifests that cannot be read, so that nobody knows what they refer to. */
  readonly damaged: readonly Digest[];
}

/**
 * Follows every entry of the index, also ones that are no models: image indexes and images which another program put into
 * the layout keep their blobs.
 */
export async function mark(layout: Layout, index: Index): Promise<Marks> {
  const roots = new Map<Digest, ReadonlyMap<Digest, number>>();
  const damaged: Digest[] = [];
  for (const { descriptor } of index.entries) {
    if (roots.has(descriptor.digest)) continue;
    const blobs = new Map<Digest, number>();
    roots.set(descriptor.digest, blobs);
    await follow({ layout, blobs, damaged }, descriptor);
  }
  return { roots, damaged };
}

/** Every digest that is marked. */
export function markedDigests({ roots }: Marks): Set<Digest> {
  return new Set([...roots.values()].flatMap((blobs) => [...blobs.keys()]));
}

// --- internal ---

interface Walk {
  readonly layout: Layout;
  readonly blobs: Map<Digest, number>;
  readonly damaged: Digest[];
}

async function follow(walk: Walk, manifest: BlobId): Promise<void> {
  if (walk.blobs.has(manifest.digest)) return;
  walk.blobs.set(manifest.digest, manifest.size);
  let children: Children;
  try {
    const bytes = await readBlob(walk.layout, manifest, { maxBytes: MAX_MANIFEST_BYTES });
    children = childrenOf(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (error) {
    if (!isDamage(error) && !(error instanceof SyntaxError)) throw error;
    walk.damaged.push(manifest.digest);
    return;
  }
  for (const { digest, size } of children.blobs) walk.blobs.set(digest, size);
  for (const child of children.manifests) await follow(walk, child);
}

interface Children {
  readonly blobs: readonly BlobId[];
  readonly manifests: readonly BlobId[];
}

/**
 * A `subject` is not followed: it need not be in the store. What other kinds of manifests have is not looked at where
 * there are layers: a model that says nonsense there must not keep its store from being swept.
 *
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md
 */
function childrenOf(value: unknown): Children {
  if (!isRecord(value)) return { blobs: [], manifests: [] };
  const config = value["config"] === undefined ? [] : [value["config"]];
  const { layers } = value;
  if (Array.isArray(layers))
    return { blobs: [...config, ...layers].map(toDescriptor), manifests: [] };
  return {
    blobs: [...config, ...arrayOf(value["blobs"])].map(toDescriptor),
    manifests: arrayOf(value["manifests"]).map(toDescriptor),
  };
}

function toDescriptor(value: unknown): Descriptor {
  return parseDescriptor(value, "a manifest in the store");
}

function arrayOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
