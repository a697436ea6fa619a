/** Which files of an image are the engine. Pure. */
import { posix } from "node:path";

import type { ImageFile } from "./image-files.ts";
import { linkTarget } from "./image-files.ts";

export interface TreeRequest {
  /** Name of the directory that holds the engine for this machine and variant. */
  readonly tree: string;
  /** Names of the program, best first. */
  readonly executables: readonly string[];
  /** The image is the user's own: the program may be anywhere in it. */
  readonly isAnyImage: boolean;
}

export interface EngineTree {
  /** The directory has the name that was asked for, so that its variant is known. */
  readonly isNamed: boolean;
  /** The program, relative to the engine's directory. */
  readonly executable: string;
  /** By their paths relative to the engine's directory. */
  readonly files: ReadonlyMap<string, ImageFile>;
  /** Symbolic links within the engine, by path; targets relative to the directory of the link. */
  readonly links: ReadonlyMap<string, string>;
}

/** @returns undefined if the image has no such program */
export function findEngine(
  image: ReadonlyMap<string, ImageFile>,
  { tree, executables, isAnyImage }: TreeRequest,
): EngineTree | undefined {
  const programs = executables.flatMap((name) => programsNamed(image, name));
  const named = programs.find((path) => `/${path}`.includes(`/${tree}/bin/`));
  const executable = named ?? (isAnyImage ? programs[0] : undefined);
  if (executable === undefined) return undefined;
  const { root, isPart } = extentOf(executable);
  const inside = [...image].filter(
    ([path]) => isBelow(root, path) && isPart(relativeTo(root, path)),
  );
  const files = inside.filter(([, { kind }]) => kind === "file");
  const links = inside.flatMap(([path, { kind, target }]) => {
    const end = kind === "link" ? linkTarget(path, target) : undefined;
    // Links out of the engine would lead into this machine.
    if (end === undefined || !isBelow(root, end) || !isPart(relativeTo(root, end))) return [];
    return [[relativeTo(root, path), posix.relative(posix.dirname(path), end)] as const];
  });
  return {
    isNamed: named !== undefined,
    executable: relativeTo(root, executable),
    files: new Map(files.map(([path, file]) => [relativeTo(root, path), file])),
    links: new Map(links),
  };
}

// --- internal ---

/** Nearest to the top first. */
function programsNamed(image: ReadonlyMap<string, ImageFile>, name: string): string[] {
  return [...image.entries()]
    .filter(([path, { kind }]) => kind === "file" && baseOf(path).replace(/\.exe$/i, "") === name)
    .map(([path]) => path)
    .toSorted((a, b) => a.split("/").length - b.split("/").length);
}

interface Extent {
  /** Empty for the image's root. */
  readonly root: string;
  readonly isPart: (path: string) => boolean;
}

/** A program in `bin` has its libraries in `lib` beside it; else they are where the program is. */
function extentOf(executable: string): Extent {
  const directory = posix.dirname(executable);
  if (directory === ".") return { root: "", isPart: (path) => !path.includes("/") };
  if (baseOf(directory) !== "bin") return { root: directory, isPart: () => true };
  const parent = posix.dirname(directory);
  const root = parent === "." ? "" : parent;
  // There the rest of a system lies as well.
  const isShared = /^(?:|usr|usr\/local|opt)$/.test(root);
  const program = baseOf(executable);
  return {
    root,
    isPart: isShared
      ? (path) => path === `bin/${program}`
      : (path) => path.startsWith("bin/") || path.startsWith("lib/"),
  };
}

function isBelow(root: string, path: string): boolean {
  return root === "" || path.startsWith(`${root}/`);
}

function relativeTo(root: string, path: string): string {
  return root === "" ? path : path.slice(root.length + 1);
}

function baseOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
