/** Where a model is pushed to, and from which repositories of that registry its blobs may be had. Pure. */
import type { PushRequest } from "../api/models.ts";
import { AppError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { displayReference, looksLikeId, parseReference, type Reference } from "../oci/reference.ts";
import type { StoredModel } from "../store/store.ts";

/**
 * The target that was given, else the tag by which the model was found.
 *
 * @throws invalid_reference, usage if the model was found by its digest and has no tag, or several
 */
export function chooseTarget(
  { tags }: StoredModel,
  { name, to }: Pick<PushRequest, "to"> & { readonly name: string },
): Reference {
  if (to !== undefined) return parseReference(to);
  const fitting = tagsByName(tags, name.trim());
  const [tag] = fitting;
  if (tag !== undefined && fitting.length === 1) return parseReference(tag);
  const shown = tags.map((each) => `\`${displayReference(each)}\``).join(", ");
  const reason = tag === undefined ? "it has no name" : `it has several names, ${shown}`;
  throw new AppError("usage", `cannot push model \`${name.slice(0, 200)}\`: ${reason}`, {
    hint: `Say where to: \`tug push ${name.slice(0, 200)} REGISTRY/NAMESPACE/NAME:TAG\`.`,
  });
}

/**
 * Which repositories may have a blob already: those of the target's registry in which a model of the store with this blob
 * has a name. The model's own names come first.
 */
export function mountCandidates(
  target: Reference,
  model: StoredModel,
  models: readonly StoredModel[],
): (digest: Digest) => readonly string[] {
  const byBlob = new Map<Digest, Set<string>>();
  for (const each of [model, ...models]) {
    const repositories = each.tags
      .map((tag) => parseReference(tag))
      .filter(({ registry }) => registry === target.registry)
      .map(({ repository }) => repository)
      .filter((repository) => repository !== target.repository);
    for (const { digest } of [...each.manifest.layers, each.manifest.config]) {
      const known = byBlob.get(digest) ?? new Set();
      for (const repository of repositories) known.add(repository);
      byBlob.set(digest, known);
    }
  }
  return (digest) => [...(byBlob.get(digest) ?? [])];
}

/**
 * Those of a model's tags by which a name found it: a name may leave out the registry or the namespace. All of them for a
 * digest.
 *
 * @throws invalid_reference
 */
export function tagsByName(tags: readonly string[], name: string): readonly string[] {
  if (looksLikeId(name)) return tags;
  const wanted = parseReference(name);
  if (wanted.tag === undefined) return tags;
  const parsed = tags.map((tag) => ({ tag, reference: parseReference(tag) }));
  const exact = parsed.filter(
    ({ reference }) =>
      reference.registry === wanted.registry &&
      reference.repository === wanted.repository &&
      reference.tag === wanted.tag,
  );
  const similar = parsed.filter(
    ({ reference }) =>
      reference.tag === wanted.tag &&
      lastComponent(reference.repository) === lastComponent(wanted.repository),
  );
  return (exact.length > 0 ? exact : similar).map(({ tag }) => tag);
}

// --- internal ---

function lastComponent(repository: string): string {
  return repository.slice(repository.lastIndexOf("/") + 1);
}
