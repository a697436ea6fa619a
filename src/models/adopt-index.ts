/** What `tug adopt` found, remembered: a file in the cache directory that may be removed, damaged or outdated at any time. */
import { readFileSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { log } from "../log.ts";
import { isRecord } from "../oci/descriptor.ts";
import { type Digest, tryParseDigest } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { replaceFile } from "../store/files.ts";
import type { AdoptProgram } from "./adopt-places.ts";

/** A machine with more models than this has other worries; the index is read whole. */
export const MAX_INDEXED = 20_000;
/** That many entries with long paths. Bytes. */
const MAX_INDEX_BYTES = 16 * 1024 * 1024;
const VERSION = 1;
const PROGRAMS: ReadonlySet<unknown> = new Set<AdoptProgram>([
  "ollama",
  "huggingface",
  "lmstudio",
  "llamacpp",
]);

/** A file as it was when it was looked at; a difference in any of the numbers means that it is another one. */
export interface FileStamp {
  /** Bytes. */
  readonly size: number;
  /** Nanoseconds since the epoch. */
  readonly modifiedNs: string;
  readonly inode: string;
}

export interface IndexedFile extends FileStamp {
  /** Absolute. */
  readonly path: string;
  /** By its name or by its bytes; either way they are checked again by whoever uses the file. */
  readonly digest: Digest;
  readonly program: AdoptProgram;
}

/** Empty if there is none, or none that can be understood. */
export function readAdoptIndex(path: string): IndexedFile[] {
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return [];
    if (!stats.isFile() || stats.size > MAX_INDEX_BYTES) throw new Error("it is no index");
    const root: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (!isRecord(root) || root["version"] !== VERSION || !Array.isArray(root["files"]))
      throw new Error("it is of another version");
    return root["files"].slice(0, MAX_INDEXED).flatMap(parseEntry);
  } catch (error) {
    // Nothing but time is lost.
    log.debug(`adopt: the index is not read path=${path} error=${String(error)}`);
    return [];
  }
}

/** Replaces it atomically. @throws forbidden, insufficient_storage */
export async function writeAdoptIndex(path: string, files: readonly IndexedFile[]): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const bytes = encodeCanonical({
    version: VERSION,
    files: files.slice(0, MAX_INDEXED).map(encodeEntry),
  });
  await replaceFile(path, `${path}.${process.pid}.${crypto.randomUUID()}`, bytes);
}

export function isSameFile(a: FileStamp, b: FileStamp): boolean {
  return a.size === b.size && a.modifiedNs === b.modifiedNs && a.inode === b.inode;
}

// --- internal ---

function encodeEntry({ path, digest, size, modifiedNs, inode, program }: IndexedFile): unknown {
  return { path, digest, size, modified_ns: modifiedNs, inode, program };
}

function parseEntry(value: unknown): IndexedFile[] {
  if (!isRecord(value)) return [];
  const { path, digest, size, modified_ns: modifiedNs, inode, program } = value;
  const parsed = typeof digest === "string" ? tryParseDigest(digest) : undefined;
  const isSound =
    typeof path === "string" &&
    Number.isSafeInteger(size) &&
    typeof modifiedNs === "string" &&
    typeof inode === "string" &&
    PROGRAMS.has(program);
  if (!isSound || parsed === undefined) return [];
  return [
    {
      path,
      digest: parsed,
      size: size as number,
      modifiedNs,
      inode,
      program: program as AdoptProgram,
    },
  ];
}
