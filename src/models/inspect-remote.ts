/** Looks at a model in its registry, without pulling it. */
import type { ModelDetails } from "../api/models.ts";
import { parseManifest } from "../oci/manifest.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import { toConfigFacts } from "./config.ts";
import { toDetails } from "./inspect.ts";
import { requireModelManifest } from "./model-manifest.ts";
import { fetchChosen } from "./pull-artifact.ts";
import type { Remotes } from "./remotes.ts";
import { createModel } from "../store/stored-model.ts";

/** @throws invalid_reference, not_found, unauthorized, registry_unavailable, unsupported_model, offline */
export async function inspectRemote(
  { registry }: Remotes,
  name: string,
  { signal, platform }: { signal: AbortSignal; platform?: string | undefined },
): Promise<ModelDetails> {
  const reference = parseReference(name);
  const repository = registry.repository(reference);
  const ref = reference.digest ?? reference.tag ?? "latest";
  const { descriptor, bytes } = await fetchChosen(repository, ref, { platform, signal });
  const manifest = parseManifest(bytes);
  requireModelManifest(manifest, name);
  const facts = toConfigFacts(await repository.fetchBlob(manifest.config, { signal }), manifest);
  const { registry: host, repository: path, tag } = reference;
  const tags =
    tag === undefined ? [] : [formatReference({ registry: host, repository: path, tag })];
  return toDetails(createModel(descriptor, manifest, tags), facts);
}
