/** Where things are in a store, and how an empty one comes to be. */
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { AppError, errnoOf } from "../errors.ts";
import { type Digest, hexOf } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { orIfMissing, replaceFile } from "./files.ts";
import { acquireLock } from "../lock.ts";

/** @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md#oci-layout-file */
const LAYOUT_VERSION = "1.0.0";

/** What may lie in a directory that becomes a store: our own beginnings, and what systems put anywhere. */
const HARMLESS = new Set(["lock", "lock-journal", "oci-layout.tmp", "lost+found", ".DS_Store"]);

/** Absolute paths. */
export class Layout {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  get marker(): string {
    return join(this.root, "oci-layout");
  }

  get index(): string {
    return join(this.root, "index.json");
  }

  get lock(): string {
    return join(this.root, "lock");
  }

  get blobs(): string {
    return join(this.root, "blobs", "sha256");
  }

  /**
   * `<pin>-<n>.part`: bytes being written by the transaction that holds the pin. `<digest hex>.part`, `.journal`: a blob
   * that is being fetched, by whoever holds `.lock`. `<digest hex>.done`: it was fetched for a model that is not complete.
   */
  get ingest(): string {
    return join(this.root, "ingest");
  }

  /** `<pin>.lock` is held for as long as the pin lives; `<pin>.pins` lists what it protects. */
  get pins(): string {
    return join(this.root, "pins");
  }

  /** `<manifest hex>/`, and `<pin>.tmp/` while one is being built. */
  get bundles(): string {
    return join(this.root, "bundles");
  }

  blob(digest: Digest): string {
    return join(this.blobs, hexOf(digest));
  }

  bundle(manifest: Digest): string {
    return join(this.bundles, hexOf(manifest));
  }
}

/** Runs `work` while no other process writes the index, sweeps or pins. The store's directory must exist. */
export async function exclusively<T>(layout: Layout, work: () => Promise<T>): Promise<T> {
  using _lock = await acquireLock(layout.lock);
  return await work();
}

/**
 * As `exclusively`, in a store that is whole: what is missing of it is created first, under the same lock.
 *
 * @throws conflict if the directory holds something else, such as another program's store; forbidden
 */
export async function exclusivelyInStore<T>(layout: Layout, work: () => Promise<T>): Promise<T> {
  try {
    if (!(await isStore(layout))) await refuseForeignDirectory(layout);
    await mkdir(layout.root, { recursive: true });
    return await exclusively(layout, async () => {
      // First: the marker is what tells a store that was being created from a foreign directory.
      if (!(await isStore(layout))) await writeMarker(layout);
      for (const directory of [layout.blobs, layout.ingest, layout.pins, layout.bundles]) {
        await mkdir(directory, { recursive: true });
      }
      return work();
    });
  } catch (error) {
    throw explainAccess(layout, error);
  }
}

/** Says what is wrong where a store cannot be read or written at all; other errors come back as they are. */
export function explainAccess({ root }: Layout, error: unknown): unknown {
  const code = errnoOf(error);
  const reason = code === undefined || error instanceof AppError ? undefined : ACCESS_REASONS[code];
  if (reason === undefined) return error;
  return new AppError("forbidden", `cannot use the model store in \`${root}\`: ${reason}`, {
    hint: "Check the directory and who owns it, or set MODELS_PATH to another one.",
    cause: error,
  });
}

/** @throws conflict if it is a store of a layout version that this program does not know */
export async function isStore(layout: Layout): Promise<boolean> {
  const text = await orIfMissing(readFile(layout.marker, "utf8"), undefined);
  if (text === undefined) return false;
  const version = /"imageLayoutVersion"\s*:\s*"([^"]*)"/.exec(text)?.[1];
  if (version === LAYOUT_VERSION) return true;
  throw new AppError(
    "conflict",
    `cannot use \`${layout.root}\`: its layout version is \`${version ?? "missing"}\`, not \`${LAYOUT_VERSION}\``,
    {
      hint: "Use a newer version of tug, or set MODELS_PATH to another directory.",
    },
  );
}

/** Names in a directory; none if there is no such directory. */
export async function namesIn(directory: string): Promise<string[]> {
  return orIfMissing(readdir(directory), []);
}

/** Whether the root holds nothing that a store of ours did not put there. */
export async function isVacant(layout: Layout): Promise<boolean> {
  return (await namesIn(layout.root)).every((name) => HARMLESS.has(name));
}

// --- internal ---

const ACCESS_REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "its file system is read-only",
  ENOTDIR: "a part of its path is a file",
  EEXIST: "it is a file",
};

async function writeMarker(layout: Layout): Promise<void> {
  const bytes = encodeCanonical({ imageLayoutVersion: LAYOUT_VERSION });
  await replaceFile(layout.marker, `${layout.marker}.tmp`, bytes);
}

async function refuseForeignDirectory(layout: Layout): Promise<void> {
  if (await isVacant(layout)) return;
  // Another process may have created it between the two looks.
  if (await isStore(layout)) return;
  throw new AppError(
    "conflict",
    `cannot use \`${layout.root}\` as a model store: it holds something else`,
    {
      hint: "Set MODELS_PATH, or TUG_HOME, to an empty or a new directory.",
    },
  );
}
