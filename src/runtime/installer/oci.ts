/**
 * Engines out of container images: the one that Docker Model Runner takes its engines from, or one that the user names.
 * Index, platform, layers; of the file system that they make only the engine's files are unpacked.
 */
import { chmod, copyFile, mkdir, rm } from "node:fs/promises";
import { dirname, join, sep } from "node:path";

import { AppError } from "../../errors.ts";
import type { Descriptor } from "../../oci/descriptor.ts";
import { type Digest, hexOf, tryParseDigest } from "../../oci/digest.ts";
import { chooseManifest, parseIndex } from "../../oci/image-index.ts";
import { isIndexType } from "../../oci/manifest-type.ts";
import { parseManifest } from "../../oci/manifest.ts";
import { parseReference, type Reference } from "../../oci/reference.ts";
import type { Repository } from "../../oci/registry.ts";
import type { InstallRecipe, Machine } from "../backend.ts";
import { download } from "./download.ts";
import type { EngineTree } from "./engine-tree.ts";
import { findEngine } from "./engine-tree.ts";
import { ImageFiles, pathInImage } from "./image-files.ts";
import { DIRECTORY, report, variantOf } from "./source.ts";
import type { EnginePlan, InstallSource, SourceContext, SourceRequest } from "./source.ts";
import { ENTRY_LIMIT, UNPACKED_LIMIT_BYTES, makeLinks, placeOf, refuse } from "./unpack.ts";
import { readArchive, writeEntry } from "./untar.ts";

/** A registry that does not answer must not hold up the next source. */
const LOOKUP_TIMEOUT_MS = 10_000;
/** As many as Docker allows. */
const MAX_LAYERS = 127;
/** All layers as they are fetched; images with CUDA have three to four. */
const IMAGE_LIMIT_BYTES = 12 * 1024 ** 3;
/** What a layer may unpack to while it is looked through; nothing of that is written. */
const SCAN_LIMIT_BYTES = 32 * 1024 ** 3;
/** Digits of a digest in a version: enough to tell what a moving tag was. */
const SHOWN_DIGITS = 12;

type Recipe = NonNullable<InstallRecipe["oci"]>;

export const ociInstallSource: InstallSource = {
  name: "oci",
  network: true,
  variants: true,

  isAskedFor: ({ backend, env }) =>
    backend.recipe.oci !== undefined && ownImage(backend.recipe.oci, env) !== undefined,

  async resolve(request: SourceRequest, context: SourceContext): Promise<EnginePlan> {
    const { backend, env } = context;
    const recipe = backend.recipe.oci;
    if (recipe === undefined) throw new Error(`${backend.name} has no image`);
    const own = ownImage(recipe, env);
    const reference =
      own === undefined ? standardImage(recipe, request, context) : atVersion(own, request.version);
    const tag = reference.tag ?? "latest";
    report(context, { phase: "resolving" });
    const { registry } = await context.remotes();
    const repository = registry.repository(reference);
    const image = await lookUp(repository, reference.digest ?? tag, context);
    const variant = variantOf(request.gpu);
    return {
      // A tag moves: the digest says which one it was.
      version:
        request.version ??
        `${tag.replace(`-${variant}`, "")}-${hexOf(image.digest).slice(0, SHOWN_DIGITS)}`,
      variant: own === undefined ? variant : "host",
      fetch: (directory) =>
        fetchEngine({
          repository,
          layers: image.layers,
          recipe,
          context,
          directory,
          tree: recipe.tree(context.machine, request.gpu),
          isAnyImage: own !== undefined,
        }),
    };
  },
};

// --- internal ---

/** @throws usage if the variable holds no reference */
function ownImage({ environment }: Recipe, env: SourceContext["env"]): Reference | undefined {
  const text = env[environment] ?? "";
  if (text === "") return undefined;
  try {
    return parseReference(text);
  } catch (cause) {
    throw new AppError("usage", `cannot use ${environment}: it names no image`, {
      hint: "Write it as `registry.example.com/name:tag`.",
      cause,
    });
  }
}

/** A version that was asked for replaces tag and digest. @throws invalid_reference if it can be no tag */
function atVersion(image: Reference, version: string | undefined): Reference {
  if (version === undefined) return image;
  return parseReference(`${image.registry}/${image.repository}:${version}`);
}

function standardImage(
  recipe: Recipe,
  { gpu, version }: SourceRequest,
  { machine }: SourceContext,
): Reference {
  const tag = recipe.tag(machine, gpu, version);
  if (tag === null) {
    throw new Error(`it has no ${variantOf(gpu)} build for ${machine.platform} ${machine.arch}`);
  }
  return parseReference(`${recipe.repository}:${tag}`);
}

interface Image {
  readonly digest: Digest;
  readonly layers: readonly Descriptor[];
}

async function lookUp(
  repository: Repository,
  ref: string,
  { machine, signal }: SourceContext,
): Promise<Image> {
  const timeout = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
  const call = { signal: AbortSignal.any([signal, timeout]) };
  try {
    const { descriptor, bytes } = await repository.fetchManifest(ref, call);
    if (!isIndexType(descriptor.mediaType)) return toImage(descriptor.digest, bytes);
    const chosen = chooseManifest(parseIndex(bytes), { platform: platformOf(machine) });
    const manifest = await repository.fetchManifest(chosen.digest, call);
    return toImage(manifest.descriptor.digest, manifest.bytes);
  } catch (error) {
    signal.throwIfAborted();
    if (!timeout.aborted) throw error;
    throw new AppError(
      "registry_unavailable",
      `${repository.registry} did not answer within ${LOOKUP_TIMEOUT_MS / 1000} s`,
      { cause: error },
    );
  }
}

function platformOf({ platform, arch }: Machine): string {
  return `${platform}/${arch}`;
}

function toImage(digest: Digest, bytes: Uint8Array): Image {
  // Parts of Windows itself lie elsewhere, and none of them is the engine.
  const layers = parseManifest(bytes).layers.filter(
    ({ mediaType }) => !/foreign|nondistributable/.test(mediaType),
  );
  const strange = layers.find(
    ({ mediaType }) => !/[.+/]tar(?:[.+](?:gzip|zstd))?$/.test(mediaType),
  );
  if (strange !== undefined || layers.length === 0) throw new Error("it is no container image");
  const size = layers.reduce((sum, layer) => sum + layer.size, 0);
  if (layers.length > MAX_LAYERS || size > IMAGE_LIMIT_BYTES) {
    throw new Error(`it is too large for an engine (${layers.length} layers, ${size} bytes)`);
  }
  return { digest, layers };
}

interface FetchInput {
  readonly repository: Repository;
  readonly layers: readonly Descriptor[];
  readonly recipe: Recipe;
  readonly context: SourceContext;
  readonly directory: string;
  readonly tree: string;
  readonly isAnyImage: boolean;
}

async function fetchEngine(input: FetchInput): Promise<readonly string[]> {
  const { layers, recipe, context, directory, tree, isAnyImage } = input;
  const downloads = join(context.cacheDirectory, "downloads");
  await mkdir(downloads, { recursive: true });
  const archives: string[] = [];
  for (const layer of layers) archives.push(await fetchLayer(input, layer, downloads));
  report(context, { phase: "unpacking" });
  const image = new ImageFiles();
  for (const archive of archives) {
    await image.addLayer(readArchive(archive, SCAN_LIMIT_BYTES, context.signal));
  }
  const { executables } = recipe;
  const engine = findEngine(image.files, { tree, executables, isAnyImage });
  if (engine === undefined) {
    const place = isAnyImage ? "" : ` in \`${tree}\``;
    throw new Error(`the image does not hold \`${executables.at(-1)}\`${place}`);
  }
  await unpack(engine, { archives, directory, signal: context.signal });
  // Kept until here: an engine that could not be unpacked is not fetched again.
  for (const archive of new Set(archives)) await rm(archive, { force: true });
  return [`${DIRECTORY}${sep}${engine.executable.replaceAll("/", sep)}`];
}

async function fetchLayer(
  { repository, context }: FetchInput,
  { digest, size }: Descriptor,
  downloads: string,
): Promise<string> {
  const sha256 = hexOf(digest);
  // Named by content: a resumed part can only be one of the same file.
  const path = join(downloads, sha256);
  const id = sha256.slice(0, SHOWN_DIGITS);
  if (Bun.file(path).size === size && (await isWhole(path, digest))) return path;
  await download({
    name: id,
    sources: repository.blobSources(digest),
    path,
    bytes: size,
    sha256,
    signal: context.signal,
    onBytes: (done) => report(context, { phase: "downloading", id, done, total: size }),
  });
  return path;
}

/** One that an earlier installation, which failed later, has left. */
async function isWhole(path: string, digest: Digest): Promise<boolean> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(path).stream()) hasher.update(chunk);
  return tryParseDigest(`sha256:${hasher.digest("hex")}`) === digest;
}

interface UnpackTarget {
  readonly archives: readonly string[];
  readonly directory: string;
  readonly signal: AbortSignal;
}

async function unpack(engine: EngineTree, target: UnpackTarget): Promise<void> {
  const { archives, directory, signal } = target;
  const files = [...engine.files];
  const bytes = files.reduce((sum, [, { size }]) => sum + size, 0);
  if (bytes > UNPACKED_LIMIT_BYTES || files.length + engine.links.size > ENTRY_LIMIT) {
    throw refuse("the engine in it is too large");
  }
  for (const [layer, archive] of archives.entries()) {
    const wanted = new Map<string, string[]>();
    for (const [path, file] of files) {
      if (file.layer !== layer) continue;
      wanted.set(file.source, [...(wanted.get(file.source) ?? []), placeOf(directory, path)]);
    }
    if (wanted.size > 0) await unpackLayer(archive, wanted, signal);
  }
  const links = [...engine.links].map(([path, end]) => ({
    path: placeOf(directory, path),
    target: end,
  }));
  await makeLinks(directory, links);
  await chmod(placeOf(directory, engine.executable), 0o755);
}

/** @param wanted paths in the layer, and where each goes */
async function unpackLayer(
  archive: string,
  wanted: ReadonlyMap<string, readonly string[]>,
  signal: AbortSignal,
): Promise<void> {
  for await (const entry of readArchive(archive, SCAN_LIMIT_BYTES, signal)) {
    if (entry.kind !== "file") continue;
    const [first, ...others] = wanted.get(pathInImage(entry.name)) ?? [];
    if (first === undefined) continue;
    // The last of several entries of one name counts.
    await rm(first, { force: true });
    await writeEntry(entry, first);
    for (const other of others) {
      await mkdir(dirname(other), { recursive: true });
      await copyFile(first, other);
    }
  }
}
