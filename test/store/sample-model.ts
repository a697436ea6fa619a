import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Descriptor } from "../../src/oci/descriptor.ts";
import { encodeCanonical } from "../../src/oci/manifest.ts";
import { DOCKER_CONFIG_V01, DOCKER_GGUF, OCI_MANIFEST } from "../../src/oci/media-types.ts";
import { parseReference } from "../../src/oci/reference.ts";
import type { Store, StoredModel } from "../../src/store/store.ts";

export interface SampleOptions {
  /** Committed untagged unless given. */
  readonly name?: string;
  /** The weights; distinct text makes a distinct model. */
  readonly weights?: string;
  readonly config?: unknown;
  readonly configType?: string;
  readonly artifactType?: string;
  /** Layers beside the weights: contents, media type, annotations. */
  readonly layers?: readonly SampleLayer[];
}

export interface SampleLayer {
  readonly content: string | Uint8Array;
  readonly mediaType: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Commits a small model: one GGUF layer that holds the text `weights`, unless `layers` is given. */
export async function commitSample(
  store: Store,
  options: SampleOptions = {},
): Promise<StoredModel> {
  const {
    name,
    config = { config: { format: "gguf" } },
    configType = DOCKER_CONFIG_V01,
    artifactType,
  } = options;
  const layers = options.layers ?? [
    { content: options.weights ?? "weights", mediaType: DOCKER_GGUF },
  ];
  await using transaction = await store.begin();
  const written: Descriptor[] = [];
  for (const { content, mediaType, annotations } of layers) {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const blob = await transaction.writeBlob(bytes);
    written.push({ mediaType, ...blob, ...(annotations === undefined ? {} : { annotations }) });
  }
  const manifest = encodeCanonical({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType,
    config: { mediaType: configType, ...(await transaction.writeBlob(encodeCanonical(config))) },
    layers: written,
  });
  return await transaction.commit(manifest, name === undefined ? undefined : parseReference(name));
}

/** Every file below a directory, relative, sorted, without the store's own lock. */
export async function filesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1));
  return files.filter((file) => file !== "lock").toSorted();
}

export async function* chunksOf(...texts: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield new TextEncoder().encode(text);
}
