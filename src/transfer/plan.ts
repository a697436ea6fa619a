/** What a source that is no OCI artifact offers: files that become the layers of one. */
import type { BlobSource } from "../http/blob-source.ts";
import type { Digest } from "../oci/digest.ts";
import type { PackagedDefaults } from "../oci/model-defaults.ts";
import type { Reference } from "../oci/reference.ts";

/** What a file is for. */
export type PlannedRole =
  | "weights"
  | "mmproj"
  | "adapter"
  | "draft"
  | "chatTemplate"
  | "license"
  | "file";

export interface PlannedFile {
  readonly role: PlannedRole;
  /** Within the artifact, with forward slashes. */
  readonly path: string;
  /** Bytes; undefined where the source does not say before it sends. */
  readonly size: number | undefined;
  /** SHA-256, where the source says; else what comes is hashed and trusted for its size and its TLS. */
  readonly digest: Digest | undefined;
  readonly sources: readonly BlobSource[];
}

export interface SourcePlan {
  /** The name that the model gets in the store. */
  readonly reference: Reference;
  /** `gguf`: files by role. `directory`: every file at its path, as of a safetensors repository. */
  readonly layout: "gguf" | "directory";
  readonly files: readonly PlannedFile[];
  /** Of weights that say nothing of themselves: what `config.format` is to be. Absent: their headers are read. */
  readonly weightFormat?: string | undefined;
  /** RFC 3339: of the source, not of now, so that it is reproducible. */
  readonly created: string;
  /** What the manifest says besides: `org.opencontainers.image.source`, `.revision`, … */
  readonly annotations: Readonly<Record<string, string>>;
  /** Tokens; a source that packages one, such as Ollama's `num_ctx`. */
  readonly contextTokens?: number | undefined;
  /** What requests get where they say nothing themselves. */
  readonly defaults?: PackagedDefaults | undefined;
  /** Sentences about choices that were made, or about what is left out. */
  readonly warnings: readonly string[];
}
