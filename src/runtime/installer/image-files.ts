/**
 * The file system of a container image, as its layers make it: names only, and where the bytes of each file are. Pure.
 *
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
 */
import { posix } from "node:path";

import type { TarEntry } from "../../archive/tar.ts";
import { refuse } from "./unpack.ts";

/** An image of a whole system with all of CUDA has some ten thousand. */
const FILE_LIMIT = 200_000;
/** As long as Linux allows. Characters. */
const MAX_PATH = 4096;
const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

export type LayerEntry = Pick<TarEntry, "name" | "kind" | "size" | "target" | "isHardLink">;

export interface ImageFile {
  readonly kind: "file" | "link";
  readonly size: number;
  /** Of a link. */
  readonly target: string;
  /** Index of the layer that holds the bytes, and the path they have in it. */
  readonly layer: number;
  readonly source: string;
}

export class ImageFiles {
  readonly #files = new Map<string, ImageFile>();
  #layers = 0;

  /** By their paths from the image's root, without a slash in front. */
  get files(): ReadonlyMap<string, ImageFile> {
    return this.#files;
  }

  /** Lays a layer over those before it. @throws install_failed if it reaches out of the image, or is too large */
  async addLayer(entries: AsyncIterable<LayerEntry>): Promise<void> {
    const added = new Map<string, ImageFile>();
    const hidden: Hidden = { paths: new Set(), below: new Set() };
    const layer = this.#layers;
    this.#layers += 1;
    let count = 0;
    for await (const entry of entries) {
      count += 1;
      if (count > FILE_LIMIT) throw refuse("it has too many files");
      const path = pathInImage(entry.name);
      if (hide(hidden, path) || path === "") continue;
      if (entry.kind === "directory") {
        // It takes the place of a file, and leaves a directory as it is.
        added.delete(path);
        if (this.#files.has(path)) hidden.paths.add(path);
        continue;
      }
      hidden.paths.add(path);
      const file = this.#toFile(entry, { path, layer, added });
      if (file !== undefined) added.set(path, file);
    }
    for (const path of this.#files.keys()) if (isHidden(hidden, path)) this.#files.delete(path);
    for (const [path, file] of added) this.#files.set(path, file);
    if (this.#files.size > FILE_LIMIT) throw refuse("it has too many files");
  }

  /** Devices and links to nothing are no part of an engine. */
  #toFile(
    { kind, size, target, isHardLink }: LayerEntry,
    at: { path: string; layer: number; added: ReadonlyMap<string, ImageFile> },
  ): ImageFile | undefined {
    const { path, layer, added } = at;
    if (isHardLink) {
      const linked = pathInImage(target);
      return added.get(linked) ?? this.#files.get(linked);
    }
    if (kind !== "file" && kind !== "link") return undefined;
    return { kind, size, target, layer, source: path };
  }
}

/** A name in a layer as a path from the image's root; empty for the root itself. */
export function pathInImage(name: string): string {
  if (name.length > MAX_PATH) throw refuse("a path in it is too long");
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..") || name.includes("\0")) throw refuse(`\`${name}\` leads out of it`);
  return parts.join("/");
}

/** Where a symbolic link leads, as a path from the image's root; undefined if out of it. */
export function linkTarget(path: string, target: string): string | undefined {
  const joined = target.startsWith("/")
    ? posix.normalize(target)
    : posix.normalize(posix.join("/", posix.dirname(path), target));
  return joined.includes("\0") ? undefined : joined.replace(/^\/+/, "");
}

// --- internal ---

/** What a layer takes away from those before it. */
interface Hidden {
  /** With everything below. */
  readonly paths: Set<string>;
  /** Only what is below. */
  readonly below: Set<string>;
}

/** @returns whether the entry is a whiteout */
function hide(hidden: Hidden, path: string): boolean {
  const slash = path.lastIndexOf("/");
  const [directory, name] = [path.slice(0, Math.max(slash, 0)), path.slice(slash + 1)];
  if (!name.startsWith(WHITEOUT)) return false;
  if (name === OPAQUE) hidden.below.add(directory);
  // What else begins twice is a note of the file system that made the layer.
  else if (!name.startsWith(WHITEOUT + WHITEOUT))
    hidden.paths.add(posix.join(directory, name.slice(WHITEOUT.length)));
  return true;
}

function isHidden({ paths, below }: Hidden, path: string): boolean {
  if (paths.has(path) || below.has("")) return true;
  for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
    const parent = path.slice(0, at);
    if (paths.has(parent) || below.has(parent)) return true;
  }
  return false;
}
