/** Content descriptors of the OCI image specification. */
import { AppError } from "../errors.ts";
import { type Digest, tryParseDigest } from "./digest.ts";

/** @see https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#properties */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
  readonly platform?: Platform;
}

interface Platform {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string;
}

/**
 * Checks the shape of a descriptor that came from outside. Members this type does not have are dropped.
 *
 * @param where names it in the error, such as `layers[2]`
 * @throws invalid_model_file
 */
export function parseDescriptor(value: unknown, where: string): Descriptor {
  if (!isRecord(value)) throw malformed(where, "it is not an object");
  const { mediaType, digest, size, artifactType, platform } = value;
  if (typeof mediaType !== "string" || mediaType === "")
    throw malformed(where, "it has no media type");
  const parsed = typeof digest === "string" ? tryParseDigest(digest) : undefined;
  if (parsed === undefined) throw malformed(where, "its digest is not a SHA-256");
  if (!Number.isSafeInteger(size) || (size as number) < 0)
    throw malformed(where, "its size is not a number of bytes");
  const annotations = parseAnnotations(value["annotations"], where);
  return {
    mediaType,
    digest: parsed,
    size: size as number,
    ...(annotations === undefined ? {} : { annotations }),
    ...(typeof artifactType === "string" && artifactType !== "" ? { artifactType } : {}),
    ...(isPlatform(platform) ? { platform } : {}),
  };
}

/** @throws invalid_model_file unless it is a map of strings, null or absent */
export function parseAnnotations(
  value: unknown,
  where: string,
): Readonly<Record<string, string>> | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isRecord(value) || !Object.values(value).every((text) => typeof text === "string")) {
    throw malformed(where, "its annotations are not a map of strings");
  }
  return value as Record<string, string>;
}

/** True for a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// --- internal ---

function malformed(where: string, reason: string): AppError {
  return new AppError("invalid_model_file", `cannot read ${where}: ${reason}`);
}

function isPlatform(value: unknown): value is Platform {
  return (
    isRecord(value) && typeof value["architecture"] === "string" && typeof value["os"] === "string"
  );
}
