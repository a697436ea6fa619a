/** Makes a model of what a source plans: fetches its files into the store, and writes the manifest that they have none of. */
import { AppError } from "../errors.ts";
import { log } from "../log.ts";
import { formatReference } from "../oci/reference.ts";
import { safePath } from "../store/safe-path.ts";
import type { BlobId, Transaction } from "../store/store.ts";
import type { PlannedFile, SourcePlan } from "../transfer/plan.ts";
import { encodeModel, type LayerFile } from "./artifact.ts";
import { forEachConcurrently } from "./concurrent.ts";
import { bringBlobs } from "./layers.ts";
import { readModelFacts } from "./model-facts.ts";
import { plainFacts } from "./package-format.ts";
import { reportBytes } from "./progress.ts";
import type { Pulled, PullContext } from "./pull.ts";
import { readOn } from "./read-on.ts";

/** Files without a digest are small ones beside the weights, but for those of plain addresses. */
const MAX_AT_ONCE = 4;

/** @throws unsupported_model, invalid_model_file, and what fetching throws */
export async function receivePlan(context: PullContext, plan: SourcePlan): Promise<Pulled> {
  const { store, signal, onProgress } = context;
  for (const message of plan.warnings) onProgress?.({ type: "warning", message });
  // Before a byte is fetched: a model that could never be opened is of no use.
  for (const { path } of plan.files) safePath(path);
  await using transaction = await store.begin();
  const known = plan.files.filter(hasDigest);
  let fetchedBytes = await bringBlobs(context, transaction, known);
  const blobs = new Map<string, BlobId>(known.map((file) => [file.path, file]));
  const unknown = plan.files.filter((file) => !hasDigest(file));
  await forEachConcurrently(unknown, { limit: MAX_AT_ONCE, signal }, async (file, aborted) => {
    const blob = await ingest({ ...context, signal: aborted }, transaction, file);
    blobs.set(file.path, blob);
    fetchedBytes += blob.size;
  });
  const files = plan.files.map(({ role, path }): LayerFile & { location: string } => {
    const blob = blobs.get(path);
    if (blob === undefined)
      throw new AppError("internal", `a planned file was not fetched: ${path}`);
    const { digest, size } = blob;
    return { role, path, digest, size, location: store.blobPath(digest) };
  });
  const { facts, warnings } = await readFacts(plan, files, signal);
  for (const message of warnings) onProgress?.({ type: "warning", message });
  const { config, manifest } = encodeModel({ ...plan, format: "docker", facts, files });
  await transaction.writeBlob(config.bytes);
  signal.throwIfAborted();
  const model = await transaction.commit(manifest.bytes, plan.reference);
  const reference = formatReference(plan.reference);
  log.debug(`pull: made a model reference=${reference} digest=${model.digest}`);
  return { model, reference, fetchedBytes, isUpToDate: false };
}

// --- internal ---

/** Of formats that are not opened here, the source says which it is. */
async function readFacts(
  { weightFormat }: SourcePlan,
  files: readonly (LayerFile & { readonly location: string })[],
  signal: AbortSignal,
): ReturnType<typeof readModelFacts> {
  if (weightFormat === undefined) return readModelFacts(files, { signal });
  const sizes = files.flatMap(({ role, size }) => (role === "weights" ? [size] : []));
  return { facts: plainFacts(weightFormat, sizes), warnings: [] };
}

type Known = PlannedFile & BlobId;

function hasDigest(file: PlannedFile): file is Known {
  return file.digest !== undefined && file.size !== undefined;
}

/** A source that gives no digest is believed what it sends over TLS, if it is as long as it said. */
async function ingest(
  { signal, onProgress }: PullContext,
  transaction: Transaction,
  file: PlannedFile,
): Promise<BlobId> {
  const [source] = file.sources;
  if (source === undefined)
    throw new AppError("internal", `a planned file has no source: ${file.path}`);
  const report = reportBytes(onProgress, { id: file.path, phase: "downloading" });
  let total = file.size;
  const chunks = readOn(source, {
    signal,
    size: file.size,
    onSize: (size) => {
      total = size;
    },
  });
  const blob = await transaction.ingestStream(chunks, {
    signal,
    onBytes: (done) => report(done, total ?? done + 1),
  });
  report(blob.size, blob.size);
  return blob;
}
