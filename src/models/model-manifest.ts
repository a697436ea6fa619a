/** Whether a manifest is a model's, and what it is if not. Pure. */
import { AppError } from "../errors.ts";
import type { Manifest } from "../oci/manifest.ts";
import { DOCKER_CONFIG_V01, DOCKER_CONFIG_V02, MODELPACK_CONFIG } from "../oci/media-types.ts";

const MODEL_CONFIGS: readonly string[] = [DOCKER_CONFIG_V01, DOCKER_CONFIG_V02, MODELPACK_CONFIG];

/** What else lives in registries, by the beginning of its config's media type. */
const OTHERS: readonly (readonly [prefix: string, what: string])[] = [
  ["application/vnd.docker.container.image.", "a container image"],
  ["application/vnd.oci.image.config.", "a container image"],
  ["application/vnd.cncf.helm.", "a Helm chart"],
  ["application/vnd.docker.plugin.", "a Docker plugin"],
  ["application/vnd.wasm.", "a WebAssembly module"],
  ["application/vnd.oci.empty.", "an artifact of another kind"],
];

/**
 * @param name for the message
 * @throws unsupported_model, which says what it is
 */
export function requireModelManifest(manifest: Manifest, name: string): void {
  const { mediaType } = manifest.config;
  if (MODEL_CONFIGS.includes(mediaType)) return;
  const known = OTHERS.find(([prefix]) => mediaType.startsWith(prefix))?.[1];
  const type = manifest.artifactType ?? mediaType;
  const what = known ?? "an artifact that is not known here";
  const isNewer = mediaType.startsWith("application/vnd.docker.ai.model.config.");
  throw new AppError(
    "unsupported_model",
    `cannot pull \`${name}\`: it is ${isNewer ? "a model of a newer kind" : what} (\`${type.slice(0, 200)}\`)`,
    {
      hint: isNewer ? "Use a newer version of tug." : "Check the name; `tug search` finds models.",
    },
  );
}
