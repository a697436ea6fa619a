/** `index.json`: which manifests are in the store, and by what names. Operations are pure; reading and writing are not. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../errors.ts";
import { type Descriptor, isRecord, parseDescriptor } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { OCI_INDEX, REF_NAME } from "../oci/media-types.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import { orIfMissing, replaceFile } from "./files.ts";
import { explainAccess, type Layout } from "./layout.ts";

/** Tens of thousands of models. */
const MAX_INDEX_BYTES = 32 * 1024 * 1024;

export interface IndexEntry {
  readonly descriptor: Descriptor;
  /** Canonical reference; undefined for an untagged model. */
  readonly tag: string | undefined;
  /** The entry as it stands in the file: members that other programs put there are kept. */
  readonly raw: Readonly<Record<string, unknown>>;
}

export interface Index {
  readonly entries: readonly IndexEntry[];
  /** Entries we cannot read, such as ones with another digest algorithm. Kept, never used. */
  readonly foreign: readonly unknown[];
}

export const EMPTY_INDEX: Index = { entries: [], foreign: [] };

/** An empty index if there is no file. Needs no lock: the file is replaced atomically. */
export async function readIndex(layout: Layout): Promise<Index> {
  const bytes = await readIfThere(layout);
  return bytes === undefined ? EMPTY_INDEX : parseIndex(bytes, layout.index);
}

/** The caller holds the store's lock. */
export async function writeIndex(layout: Layout, index: Index): Promise<void> {
  const temporary = join(layout.ingest, `index-${randomBytes(8).toString("hex")}.part`);
  await replaceFile(layout.index, temporary, formatIndex(index));
}

/**
 * Gives a manifest a name, taking it from any other manifest, which stays in the index without one. Without a name, the
 * manifest is entered as untagged unless it is there already.
 */
export function enter(index: Index, descriptor: Descriptor, tag: string | undefined): Index {
  const isThere = index.entries.some((entry) => entry.descriptor.digest === descriptor.digest);
  if (tag === undefined) {
    return isThere
      ? index
      : { ...index, entries: [...index.entries, createEntry(descriptor, undefined)] };
  }
  const rest = untag(index, tag).entries.filter(
    (entry) => entry.descriptor.digest !== descriptor.digest || entry.tag !== undefined,
  );
  return { ...index, entries: [...rest, createEntry(descriptor, tag)] };
}

/** Takes a name away. A manifest that loses its last one stays, untagged. */
export function untag(index: Index, tag: string): Index {
  const entries = index.entries.filter((entry) => entry.tag !== tag);
  for (const { descriptor } of index.entries.filter((entry) => entry.tag === tag)) {
    const hasOther = entries.some((entry) => entry.descriptor.digest === descriptor.digest);
    if (!hasOther) entries.push(createEntry(descriptor, undefined));
  }
  return { ...index, entries };
}

/** Removes a manifest and all its names. */
export function withdraw(index: Index, digest: Digest): Index {
  return { ...index, entries: index.entries.filter((entry) => entry.descriptor.digest !== digest) };
}

/** The names of a manifest, in the order of the index. */
export function tagsOf(index: Index, digest: Digest): string[] {
  return index.entries.flatMap(({ descriptor, tag }) =>
    descriptor.digest === digest && tag !== undefined ? [tag] : [],
  );
}

/** @throws conflict if the bytes are not an image index */
function parseIndex(bytes: Uint8Array, path: string): Index {
  const value = bytes.length > MAX_INDEX_BYTES ? undefined : parseJson(bytes);
  if (!isRecord(value) || !Array.isArray(value["manifests"])) {
    throw new AppError("conflict", `cannot read the model store: \`${path}\` is damaged`, {
      hint: "Restore this file, or remove its directory and get the models again.",
    });
  }
  const entries: IndexEntry[] = [];
  const foreign: unknown[] = [];
  for (const raw of value["manifests"] as readonly unknown[]) {
    const entry = tryParseEntry(raw);
    if (entry === undefined) foreign.push(raw);
    else entries.push(entry);
  }
  return { entries, foreign };
}

function formatIndex(index: Index): Uint8Array {
  const manifests = [...index.entries.map((entry) => entry.raw), ...index.foreign];
  return encodeCanonical({ schemaVersion: 2, mediaType: OCI_INDEX, manifests });
}

/** Whether it has a name, be it one that only another program understands. */
export function isNamed({ tag, descriptor }: IndexEntry): boolean {
  return tag !== undefined || descriptor.annotations?.[REF_NAME] !== undefined;
}

// --- internal ---

async function readIfThere(layout: Layout): Promise<Uint8Array | undefined> {
  try {
    return await orIfMissing(readFile(layout.index), undefined);
  } catch (error) {
    throw explainAccess(layout, error);
  }
}

function createEntry(descriptor: Descriptor, tag: string | undefined): IndexEntry {
  const { mediaType, digest, size, artifactType } = descriptor;
  const raw = {
    mediaType,
    digest,
    size,
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(tag === undefined ? {} : { annotations: { [REF_NAME]: tag } }),
  };
  return {
    descriptor: {
      mediaType,
      digest,
      size,
      ...(artifactType === undefined ? {} : { artifactType }),
    },
    tag,
    raw,
  };
}

function tryParseEntry(raw: unknown): IndexEntry | undefined {
  try {
    const descriptor = parseDescriptor(raw, "an entry of index.json");
    const name = descriptor.annotations?.[REF_NAME];
    return {
      descriptor,
      tag: name === undefined ? undefined : canonicalTag(name),
      raw: raw as Record<string, unknown>,
    };
  } catch {
    return undefined;
  }
}

/** Other programs write short names, such as `skopeo copy … oci:<root>:pebble`. */
function canonicalTag(name: string): string | undefined {
  try {
    const { registry, repository, tag } = parseReference(name);
    return tag === undefined ? undefined : formatReference({ registry, repository, tag });
  } catch {
    return undefined;
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
