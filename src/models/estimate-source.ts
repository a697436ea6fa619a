/** The shape of a model, wherever it is: of one that is not here the headers are read by ranges, some megabytes. */
import { AppError } from "../errors.ts";
import type { BlobSource } from "../http/blob-source.ts";
import { isTransient, withRetry } from "../http/retry.ts";
import { parseManifest } from "../oci/manifest.ts";
import { isArchive, isProjector } from "../oci/media-types.ts";
import { formatReference, parseReference } from "../oci/reference.ts";
import { readGgufShapeFrom } from "../store/gguf.ts";
import type { GgufSource } from "../store/gguf-parse.ts";
import type { ModelShape } from "../store/model-shape.ts";
import type { Store } from "../store/store.ts";
import type { SourcePlan } from "../transfer/plan.ts";
import { emptyConfigFacts, weightLayers } from "./config.ts";
import { requireModelManifest } from "./model-manifest.ts";
import { fetchChosen } from "./pull-artifact.ts";
import { planForeign } from "./pull-foreign.ts";
import type { Remotes } from "./remotes.ts";
import { resolveRunnable, type RunnableOptions } from "./runnable.ts";

/** Headers of the largest vocabularies have some 20 MB, and the parser gives up at 50; what asks for more is no header. */
const MAX_HEADER_BYTES = 40 * 1024 * 1024;
/** Of all files together: each shard costs the 2 MB that the parser asks for first. */
const MAX_TOTAL_BYTES = 256 * 1024 * 1024;
/** Of one request: the parser asks for about as much. Bytes. */
const MAX_READ_BYTES = 16 * 1024 * 1024;
/** More would read more than `MAX_TOTAL_BYTES`. */
const MAX_FILES = 128;

export interface EstimateSource {
  /** `sha256:<hex>` of the model here, or of its manifest in a registry; the name where nothing else identifies it. */
  readonly modelId: string;
  readonly name: string;
  readonly isLocal: boolean;
  readonly shape: ModelShape;
  readonly projectorBytes: number;
}

export interface EstimateDeps {
  readonly store: Store;
  readonly remotes: Remotes;
  readonly paths: RunnableOptions["paths"];
  readonly signal: AbortSignal;
  /** `os/arch[/variant]`, of a model with several. */
  readonly platform?: string | undefined;
}

/**
 * @param name of a model here or anywhere it could be pulled from, or a path that may be named
 * @throws what `resolveRunnable` throws, unless the model is not here: then what a pull throws before its first blob;
 *   unsupported_model for weights whose shape cannot be read
 */
export async function estimateSource(name: string, deps: EstimateDeps): Promise<EstimateSource> {
  const { store, paths, signal } = deps;
  const trimmed = name.trim();
  try {
    const model = await resolveRunnable(store, trimmed, { paths, signal });
    const { id, projectorBytes = 0 } = model;
    if (model.readShape === undefined) throw unreadable(trimmed);
    const shape = await model.readShape(signal);
    return { modelId: id, name: model.name, isLocal: true, shape, projectorBytes };
  } catch (error) {
    if (!mayBeElsewhere(error, deps)) throw error;
  }
  return (await readForeign(trimmed, deps)) ?? readArtifact(trimmed, deps);
}

// --- internal ---

interface RemoteFile {
  readonly name: string;
  /** Bytes; undefined where nobody says before it is asked for. */
  readonly size: number | undefined;
  readonly sources: readonly BlobSource[];
}

/** An address is none of the store's names. */
function mayBeElsewhere(error: unknown, { remotes }: EstimateDeps): boolean {
  if (!(error instanceof AppError) || remotes.offline) return false;
  return error.code === "model_not_found" || error.code === "invalid_reference";
}

async function readForeign(name: string, deps: EstimateDeps): Promise<EstimateSource | undefined> {
  const plan = await planForeign(deps, name);
  if (plan === undefined) return undefined;
  const reference = formatReference(plan.reference);
  return read(weightsOf(plan, name), {
    signal: deps.signal,
    modelId: reference,
    name: reference,
    projectorBytes: sumOf(plan.files.filter(({ role }) => role === "mmproj")),
  });
}

function weightsOf({ layout, files }: SourcePlan, name: string): RemoteFile[] {
  if (layout !== "gguf") throw unreadable(name);
  return files
    .filter(({ role }) => role === "weights")
    .map(({ path, size, sources }) => ({ name: path, size, sources }));
}

async function readArtifact(name: string, deps: EstimateDeps): Promise<EstimateSource> {
  const { remotes, signal, platform } = deps;
  const reference = parseReference(name);
  const repository = remotes.registry.repository(reference);
  const ref = reference.digest ?? reference.tag ?? "latest";
  const { descriptor, bytes } = await fetchChosen(repository, ref, { platform, signal });
  const manifest = parseManifest(bytes);
  requireModelManifest(manifest, name);
  const facts = emptyConfigFacts(manifest);
  const weights = weightLayers(facts);
  if (weights.some(({ mediaType }) => isArchive(mediaType)) || facts.config.format !== "gguf")
    throw unreadable(name);
  const files = weights.map(({ digest, size, path }) => ({
    name: path ?? digest,
    size,
    sources: repository.blobSources(digest),
  }));
  const projectors = facts.layers.filter((layer) => isProjector(layer.mediaType, layer.path));
  return read(files, {
    signal,
    modelId: descriptor.digest,
    name: formatReference(reference),
    projectorBytes: sumOf(projectors),
  });
}

async function read(
  files: readonly RemoteFile[],
  { signal, ...rest }: Omit<EstimateSource, "isLocal" | "shape"> & { readonly signal: AbortSignal },
): Promise<EstimateSource> {
  if (files.length === 0 || files.length > MAX_FILES) throw unreadable(rest.name);
  const allowance = { bytes: MAX_TOTAL_BYTES };
  const opened: GgufSource[] = [];
  for (const file of files) opened.push(await openRemote(file, { signal, allowance }));
  return { ...rest, isLocal: false, shape: await readGgufShapeFrom(opened, { signal }) };
}

interface ReadOptions {
  readonly signal: AbortSignal;
  /** What may still be read of all files. */
  readonly allowance: { bytes: number };
}

async function openRemote(file: RemoteFile, options: ReadOptions): Promise<GgufSource> {
  const { signal, allowance } = options;
  const sizeBytes = file.size ?? (await askSize(file, options));
  let readBytes = 0;
  return {
    name: file.name,
    sizeBytes,
    read: async (start, end) => {
      const length = end - start;
      readBytes += length;
      allowance.bytes -= length;
      if (length > MAX_READ_BYTES || readBytes > MAX_HEADER_BYTES || allowance.bytes < 0)
        throw tooLong(file.name);
      return withRetry(() => readRange(file, { start, end }, options), { signal });
    },
  };
}

async function askSize(file: RemoteFile, options: ReadOptions): Promise<number> {
  const { signal } = options;
  const body = await withRetry(() => openAny(file, { start: 0, end: 1 }, signal), { signal });
  await body.body.cancel().catch(() => undefined);
  if (body.totalBytes === undefined) throw noRanges(file);
  return body.totalBytes;
}

/** Of the sources the first that answers. */
async function openAny(
  { sources, name }: RemoteFile,
  range: { readonly start: number; readonly end: number },
  signal: AbortSignal,
) {
  let failure: unknown = new AppError("not_found", `cannot read \`${name}\`: nobody has it`);
  for (const source of sources) {
    try {
      return await source.open(range, { signal });
    } catch (error) {
      signal.throwIfAborted();
      // One that may come back is worth another attempt, whatever the others say.
      if (isTransient(error) || !isTransient(failure)) failure = error;
    }
  }
  throw failure;
}

async function readRange(
  file: RemoteFile,
  range: { readonly start: number; readonly end: number },
  { signal }: ReadOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const answer = await openAny(file, range, signal);
  const wanted = new Uint8Array(range.end - range.start);
  // A server without ranges sends all of the file: of that a header may be read, but not again and again.
  if (answer.start > range.start || range.start - answer.start > MAX_READ_BYTES) {
    await answer.body.cancel().catch(() => undefined);
    throw noRanges(file);
  }
  let position = answer.start;
  for await (const chunk of answer.body) {
    const from = Math.max(0, range.start - position);
    const at = position + from - range.start;
    if (at < wanted.length)
      wanted.set(chunk.subarray(from, from + wanted.length - at), Math.max(0, at));
    position += chunk.length;
    // Leaving the loop cancels the rest.
    if (position >= range.end) return wanted;
  }
  throw new AppError("registry_unavailable", `cannot read \`${file.name}\`: it was cut short`, {
    hint: "Check the connection and try again.",
  });
}

function sumOf(files: readonly { readonly size: number | undefined }[]): number {
  return files.reduce((sum, { size = 0 }) => sum + size, 0);
}

function unreadable(name: string): AppError {
  return new AppError(
    "unsupported_model",
    `cannot estimate \`${name.slice(0, 200)}\`: only the headers of GGUF files say what they need`,
    { hint: "Choose a GGUF version of the model." },
  );
}

function tooLong(name: string): AppError {
  return new AppError(
    "invalid_model_file",
    `cannot read \`${name}\`: its header is larger than any known one`,
    { details: { limitBytes: MAX_HEADER_BYTES } },
  );
}

function noRanges({ name, sources }: RemoteFile): AppError {
  const host = sources[0]?.host ?? "its server";
  return new AppError(
    "registry_unavailable",
    `cannot read the header of \`${name}\`: ${host} does not send parts of files`,
    { hint: "Pull the model, and estimate it then." },
  );
}
