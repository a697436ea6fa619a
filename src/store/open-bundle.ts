/** Makes the directory that an engine opens, once a model, out of links to its blobs and the files of its archives. */
import { constants } from "node:fs";
import { copyFile, chmod, link, mkdir, readFile, rename, stat, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { log } from "../log.ts";
import { isRecord } from "../oci/descriptor.ts";
import type { Digest } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { blobSize, MAX_READ_BYTES, missingBlob, readBlob } from "./blobs.ts";
import type { Bundle } from "./bundle.ts";
import {
  bundleContents,
  type BundleContents,
  type BundlePlan,
  planBundle,
  type UnpackedFile,
} from "./bundle-plan.ts";
import { orIfMissing, replaceFile } from "./files.ts";
import { exclusively, exclusivelyInStore, type Layout } from "./layout.ts";
import { PathClaims } from "./path-claims.ts";
import { createPin, type Pin } from "./pins.ts";
import type { StoredModel } from "./stored-model.ts";
import { removeTree } from "./sweep.ts";
import { unpackArchives } from "./unpack-archives.ts";

/** What a bundle on disk was made from. It is written last: a bundle without it is not complete. */
const MARKER = "bundle.json";
const FILES = "model";
/** Engines keep it in 32 bits: more is no number of tokens. */
const MAX_CONTEXT = 2 ** 31 - 1;

/** @param options.signal ends the unpacking of archives */
export async function openBundle(
  layout: Layout,
  model: StoredModel,
  options: { configFormat?: string; signal?: AbortSignal },
): Promise<Bundle & AsyncDisposable> {
  const { signal = new AbortController().signal } = options;
  const { config, format, contextTokens } = await readConfig(layout, model);
  const plan = planBundle(model.manifest, {
    configFormat: options.configFormat ?? format,
    config,
  });
  const pin = await pinModel(layout, model);
  try {
    const directory = layout.bundle(model.digest);
    const unpacked =
      (await readComplete(layout, directory, plan)) ??
      (await build({ layout, plan, pin, directory, signal }));
    const contents = bundleContents(plan, unpacked);
    return toBundle(join(directory, FILES), { contents, contextTokens, pin });
  } catch (error) {
    await pin[Symbol.asyncDispose]();
    throw error;
  }
}

// --- internal ---

interface PackagedConfig {
  readonly config: Record<string, unknown>;
  readonly format: string | undefined;
  readonly contextTokens: number | undefined;
}

/** Reads leniently: what a config blob says of its format and context is a convenience. */
async function readConfig(layout: Layout, { manifest }: StoredModel): Promise<PackagedConfig> {
  const isReadable = manifest.config.size <= MAX_READ_BYTES;
  const config = isReadable ? tryParseObject(await readBlob(layout, manifest.config)) : {};
  const { format, context_size: size } = isRecord(config["config"]) ? config["config"] : {};
  const isCount = Number.isInteger(size) && (size as number) > 0 && (size as number) <= MAX_CONTEXT;
  return {
    config,
    format: typeof format === "string" && format !== "" ? format : undefined,
    contextTokens: isCount || size === -1 ? (size as number) : undefined,
  };
}

function tryParseObject(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isRecord(value) ? value : {};
  } catch {
    return {};
  }
}

async function pinModel(
  layout: Layout,
  { manifestDescriptor, manifest }: StoredModel,
): Promise<Pin> {
  const blobs = [manifestDescriptor, manifest.config, ...manifest.layers];
  return exclusivelyInStore(layout, async () => {
    const pin = await createPin(layout, "bundle");
    try {
      await pin.add(blobs.map(({ digest }) => digest));
      for (const { digest, size } of blobs) {
        if ((await blobSize(layout, digest)) !== size) throw missingBlob(digest);
      }
      return pin;
    } catch (error) {
      await pin[Symbol.asyncDispose]();
      throw error;
    }
  });
}

/**
 * Whole, and made of the blobs as they are: one that was damaged and mended since is another file, or a newer one.
 *
 * @returns the files of its archives, or undefined if it must be made
 */
async function readComplete(
  layout: Layout,
  directory: string,
  plan: BundlePlan,
): Promise<readonly UnpackedFile[] | undefined> {
  const marker = await orIfMissing(readFile(join(directory, MARKER)), undefined);
  const unpacked = marker === undefined ? undefined : unpackedOf(marker);
  if (unpacked === undefined || marker?.equals(encodeMarker(plan, unpacked)) !== true)
    return undefined;
  const fromArchives = unpacked.map(({ path, size, archive }) => ({
    path,
    size,
    digest: plan.archives[archive]?.digest,
  }));
  for (const file of [...plan.files, ...fromArchives]) {
    if (!(await isCurrent(layout, join(directory, FILES, file.path), file))) return undefined;
  }
  return unpacked;
}

/** @param file.digest of the blob that it is, or came out of */
async function isCurrent(
  layout: Layout,
  path: string,
  { size, digest }: { readonly size: number; readonly digest: Digest | undefined },
): Promise<boolean> {
  if (digest === undefined) return false;
  const stats = await orIfMissing(stat(path), undefined);
  const blob = await orIfMissing(stat(layout.blob(digest)), undefined);
  if (stats?.size !== size || blob === undefined) return false;
  const isLink = stats.ino === blob.ino && stats.dev === blob.dev;
  return isLink || stats.mtimeMs >= blob.mtimeMs;
}

/** Whatever it holds: the caller compares it with what it must hold. */
function unpackedOf(marker: Uint8Array): readonly UnpackedFile[] | undefined {
  const { unpacked } = tryParseObject(marker);
  const isList = Array.isArray(unpacked) && unpacked.every((file) => isRecord(file));
  return isList ? (unpacked as unknown as UnpackedFile[]) : undefined;
}

interface Construction {
  readonly layout: Layout;
  readonly plan: BundlePlan;
  readonly pin: Pin;
  readonly directory: string;
  readonly signal: AbortSignal;
}

async function build(construction: Construction): Promise<readonly UnpackedFile[]> {
  const { layout, plan, pin, directory } = construction;
  const temporary = join(layout.bundles, `${pin.id}.tmp`);
  const replaced = join(layout.bundles, `${pin.id}.old`);
  try {
    const unpacked = await fill(join(temporary, FILES), construction);
    await replaceFile(
      join(temporary, MARKER),
      join(temporary, `${MARKER}.tmp`),
      encodeMarker(plan, unpacked),
    );
    await exclusively(layout, async () => {
      // Another process may have made it meanwhile, and its engine may read it now.
      if ((await readComplete(layout, directory, plan)) !== undefined) return;
      await orIfMissing(rename(directory, replaced), undefined);
      await rename(temporary, directory);
    });
    log.debug(`store: bundle made directory=${directory}`);
    return unpacked;
  } finally {
    await removeTree(temporary);
    await removeTree(replaced);
  }
}

async function fill(
  directory: string,
  { layout, plan, signal }: Construction,
): Promise<readonly UnpackedFile[]> {
  const claims = new PathClaims();
  await mkdir(directory, { recursive: true });
  for (const { path, digest } of plan.files) {
    const target = join(directory, path);
    claims.claim(path);
    await mkdir(dirname(target), { recursive: true });
    await materialise(layout.blob(digest), target);
  }
  const unpacked = await unpackArchives(plan.archives, {
    locate: ({ digest }) => layout.blob(digest),
    directory,
    claims,
    signal,
  });
  // Before the bundle is there: one without weights is none.
  bundleContents(plan, unpacked);
  return unpacked;
}

/**
 * A hard link is the blob itself, counts once on disk and is mapped once in memory; a clone costs nothing either, but
 * looks like a second file; a copy costs its bytes. The first that the disk can do.
 */
async function materialise(blob: string, target: string): Promise<void> {
  const ways: readonly (() => Promise<void>)[] = [
    async () => link(blob, target),
    async () => copyFile(blob, target, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL),
    async () => symlink(blob, target, "file"),
  ];
  for (const way of ways) {
    try {
      return await way();
    } catch {
      await removeTree(target);
    }
  }
  await copyFile(blob, target);
  await chmod(target, 0o444);
}

function encodeMarker(
  { files, archives }: BundlePlan,
  unpacked: readonly UnpackedFile[],
): Uint8Array {
  return encodeCanonical({ version: 2, files, archives, unpacked });
}

interface Opened {
  readonly contents: BundleContents;
  readonly contextTokens: number | undefined;
  readonly pin: Pin;
}

function toBundle(
  directory: string,
  { contents, contextTokens, pin }: Opened,
): Bundle & AsyncDisposable {
  const { format, model, mmproj, chatTemplate, adapters, weightBytes } = contents;
  return {
    directory,
    format,
    model: join(directory, model),
    mmproj: mmproj === undefined ? undefined : join(directory, mmproj),
    chatTemplate: chatTemplate === undefined ? undefined : join(directory, chatTemplate),
    adapters: adapters.map((path) => join(directory, path)),
    contextTokens,
    weightBytes,
    [Symbol.asyncDispose]: async () => pin[Symbol.asyncDispose](),
  };
}
