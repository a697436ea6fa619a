/** From a name to something an engine can open. */
import { realpath, stat } from "node:fs/promises";
import { basename, dirname, isAbsolute, resolve } from "node:path";
import { AppError } from "../errors.ts";
import { digestOf } from "../oci/digest.ts";
import { encodeCanonical } from "../oci/manifest.ts";
import {
  isAdapter,
  isArchive,
  isOwnWeight,
  isProjector,
  isWeightArchive,
  ownFormat,
  PIPELINE,
  PIPELINE_INDEX,
  PYTORCH,
  weightFormat,
} from "../oci/media-types.ts";
import { readDefaults } from "../oci/model-defaults.ts";
import type { ModelLayer } from "../oci/model-layers.ts";
import type { Bundle, ModelFormat, RunnableModel } from "../store/bundle.ts";
import { readGgufFacts, readGgufShape, splitNames } from "../store/gguf.ts";
import { toReadError } from "../store/read-error.ts";
import type { Store, StoredModel } from "../store/store.ts";
import { ensureBuiltin, isBuiltin } from "./builtin.ts";
import { readConfigFacts, weightLayers } from "./config.ts";
import { IMAGE_FORMAT, requireImage } from "./image-record.ts";
import {
  readStoredGgufShape,
  readStoredOnnxShape,
  readStoredPipelineShape,
  readStoredSafetensorsShape,
  readStoredTraits,
  type StoredFiles,
} from "./stored-shape.ts";

export interface RunnableOptions {
  /** Files that may be named by their absolute path: any, or those of a list. */
  readonly paths: "allow" | readonly string[];
  readonly signal?: AbortSignal;
  /** Beginnings of names of container images that may be run, besides NVIDIA's. */
  readonly imagePrefixes?: readonly string[];
}

/**
 * @param name a reference, a digest, or the absolute path of a GGUF file, which is then served from where it is
 * @throws model_not_found, invalid_reference, forbidden (a path that may not be named), unsupported_model,
 *   invalid_model_file, not_found
 */
export async function resolveRunnable(
  store: Store,
  name: string,
  options: RunnableOptions,
): Promise<RunnableModel> {
  if (isAbsolute(name)) {
    requireAllowed(name, options.paths);
    return toRunnableFile(name);
  }
  const { signal = new AbortController().signal } = options;
  const model = isBuiltin(name) ? await ensureBuiltin(store, { signal }) : await find(store, name);
  const runnable = await toRunnableModel(store, model, { name, signal });
  if (runnable.format === IMAGE_FORMAT) {
    await requireImage(store, model, { name, prefixes: options.imagePrefixes ?? [] });
  }
  return runnable;
}

// --- internal ---

/** Says nothing of what is on the disk to somebody who may not ask. */
function requireAllowed(path: string, allowed: RunnableOptions["paths"]): void {
  if (allowed === "allow" || allowed.some((entry) => resolve(entry) === resolve(path))) return;
  throw new AppError("forbidden", `cannot run \`${path}\`: files are served only to their owner`, {
    hint: "Run `tug run FILE`, start the runner with `tug serve --model FILE`, or package the file and use its name.",
  });
}

async function toRunnableFile(path: string): Promise<RunnableModel> {
  const files: { path: string; size: number; mtimeMs: number }[] = [];
  for (const name of splitNames(path)) files.push(await statFile(name, path));
  return {
    id: digestOf(encodeCanonical(files)),
    name: path,
    format: "gguf",
    weightBytes: files.reduce((sum, { size }) => sum + size, 0),
    readShape: (signal) =>
      readGgufShape(
        files.map((file) => ({ location: file.path, name: basename(file.path) })),
        { signal },
      ),
    openBundle: (signal) => openFile(path, signal),
  };
}

/** Of a set with a missing shard, the header reader says best what is wrong. */
async function statFile(
  name: string,
  asked: string,
): Promise<{ path: string; size: number; mtimeMs: number }> {
  try {
    const { size, mtimeMs } = await stat(name);
    return { path: await realpath(name), size, mtimeMs };
  } catch (error) {
    await readGgufFacts(asked, { signal: new AbortController().signal });
    throw toReadError(name, error);
  }
}

async function openFile(path: string, signal: AbortSignal): Promise<Bundle & AsyncDisposable> {
  const facts = await readGgufFacts(path, { signal });
  const { files } = facts;
  if (facts.isProjector) {
    throw new AppError("unsupported_model", `cannot run \`${path}\`: it is a projector`, {
      hint: "Run the model that it belongs to.",
    });
  }
  // Not the real path: shards are found by their names, and a link's target may have none of them.
  const model = resolve(files[0]?.path ?? path);
  return {
    directory: dirname(model),
    format: "gguf",
    model,
    weightBytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function find(store: Store, name: string): Promise<StoredModel> {
  try {
    return await store.resolve(name);
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "model_not_found") throw error;
    throw new AppError("model_not_found", error.message, {
      hint: "Get it with `tug pull`, find others with `tug search`; `tug list` shows the models that are here, and `tug run pebble` needs no download.",
      cause: error,
    });
  }
}

async function toRunnableModel(
  store: Store,
  model: StoredModel,
  { name, signal }: { readonly name: string; readonly signal: AbortSignal },
): Promise<RunnableModel> {
  const facts = await readConfigFacts(store, model);
  const { format: configFormat } = facts.config;
  const openBundle = (during: AbortSignal): Promise<Bundle & AsyncDisposable> =>
    store.openBundle(model, {
      signal: during,
      ...(configFormat === null ? {} : { configFormat }),
    });
  const weights = weightLayers(facts);
  const bytes = weights.reduce((sum, { size }) => sum + size, 0);
  const known =
    weights.length === 0 ? undefined : formatOfModel(configFormat, weights, facts.layers);
  const { format, weightBytes } =
    known === undefined && facts.layers.some(({ mediaType }) => isWeightArchive(mediaType))
      ? await readUnpacked(openBundle, signal)
      : { format: known, weightBytes: bytes };
  if (format === undefined) throw noKnownWeights(name);
  return {
    id: model.digest,
    name,
    format,
    // Packed ones are counted as they are packed: what they unpack to is known when they are opened.
    weightBytes,
    defaults: readDefaults(model.manifest),
    contextTokens: facts.packagedContext ?? undefined,
    ...sideBytes(facts.layers),
    ...shapeReader(store, { format: known, weights, layers: facts.layers }),
    ...traitsReader(store, { format, layers: facts.layers }),
    openBundle,
  };
}

/** Packed weights, and those of other formats, say nothing of their layers. */
function shapeReader(
  store: Store,
  { format, ...files }: StoredFiles & { readonly format: ModelFormat | undefined },
): Pick<RunnableModel, "readShape"> {
  const read = SHAPE_READERS[format ?? ""];
  if (read === undefined || files.weights.some(isArchived)) return {};
  return { readShape: (signal) => read(store, files, signal) };
}

/** Of formats whose models come with a `config.json` that engines go by. */
function traitsReader(
  store: Store,
  { format, layers }: { readonly format: ModelFormat; readonly layers: readonly ModelLayer[] },
): Pick<RunnableModel, "readTraits"> {
  if (format !== "safetensors" && format !== PYTORCH) return {};
  return { readTraits: () => readStoredTraits(store, layers) };
}

const SHAPE_READERS: Readonly<Record<string, typeof readStoredGgufShape>> = {
  gguf: readStoredGgufShape,
  safetensors: readStoredSafetensorsShape,
  onnx: readStoredOnnxShape,
  dduf: readStoredPipelineShape,
  [PIPELINE]: readStoredPipelineShape,
  // As of ONNX: its `config.json` says what there is to know.
  [PYTORCH]: readStoredOnnxShape,
};

/** What is loaded beside the weights. */
function sideBytes(
  layers: readonly ModelLayer[],
): Pick<RunnableModel, "projectorBytes" | "adapterBytes"> {
  return {
    projectorBytes: sumOf(layers.filter(({ mediaType, path }) => isProjector(mediaType, path))),
    adapterBytes: sumOf(layers.filter(({ mediaType }) => isAdapter(mediaType))),
  };
}

function sumOf(layers: readonly ModelLayer[]): number {
  return layers.reduce((bytes, { size }) => bytes + size, 0);
}

function isArchived({ mediaType }: ModelLayer): boolean {
  return isArchive(mediaType);
}

/** Nothing says what is in the archives: they are unpacked now, once, instead of when the engine starts. */
async function readUnpacked(
  openBundle: RunnableModel["openBundle"],
  signal: AbortSignal,
): Promise<Pick<RunnableModel, "format" | "weightBytes">> {
  await using bundle = await openBundle(signal);
  return { format: bundle.format, weightBytes: bundle.weightBytes };
}

function noKnownWeights(name: string): AppError {
  return new AppError("unsupported_model", `cannot run \`${name}\`: it has no weights known here`, {
    hint: "`tug inspect` shows what it is made of.",
  });
}

/** A directory of a diffusion pipeline has safetensors, but none that an engine for language models reads. */
function formatOfModel(
  text: string | null,
  weights: readonly ModelLayer[],
  layers: readonly ModelLayer[],
): ModelFormat | undefined {
  const format = formatOf(text, weights);
  const isPipeline = format === "safetensors" && layers.some(({ path }) => path === PIPELINE_INDEX);
  return isPipeline ? PIPELINE : format;
}

/** What the config says, else what the layers are, else what the config calls what nobody knows here. */
function formatOf(text: string | null, weights: readonly ModelLayer[]): ModelFormat | undefined {
  // What Docker Model Runner called DDUF at first.
  if (text === "diffusers") return "dduf";
  if (text === "gguf" || text === "safetensors" || text === "dduf") return text;
  const own = ownFormat(text);
  if (own === undefined) return undefined;
  const formats = weights.map(({ mediaType, path }) => weightFormat(mediaType, path, own));
  const isOwn = weights.every(({ mediaType, path }) => isOwnWeight(mediaType, path));
  return formats.find((format) => format !== undefined) ?? (isOwn ? own : undefined);
}
