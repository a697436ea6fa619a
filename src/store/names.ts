/** Finds a model by what a person calls it. Pure. */
import { AppError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import {
  displayReference,
  formatReference,
  looksLikeId,
  parseReference,
  type Reference,
} from "../oci/reference.ts";
import type { Index, IndexEntry } from "./index-file.ts";

export interface Match {
  readonly entry: IndexEntry;
  /** Whether the name was a tag; undefined if it was a digest, which means the model with all its tags. */
  readonly tag: string | undefined;
}

/**
 * In this order: a digest or the beginning of one, a digest after `@` (what stands before is not looked at: the digest is
 * the identity), a tag, the last component of exactly one tag's repository.
 *
 * @param options.exact leave out the last of these, for what cannot be undone
 * @throws invalid_reference, model_not_found, conflict if several models fit
 */
export function findModel(index: Index, name: string, options: { exact?: boolean } = {}): Match {
  const text = name.trim();
  const byId = looksLikeId(text) ? findById(index, text) : undefined;
  if (byId !== undefined) return { entry: byId, tag: undefined };
  if (/^(?:sha256:.*|[0-9a-f]{64})$/.test(text)) throw notFound(text);
  const reference = parseReference(text);
  if (reference.digest !== undefined) return findByDigest(index, text, reference.digest);
  const tag = formatReference(reference);
  const named = index.entries.find((candidate) => candidate.tag === tag);
  const similar = named === undefined ? findByLastComponent(index, text, reference) : [];
  if (options.exact === true && similar.length > 0) throw notFound(text, similar);
  if (similar.length > 1) throw ambiguous(text, similar.map(displayTag));
  const entry = named ?? similar[0];
  if (entry === undefined) throw notFound(text);
  return { entry, tag: entry.tag };
}

// --- internal ---

function findById(index: Index, text: string): IndexEntry | undefined {
  const prefix = text.startsWith("sha256:") ? text : `sha256:${text}`;
  const found = index.entries.filter(({ descriptor }) => descriptor.digest.startsWith(prefix));
  const digests = new Set(found.map(({ descriptor }) => descriptor.digest));
  if (digests.size > 1) throw ambiguous(text, [...digests]);
  return found[0];
}

function findByDigest(index: Index, text: string, digest: Digest): Match {
  const entry = index.entries.find(({ descriptor }) => descriptor.digest === digest);
  if (entry === undefined) throw notFound(text);
  return { entry, tag: undefined };
}

function findByLastComponent(index: Index, text: string, wanted: Reference): IndexEntry[] {
  if (text.includes("/")) return [];
  const component = lastComponent(wanted.repository);
  return index.entries.filter(({ tag }) => {
    if (tag === undefined) return false;
    const reference = parseReference(tag);
    return reference.tag === wanted.tag && lastComponent(reference.repository) === component;
  });
}

function displayTag({ tag }: IndexEntry): string {
  return displayReference(tag ?? "");
}

function lastComponent(repository: string): string {
  return repository.slice(repository.lastIndexOf("/") + 1);
}

function notFound(name: string, similar: readonly IndexEntry[] = []): AppError {
  const [other] = similar;
  return new AppError(
    "model_not_found",
    `cannot find model \`${name.slice(0, 200)}\`: it is not in the store`,
    {
      hint:
        other === undefined
          ? "Run `tug list` to see the models that are."
          : `Give its whole name if you mean \`${displayTag(other)}\`.`,
    },
  );
}

function ambiguous(name: string, candidates: readonly string[]): AppError {
  const shown = candidates
    .slice(0, 5)
    .map((candidate) => `\`${candidate}\``)
    .join(", ");
  return new AppError("conflict", `cannot tell which model \`${name}\` is: ${shown} fit`, {
    hint: "Give the whole name, or more digits.",
    details: { candidates },
  });
}
