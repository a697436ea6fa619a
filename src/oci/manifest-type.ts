/** Which kind of document a manifest is: its body and the registry must agree. */
import { AppError } from "../errors.ts";
import { printable } from "../http/host.ts";
import { isRecord } from "./descriptor.ts";
import { DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST } from "./media-types.ts";

/** For `Accept`. */
export const MANIFEST_TYPES: readonly string[] = [
  OCI_MANIFEST,
  OCI_INDEX,
  DOCKER_MANIFEST,
  DOCKER_MANIFEST_LIST,
];

export function isManifestType(mediaType: string): boolean {
  return MANIFEST_TYPES.includes(mediaType);
}

export function isIndexType(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_MANIFEST_LIST;
}

/**
 * The media type of a manifest or index. The body decides; a registry may be vague (`text/plain`, as Ollama's), not
 * contradictory: a document that two clients read differently is refused.
 *
 * @param options.contentType lower case, without parameters
 * @throws invalid_model_file
 * @see https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m
 */
export function manifestType(
  bytes: Uint8Array,
  { subject, contentType }: { readonly subject: string; readonly contentType: string | undefined },
): string {
  const value = tryJson(bytes);
  if (!isRecord(value)) throw unusable(subject, "it is not a JSON object");
  const { manifests, layers, config, mediaType: own } = value;
  const hasManifests = manifests !== undefined;
  if (hasManifests && (layers ?? config) !== undefined)
    throw unusable(subject, "it is a manifest and an index at once");
  const said = MANIFEST_TYPES.find((type) => type === contentType);
  if (typeof own !== "string" || own === "")
    return agreed(subject, said ?? (hasManifests ? OCI_INDEX : OCI_MANIFEST), hasManifests);
  if (said !== undefined && own !== said)
    throw unusable(subject, `it is \`${own}\`, and the registry calls it \`${said}\``);
  return agreed(subject, own, hasManifests);
}

// --- internal ---

/** Types that we do not know pass: whoever reads the manifest refuses them by name. */
function agreed(subject: string, type: string, hasManifests: boolean): string {
  if (isManifestType(type) && isIndexType(type) !== hasManifests)
    throw unusable(subject, `it is not what \`${type}\` is`);
  return type;
}

function tryJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

function unusable(subject: string, reason: string): AppError {
  return new AppError(
    "invalid_model_file",
    `cannot read the manifest of \`${subject}\`: ${printable(reason)}`,
  );
}
