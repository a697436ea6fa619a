/** The layers of a model: what each is, and where its file goes. Pure. */
import { type Descriptor, isRecord } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { Manifest } from "./manifest.ts";
import { FILE_PATH, TITLE } from "./media-types.ts";

export interface ModelLayer {
  /** Its own or, where that is of no model, the one the config declares. */
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** As annotated: not checked. */
  readonly path: string | undefined;
}

/**
 * @param config the parsed config blob, whose `files` may say what layers are, as in the text of Docker's specification
 * @see https://github.com/docker/model-spec/blob/main/config.md
 */
export function modelLayers(
  manifest: Manifest,
  config: Readonly<Record<string, unknown>> = {},
): readonly ModelLayer[] {
  const declared = declaredTypes(config);
  return manifest.layers.map((layer) => ({
    mediaType: OWN_TYPE.test(layer.mediaType)
      ? layer.mediaType
      : (declared.get(layer.digest) ?? layer.mediaType),
    digest: layer.digest,
    size: layer.size,
    path: layerPath(layer),
  }));
}

/** The path of a layer's file, if it has one. */
export function layerPath({ annotations }: Descriptor): string | undefined {
  return annotations?.[FILE_PATH] || annotations?.[TITLE] || undefined;
}

// --- internal ---

/** Types that say what a layer is. */
const OWN_TYPE = /^application\/vnd\.(?:docker\.ai|cncf\.model)\./;

function declaredTypes({ files }: Readonly<Record<string, unknown>>): ReadonlyMap<string, string> {
  const types = new Map<string, string>();
  for (const file of Array.isArray(files) ? files : []) {
    if (!isRecord(file)) continue;
    const digest = file["diffID"] ?? file["diffId"];
    const { type } = file;
    if (typeof digest === "string" && typeof type === "string") types.set(digest, type);
  }
  return types;
}
