/** Turns files into a model, in the store or in a registry. The same files give the same digest, whenever and wherever. */
import type { PackageRequest, PackageResult } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import { parseManifest } from "../oci/manifest.ts";
import { formatReference, parseReference, type Reference } from "../oci/reference.ts";
import type { UploadSource } from "../oci/registry.ts";
import { hashFile } from "../store/blobs.ts";
import { toReadError } from "../store/read-error.ts";
import type { BlobId, Store, StoredModel, Transaction } from "../store/store.ts";
import { type ArtifactFormat, encodeModel, type LayerFile } from "./artifact.ts";
import { resolveCreated } from "./created.ts";
import { type InputFile, requireUnchanged } from "./input-file.ts";
import { type OutgoingBlob, requireOciRegistry } from "./outgoing.ts";
import { formatOfArtifact, readVariant, type Variant } from "./package-from.ts";
import { readPackageInputs } from "./package-inputs.ts";
import { checkAnnotations, checkContext, requireOneSource } from "./package-request.ts";
import { reportBytes } from "./progress.ts";
import { fileSource, pushArtifact, pushModel } from "./push.ts";
import { mountCandidates } from "./push-target.ts";
import type { Remotes } from "./remotes.ts";

/** What packaging reaches registries by. */
type PackageRemotes = Pick<Remotes, "registry">;

export interface PackageOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
  /** Seconds since 1970; this process's `SOURCE_DATE_EPOCH` unless given. */
  readonly sourceDateEpoch?: string | undefined;
  /** For `push`; made only when it is needed. */
  readonly remotes?: PackageRemotes | (() => PackageRemotes | Promise<PackageRemotes>) | undefined;
  /** Finds the model of `from`; in the store unless given. */
  readonly findModel?: ((name: string) => Promise<StoredModel>) | undefined;
}

/**
 * Packages a model and tags it, or pushes it straight from the files. Every input is checked before anything is written or
 * sent, and a failure leaves the store as it was. Packaging the same again changes nothing.
 *
 * @throws usage, invalid_reference, not_found, model_not_found, forbidden, invalid_model_file, unsupported_model, conflict,
 *   insufficient_storage, and with `push` what `pushArtifact` throws
 */
export async function packageModel(
  store: Store,
  request: PackageRequest,
  options: PackageOptions,
): Promise<PackageResult> {
  const reference = parseTarget(request.model);
  if (request.push === true) requireOciRegistry(reference, "push");
  const draft = await readDraft(store, request, options);
  for (const message of draft.warnings) options.onProgress?.({ type: "warning", message });
  const work: Work = { store, request, options, reference, draft };
  if (request.push !== true) return keep(work);
  return request.keep === true ? keepAndPush(work) : pushFiles(work);
}

// --- internal ---

interface Work {
  readonly store: Store;
  readonly request: PackageRequest;
  readonly options: PackageOptions;
  readonly reference: Reference;
  readonly draft: Variant;
}

function parseTarget(model: string): Reference {
  const reference = parseReference(model);
  if (reference.digest === undefined) return reference;
  throw new AppError("invalid_reference", `cannot package \`${model}\`: a name has no digest yet`, {
    hint: "Leave out what follows `@`.",
  });
}

async function readDraft(
  store: Store,
  request: PackageRequest,
  options: PackageOptions,
): Promise<Variant> {
  requireOneSource(request);
  const annotations = checkAnnotations(request.annotations ?? {});
  const { signal, sourceDateEpoch = process.env["SOURCE_DATE_EPOCH"] } = options;
  const created = resolveCreated(request.created, sourceDateEpoch);
  if (request.from !== undefined) {
    const isDated = request.created !== undefined || Boolean(sourceDateEpoch);
    const model = await (options.findModel ?? ((name) => store.resolve(name)))(request.from);
    const format = request.format ?? formatOfArtifact(model);
    return readVariant(
      store,
      { model, request },
      {
        signal,
        format,
        created: isDated ? created : undefined,
        contextTokens: checkContext(request.context_size, format),
        annotations,
      },
    );
  }
  const format: ArtifactFormat = request.format ?? "docker";
  const contextTokens = checkContext(request.context_size, format);
  const inputs = await readPackageInputs(request, { format, signal });
  return {
    warnings: inputs.warnings,
    files: inputs.files,
    shared: [],
    assemble: (files) =>
      encodeModel({ ...inputs, files, format, created, contextTokens, annotations }),
  };
}

async function keep(work: Work): Promise<PackageResult> {
  const { store, draft, reference, options } = work;
  await using transaction = await store.begin();
  const layers: LayerFile[] = [];
  for (const file of draft.files) layers.push(await ingest(transaction, file, work));
  const { config, manifest } = draft.assemble(layers);
  await transaction.writeBlob(config.bytes);
  options.signal.throwIfAborted();
  const model = await transaction.commit(manifest.bytes, reference);
  return {
    reference: formatReference(reference),
    id: model.digest,
    size_bytes: model.sizeBytes,
  };
}

async function ingest(
  transaction: Transaction,
  file: InputFile,
  { request, options }: Work,
): Promise<LayerFile> {
  const { signal, onProgress } = options;
  const link = request.link === true && file.role === "weights";
  const phase = link ? "linking" : "copying";
  const onBytes = reportBytes(onProgress, { id: file.path, phase });
  const ingested = await transaction.ingestFile(file.location, { link, signal, onBytes });
  await requireUnchanged(file);
  const { digest, size, method, reason } = ingested;
  if (link && reason !== undefined) {
    const message = `\`${file.path}\` was ${method === "clone" ? "cloned" : "copied"}, not linked: ${reason}`;
    onProgress?.({ type: "warning", message });
  }
  return { role: file.role, path: file.path, digest, size };
}

/** From the store, where nobody changes the files any more. */
async function keepAndPush(work: Work): Promise<PackageResult> {
  const { store, reference, options } = work;
  const { signal, onProgress } = options;
  const { id } = await keep(work);
  const to = formatReference(reference);
  const remotes = await openRemotes(options);
  return { ...(await pushModel(store, remotes, { name: id, to, signal, onProgress })), id };
}

/** Nothing enters the store: each file is read once to know its digest, and again if the registry lacks it. */
async function pushFiles(work: Work): Promise<PackageResult> {
  const { draft, store, reference, options } = work;
  const { signal, onProgress } = options;
  const layers: LayerFile[] = [];
  for (const file of draft.files) layers.push(await hash(file, options));
  const mounts =
    draft.source === undefined ? () => [] : mountCandidates(reference, draft.source, []);
  const { config, manifest } = draft.assemble(layers);
  const blobs = [
    ...draft.files.map(({ location }, index) => toOutgoing(layers[index] as LayerFile, location)),
    ...draft.shared.map((blob) => ({
      ...toOutgoing(blob, store.blobPath(blob.digest)),
      mountFrom: mounts(blob.digest),
    })),
    { digest: config.digest, size: config.size, source: memorySource(config.bytes) },
  ];
  // Not the repeated ones that the manifest leaves out.
  const parsed = parseManifest(manifest.bytes);
  const used = new Set([parsed.config, ...parsed.layers].map(({ digest }) => digest));
  const artifact = {
    reference,
    manifest: manifest.bytes,
    mediaType: manifest.mediaType,
    blobs: blobs.filter(({ digest }) => used.has(digest)),
  };
  try {
    const pushed = await pushArtifact(await openRemotes(options), artifact, { signal, onProgress });
    return { ...pushed, id: pushed.digest };
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "digest_mismatch") throw error;
    // The registry got other bytes than were hashed: if a file is why, say which.
    for (const file of draft.files) await requireUnchanged(file);
    throw error;
  }
}

async function hash(file: InputFile, { signal, onProgress }: PackageOptions): Promise<LayerFile> {
  const { role, path, location, sizeBytes } = file;
  const report = reportBytes(onProgress, { id: path, phase: "hashing" });
  const onBytes = (done: number): void => report(done, sizeBytes);
  try {
    const { digest, size } = await hashFile(location, { signal, onBytes });
    await requireUnchanged(file);
    return { role, path, digest, size };
  } catch (error) {
    throw toReadError(location, error, path);
  }
}

async function openRemotes({ remotes }: PackageOptions): Promise<PackageRemotes> {
  const opened = typeof remotes === "function" ? await remotes() : remotes;
  if (opened !== undefined) return opened;
  throw new AppError(
    "not_supported",
    "cannot push the model: no registry can be reached from here",
  );
}

function toOutgoing({ digest, size }: BlobId, location: string): OutgoingBlob {
  return { digest, size, source: fileSource(location, size) };
}

function memorySource(bytes: Uint8Array): UploadSource {
  return {
    size: bytes.length,
    open: (start, end) =>
      new ReadableStream({
        start(controller) {
          if (end > start) controller.enqueue(bytes.slice(start, end));
          controller.close();
        },
      }),
  };
}
