/** Blobs on their way to a registry: several at once, with progress, each digest once. */
import type { ProgressListener } from "../api/progress.ts";
import { AppError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { displayReference, formatReference, type Reference } from "../oci/reference.ts";
import type { Repository, UploadSource } from "../oci/registry.ts";
import { forEachConcurrently } from "./concurrent.ts";
import { reportBytes } from "./progress.ts";

/** As many as other clients use: registries limit clients with more. */
const BLOBS_AT_ONCE = 5;

export interface OutgoingBlob {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Disposed of when it has been read. */
  readonly source: UploadSource & Partial<Disposable>;
  /** Repositories of the same registry that may have it. */
  readonly mountFrom?: readonly string[];
}

export interface SendOptions {
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener | undefined;
  /** What it is called in progress events. */
  readonly verb: "push" | "copy";
  /** Blobs at once; 5 unless given. */
  readonly limit?: number;
}

/**
 * Uploads what the registry lacks, the largest first: the small ones fill the gaps at the end.
 *
 * @throws what `Repository.upload` throws; the other uploads have ended by then
 */
export async function sendBlobs(
  repository: Repository,
  blobs: readonly OutgoingBlob[],
  options: SendOptions,
): Promise<{ uploadedBytes: number; reusedBytes: number }> {
  const { limit = BLOBS_AT_ONCE } = options;
  const unique = [...new Map(blobs.map((blob) => [blob.digest, blob])).values()];
  const largestFirst = unique.toSorted((a, b) => b.size - a.size);
  let [uploadedBytes, reusedBytes] = [0, 0];
  await forEachConcurrently(largestFirst, { ...options, limit }, async (blob, signal) => {
    const outcome = await send(repository, blob, { ...options, signal });
    if (outcome === "uploaded") uploadedBytes += blob.size;
    else reusedBytes += blob.size;
  });
  return { uploadedBytes, reusedBytes };
}

/** @throws not_supported for what serves models but is no OCI registry */
export function requireOciRegistry(reference: Reference, verb: "push" | "copy"): void {
  const what = OTHER_HUBS[reference.registry];
  if (what === undefined) return;
  const name = displayReference(formatReference(reference)).slice(0, 200);
  const hint =
    verb === "push"
      ? "Push it to an OCI registry: `tug push MODEL REGISTRY/NAMESPACE/NAME:TAG`."
      : "Copy between OCI registries; what is elsewhere, pull it first and push it then.";
  throw new AppError("not_supported", `cannot ${verb} \`${name}\`: ${what} is no OCI registry`, {
    hint,
  });
}

// --- internal ---

const OTHER_HUBS: Readonly<Record<string, string>> = {
  "huggingface.co": "Hugging Face",
  "registry.ollama.ai": "the Ollama library",
  "ollama.com": "the Ollama library",
};

const PHASES = {
  push: { working: "uploading", uploaded: "pushed" },
  copy: { working: "copying", uploaded: "copied" },
} as const;

async function send(
  repository: Repository,
  { digest, size, source, mountFrom }: OutgoingBlob,
  options: SendOptions,
): Promise<"present" | "mounted" | "uploaded"> {
  const { signal, onProgress, verb } = options;
  const { working, uploaded } = PHASES[verb];
  const report = reportBytes(onProgress, { id: digest, phase: working });
  try {
    const outcome = await repository.upload({ digest, size }, source, {
      signal,
      onBytes: (done) => report(done, size),
      ...(mountFrom === undefined ? {} : { mountFrom }),
    });
    const phase = { present: "already there", mounted: "mounted", uploaded }[outcome];
    reportBytes(onProgress, { id: digest, phase })(size, size);
    return outcome;
  } finally {
    source[Symbol.dispose]?.();
  }
}
