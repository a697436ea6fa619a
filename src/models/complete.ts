/** Models that need nothing more from anywhere. */
import { AppError } from "../errors.ts";
import { displayReference } from "../oci/reference.ts";
import type { Store, StoredModel } from "../store/store.ts";

/** The model is not there, or so damaged that it has to come again. */
const ABSENT: ReadonlySet<string> = new Set([
  "model_not_found",
  "blob_not_found",
  "digest_mismatch",
  "invalid_model_file",
]);

/** The model that has exactly this name, if any. @param reference canonical */
export async function findStored(
  store: Store,
  reference: string,
): Promise<StoredModel | undefined> {
  try {
    const model = await store.resolve(reference);
    return model.tags.includes(reference) || reference.includes("@") ? model : undefined;
  } catch (error) {
    if (error instanceof AppError && ABSENT.has(error.code)) return undefined;
    throw error;
  }
}

/** As `findStored`, with every blob there in its right size. */
export async function findComplete(
  store: Store,
  reference: string,
): Promise<StoredModel | undefined> {
  const model = await findStored(store, reference);
  if (model === undefined) return undefined;
  for (const blob of [model.manifest.config, ...model.manifest.layers]) {
    if (!(await store.hasBlob(blob.digest, blob.size))) return undefined;
  }
  return model;
}

/** @param reference canonical */
export function notHereOffline(reference: string): AppError {
  const name = displayReference(reference);
  return new AppError(
    "offline",
    `cannot pull \`${name}\`: it is not here, and offline mode is on`,
    {
      hint: "Leave out `--offline` (or unset TUG_OFFLINE), or bring it as an archive with `tug import FILE`.",
    },
  );
}

/** @param reference canonical */
export function outdatedOffline(reference: string): string {
  return `\`${displayReference(reference)}\` may be outdated: offline, nobody was asked for a newer one`;
}
