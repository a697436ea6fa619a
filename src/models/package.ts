/** Turns GGUF files into a model in the store. The same files give the same digest, whenever and wherever. */
import type { PackageRequest, PackageResult } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import { formatReference } from "../oci/reference.ts";
import type { Store, Transaction } from "../store/store.ts";
import { type LayerFile, encodeConfig, encodeManifest } from "./artifact.ts";
import { type InputFile, readPackageInputs, requireUnchanged } from "./package-inputs.ts";
import { reportBytes } from "./progress.ts";

export interface PackageOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener;
  /** Seconds since 1970; this process's `SOURCE_DATE_EPOCH` unless given. */
  readonly sourceDateEpoch?: string | undefined;
}

/**
 * Packages a model and tags it. Every input is checked before the store is written to, and a failure leaves the store
 * as it was. Tagging the same model again changes nothing.
 *
 * @throws usage, invalid_reference, not_found, forbidden, invalid_model_file, conflict, insufficient_storage
 */
export async function packageModel(
  store: Store,
  request: PackageRequest,
  options: PackageOptions,
): Promise<PackageResult> {
  const { signal, onProgress, sourceDateEpoch = process.env["SOURCE_DATE_EPOCH"] } = options;
  const inputs = await readPackageInputs(request, { signal, sourceDateEpoch });
  for (const message of inputs.warnings) onProgress?.({ type: "warning", message });
  await using transaction = await store.begin();
  const files: LayerFile[] = [];
  for (const file of inputs.files) {
    const link = request.link === true && file.role === "weights";
    const layer = await ingest(transaction, file, { link, signal, onProgress });
    // The same text under two names is one layer: Docker Model Runner fetches both into one file at once.
    const isThere = files.some(
      ({ role, digest }) => role === layer.role && digest === layer.digest,
    );
    if (!isThere) files.push(layer);
  }
  const parts = { ...inputs, files };
  const config = encodeConfig(parts);
  const blob = await transaction.writeBlob(config.bytes);
  const manifest = encodeManifest(parts, { mediaType: config.mediaType, ...blob });
  signal.throwIfAborted();
  const model = await transaction.commit(manifest, inputs.reference);
  return {
    reference: formatReference(inputs.reference),
    id: model.digest,
    size_bytes: model.sizeBytes,
  };
}

// --- internal ---

async function ingest(
  transaction: Transaction,
  file: InputFile,
  options: { link: boolean; signal: AbortSignal; onProgress: ProgressListener | undefined },
): Promise<LayerFile> {
  const { link, signal } = options;
  const phase = link ? "linking" : "copying";
  const onBytes = reportBytes(options.onProgress, { id: file.name, phase });
  const ingested = await transaction.ingestFile(file.path, { link, signal, onBytes });
  await requireUnchanged(file);
  const { digest, size, method, reason } = ingested;
  if (link && reason !== undefined) {
    const message = `\`${file.name}\` was ${method === "clone" ? "cloned" : "copied"}, not linked: ${reason}`;
    options.onProgress?.({ type: "warning", message });
  }
  return { role: file.role, name: file.name, digest, size };
}
