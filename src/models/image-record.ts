/**
 * A model that is a container image: the store has a record of it, of some hundred bytes, and the container engine has the
 * image. Its one layer is a file with the image's name by digest; annotations say what became of it on this machine.
 */
import { AppError } from "../errors.ts";
import { encodeModel, type EncodedModel, type LayerFile } from "./artifact.ts";
import { digestOf } from "../oci/digest.ts";
import { formatReference, parseReference, type Reference } from "../oci/reference.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { formatBinaryBytes } from "./amounts.ts";

/** NVIDIA's images, which serve one model each. */
export const IMAGE_FORMAT = "nim";
/** Where they come from. Names with such a beginning are images, and no others: nothing is guessed. */
const NIM_PREFIX = "nvcr.io/nim/";

/** A reference has at most 512 characters. Bytes. */
const MAX_RECORD_BYTES = 1024;

const FILE = "image";
const ENGINE = "org.tug.image.engine";
const SIZE = "org.tug.image.size";
const PULLED = "org.tug.image.pulled";

export interface ImageRecord {
  /** `registry/repository@sha256:…` */
  readonly image: string;
  /** The container engine that has it. */
  readonly engine: string;
  /** Bytes on its disk. */
  readonly size: number;
  /** It was not there before Tug pulled it: who removes the last record removes it, too. */
  readonly isOwn: boolean;
  /** RFC 3339. */
  readonly created: string;
}

/** @param prefixes besides NVIDIA's; each names a registry, and counts up to a slash */
export function isImageName(
  { registry, repository }: Reference,
  prefixes: readonly string[],
): boolean {
  const name = `${registry}/${repository}`;
  return [NIM_PREFIX, ...prefixes].some((prefix) =>
    name.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`),
  );
}

/** The same record is the same model. */
export function encodeImage(record: ImageRecord): EncodedModel & { readonly file: Uint8Array } {
  const file = new TextEncoder().encode(`${record.image}\n`);
  const layer: LayerFile = {
    role: "weights",
    path: FILE,
    digest: digestOf(file),
    size: file.length,
  };
  const encoded = encodeModel({
    format: "docker",
    layout: "directory",
    facts: {
      format: IMAGE_FORMAT,
      architecture: null,
      name: null,
      license: null,
      quantization: null,
      parameters: null,
      size: formatBinaryBytes(record.size),
      header: null,
    },
    fallbackTitle: parseReference(record.image).repository.split("/").at(-1),
    files: [layer],
    created: record.created,
    annotations: {
      [ENGINE]: record.engine,
      [SIZE]: String(record.size),
      [PULLED]: String(record.isOwn),
    },
  });
  return { ...encoded, file };
}

/** Whether it says so itself: it may still be malformed. */
export function isImageModel({ manifest }: Pick<StoredModel, "manifest">): boolean {
  return manifest.annotations?.[ENGINE] !== undefined;
}

/** What the container engine needs for it; undefined for other models. */
export function imageBytes({ manifest }: Pick<StoredModel, "manifest">): number | undefined {
  const bytes = Number(manifest.annotations?.[SIZE]);
  return Number.isSafeInteger(bytes) && bytes >= 0 ? bytes : undefined;
}

/**
 * @returns undefined if it is a record of nothing
 * @throws blob_not_found, digest_mismatch, request_too_large
 */
export async function readImage(
  store: Store,
  { manifest }: Pick<StoredModel, "manifest">,
): Promise<ImageRecord | undefined> {
  const { layers, annotations = {} } = manifest;
  const [layer] = layers;
  if (layer === undefined || layers.length > 1) return undefined;
  const bytes = await store.readBlob(layer, { maxBytes: MAX_RECORD_BYTES });
  const image = imageOf(new TextDecoder().decode(bytes));
  if (image === undefined) return undefined;
  return {
    image: formatReference(image),
    engine: annotations[ENGINE] ?? "",
    size: Number(annotations[SIZE] ?? 0),
    isOwn: annotations[PULLED] === "true",
    created: "",
  };
}

/**
 * A record may have come from anybody: what it names would be run.
 *
 * @param prefixes as `isImageName` has them
 * @throws unsupported_model, forbidden
 */
export async function requireImage(
  store: Store,
  model: StoredModel,
  { name, prefixes }: { readonly name: string; readonly prefixes: readonly string[] },
): Promise<void> {
  const record = await readImage(store, model);
  if (record === undefined) {
    throw new AppError("unsupported_model", `cannot run \`${name}\`: it names no container image`, {
      hint: "Pull it again under the image's own name.",
    });
  }
  if (isImageName(parseReference(record.image), prefixes)) return;
  const where = record.image.slice(0, 200);
  throw new AppError(
    "forbidden",
    `cannot run \`${name}\`: it is the container image \`${where}\``,
    {
      hint: "Name the beginning of its name in `nim_prefixes` of config.toml (TUG_NIM_PREFIXES) if you trust what is there.",
    },
  );
}

// --- internal ---

/** One line, with a digest and without a tag, as it was written here. */
function imageOf(text: string): Reference | undefined {
  const line = text.replace(/\n$/, "");
  try {
    const reference = parseReference(line);
    const isExact = reference.digest !== undefined && reference.tag === undefined;
    return isExact && formatReference(reference) === line ? reference : undefined;
  } catch {
    return undefined;
  }
}
