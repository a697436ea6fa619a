/** Files that are one: shards, by directory, prefix and count. Pure. */
import type { Digest } from "../oci/digest.ts";
import { basename, dirname } from "./text.ts";

/** A file of a repository. */
export interface RepositoryFile {
  /** Within the repository, with forward slashes. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Of files in large-file storage, which all weights are. */
  readonly digest: Digest | undefined;
}

/** A file of weights, or all its shards that the repository has. */
export interface ShardGroup {
  /** Path without the number of the shard and the extension. */
  readonly stem: string;
  /** In the order of the shards. */
  readonly files: readonly RepositoryFile[];
  /** How many shards the names announce; 1 for a single file. */
  readonly count: number;
  readonly bytes: number;
}

/**
 * Shards are called `PREFIX-00001-of-00003.EXTENSION`, by llama.cpp's `gguf-split` and by transformers alike.
 *
 * @param extension with its dot, in lower case
 * @returns ordered by stem
 */
export function groupShards(files: readonly RepositoryFile[], extension: string): ShardGroup[] {
  const groups = new Map<string, { stem: string; count: number; files: RepositoryFile[] }>();
  for (const file of files) {
    if (!file.path.toLowerCase().endsWith(extension)) continue;
    const { stem, count } = shardOf(file.path.slice(0, -extension.length));
    const key = `${stem}\n${count}`;
    const group = groups.get(key) ?? { stem, count, files: [] };
    group.files.push(file);
    groups.set(key, group);
  }
  return [...groups.values()]
    .map((group) => ({
      ...group,
      files: group.files.toSorted((left, right) => byText(left.path, right.path)),
      bytes: group.files.reduce((sum, { size }) => sum + size, 0),
    }))
    .toSorted((left, right) => byText(left.stem, right.stem) || left.count - right.count);
}

export function isComplete({ files, count }: ShardGroup): boolean {
  return files.length === count;
}

/** What people call it: the path of its only or first file. */
export function groupName({ files }: ShardGroup): string {
  return files[0]?.path ?? "";
}

/** By code units: the same on every machine. */
export function byText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

// --- internal ---

function shardOf(path: string): { stem: string; count: number } {
  const match = /^(.+)-(\d{5})-of-(\d{5})$/.exec(basename(path));
  const count = Number(match?.[3] ?? 1);
  if (match === null || count === 0) return { stem: path, count: 1 };
  const directory = dirname(path);
  return { stem: directory === "" ? (match[1] ?? "") : `${directory}/${match[1] ?? ""}`, count };
}
