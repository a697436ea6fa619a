/** Makes the directory that an engine opens, once a model, out of links to its blobs. */
import { constants } from "node:fs";
import { copyFile, chmod, link, mkdir, readFile, rename, stat, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { log } from "../log.ts";
import { isRecord } from "../oci/descriptor.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import { blobSize, MAX_READ_BYTES, missingBlob, readBlob } from "./blobs.ts";
import type { Bundle } from "./bundle.ts";
import { type BundlePlan, planBundle } from "./bundle-plan.ts";
import { orIfMissing, replaceFile } from "./files.ts";
import { exclusively, exclusivelyInStore, type Layout } from "./layout.ts";
import { createPin, type Pin } from "./pins.ts";
import type { StoredModel } from "./stored-model.ts";
import { removeTree } from "./sweep.ts";

/** What a bundle on disk was made from. It is written last: a bundle without it is not complete. */
const MARKER = "bundle.json";
const FILES = "model";

export async function openBundle(
  layout: Layout,
  model: StoredModel,
  options: { configFormat?: string },
): Promise<Bundle & AsyncDisposable> {
  const { format, contextTokens } = await readConfig(layout, model);
  const plan = planBundle(model.manifest, options.configFormat ?? format);
  const pin = await pinModel(layout, model);
  try {
    const directory = layout.bundle(model.digest);
    if (!(await isComplete(layout, directory, plan))) await build({ layout, plan, pin, directory });
    return toBundle(join(directory, FILES), { plan, contextTokens, pin });
  } catch (error) {
    await pin[Symbol.asyncDispose]();
    throw error;
  }
}

// --- internal ---

interface PackagedConfig {
  readonly format: string | undefined;
  readonly contextTokens: number | undefined;
}

/** Reads leniently: what a config blob says of its format and context is a convenience. */
async function readConfig(layout: Layout, { manifest }: StoredModel): Promise<PackagedConfig> {
  if (manifest.config.size > MAX_READ_BYTES) return { format: undefined, contextTokens: undefined };
  const config = innerConfig(await readBlob(layout, manifest.config));
  const { format, context_size: size } = config;
  const isContext = Number.isInteger(size) && ((size as number) > 0 || size === -1);
  return {
    format: typeof format === "string" && format !== "" ? format : undefined,
    contextTokens: isContext ? (size as number) : undefined,
  };
}

function innerConfig(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isRecord(value) && isRecord(value["config"]) ? value["config"] : {};
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

/** Whole, and made of the blobs as they are: one that was damaged and mended since is another file, or a newer one. */
async function isComplete(layout: Layout, directory: string, plan: BundlePlan): Promise<boolean> {
  const marker = await orIfMissing(readFile(join(directory, MARKER)), undefined);
  if (marker === undefined || !marker.equals(encodeMarker(plan))) return false;
  for (const { path, size, digest } of plan.files) {
    const stats = await orIfMissing(stat(join(directory, FILES, path)), undefined);
    const blob = await orIfMissing(stat(layout.blob(digest)), undefined);
    if (stats?.size !== size || blob === undefined) return false;
    const isLink = stats.ino === blob.ino && stats.dev === blob.dev;
    if (!isLink && stats.mtimeMs < blob.mtimeMs) return false;
  }
  return true;
}

interface Construction {
  readonly layout: Layout;
  readonly plan: BundlePlan;
  readonly pin: Pin;
  readonly directory: string;
}

async function build({ layout, plan, pin, directory }: Construction): Promise<void> {
  const temporary = join(layout.bundles, `${pin.id}.tmp`);
  const replaced = join(layout.bundles, `${pin.id}.old`);
  try {
    for (const { path, digest } of plan.files) {
      const target = join(temporary, FILES, path);
      await mkdir(dirname(target), { recursive: true });
      await materialise(layout.blob(digest), target);
    }
    await replaceFile(
      join(temporary, MARKER),
      join(temporary, `${MARKER}.tmp`),
      encodeMarker(plan),
    );
    await exclusively(layout, async () => {
      // Another process may have made it meanwhile, and its engine may read it now.
      if (await isComplete(layout, directory, plan)) return;
      await orIfMissing(rename(directory, replaced), undefined);
      await rename(temporary, directory);
    });
    log.debug(`store: bundle made directory=${directory}`);
  } finally {
    await removeTree(temporary);
    await removeTree(replaced);
  }
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

function encodeMarker({ format, files, model }: BundlePlan): Uint8Array {
  return encodeCanonical({ version: 1, format, model, files });
}

interface Opened {
  readonly plan: BundlePlan;
  readonly contextTokens: number | undefined;
  readonly pin: Pin;
}

function toBundle(
  directory: string,
  { plan, contextTokens, pin }: Opened,
): Bundle & AsyncDisposable {
  const { format, model, mmproj, chatTemplate, weightBytes } = plan;
  return {
    directory,
    format,
    model: join(directory, model),
    mmproj: mmproj === undefined ? undefined : join(directory, mmproj),
    chatTemplate: chatTemplate === undefined ? undefined : join(directory, chatTemplate),
    contextTokens,
    weightBytes,
    [Symbol.asyncDispose]: async () => pin[Symbol.asyncDispose](),
  };
}
