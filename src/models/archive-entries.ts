/** What the entries of a model's archive are, by their names. */
import { type Digest, tryParseDigest } from "../oci/digest.ts";
import type { TarEntry } from "../archive/tar.ts";

/** Docker Model Runner reads manifests from a directory of their own, too. */
const BLOB_NAME = /^(?:blobs|manifests)\/sha256\/(?<hex>[0-9a-f]{64})$/;

/** As written by `tar .`: the same name without what it begins with. */
export function plainName(name: string): string {
  return name.replace(/^(?:\.\/)+/, "");
}

/** The digest in the name of a blob, undefined for other entries. */
export function blobDigestOf(name: string): Digest | undefined {
  const hex = BLOB_NAME.exec(plainName(name))?.groups?.["hex"];
  return hex === undefined ? undefined : tryParseDigest(`sha256:${hex}`);
}

/** The caller has looked at its size. */
export async function readWhole(entry: TarEntry): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  // Copied: the chunks may be parts of a buffer that is used again.
  for await (const part of entry.body) parts.push(Uint8Array.from(part));
  return Buffer.concat(parts);
}

export function tryParseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
