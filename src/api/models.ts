/** Models on the wire: `GET /models`, `GET /models/{name}` and what the other model routes answer. */

/** Display facts. Every key is always present; null says that the artifact does not tell. */
export interface ModelConfig {
  readonly format: string | null;
  readonly quantization: string | null;
  readonly parameters: string | null;
  readonly architecture: string | null;
  /** Text as packaged, such as `2.86MiB`. */
  readonly size: string | null;
  /** Tokens; -1 is the model's own maximum. */
  readonly context_size: number | null;
  /** The GGUF header as text; arrays of over 50 entries are left out. */
  readonly gguf: Readonly<Record<string, string>> | null;
}

export interface Model {
  /** `sha256:<hex>` of the manifest. */
  readonly id: string;
  /** Canonical references, such as `docker.io/ai/pebble:latest`; empty for an untagged model. */
  readonly tags: readonly string[];
  /** Unix seconds. */
  readonly created: number;
  readonly config: ModelConfig;
  /** Bytes of all its blobs, manifest included. */
  readonly size_bytes: number;
}

/** `GET /models/{name}`: a model with its contents. */
export interface ModelDetails extends Model {
  readonly media_type: string;
  readonly artifact_type: string | null;
  readonly annotations: Readonly<Record<string, string>>;
  readonly layers: readonly ModelLayer[];
}

export interface ModelLayer {
  readonly media_type: string;
  readonly digest: string;
  readonly size: number;
  /** From `org.cncf.model.filepath` or `org.opencontainers.image.title`. */
  readonly path: string | null;
}

/** `DELETE /models/{name}`: what happened, in order. */
export type RemoveEvent = { readonly Untagged: string } | { readonly Deleted: string };

/** `POST /models/package`, on trusted transports only: paths are absolute and on the server's machine. */
export interface PackageRequest {
  readonly model: string;
  readonly gguf: string;
  readonly licenses?: readonly string[];
  readonly chat_template?: string;
  readonly mmproj?: string;
  readonly context_size?: number;
  readonly format?: "docker" | "cncf";
  /** RFC 3339. */
  readonly created?: string;
  /** Hard-link the weights into the store instead of copying them. */
  readonly link?: boolean;
}

export interface PackageResult {
  /** Canonical reference. */
  readonly reference: string;
  readonly id: string;
  readonly size_bytes: number;
}

export interface TagResult {
  readonly message: string;
  readonly target: string;
}

export interface PruneResult {
  /** Untagged models removed (`all` only). */
  readonly models: readonly string[];
  readonly blobs: number;
  /** Stale files of interrupted writes. */
  readonly ingests: number;
  readonly bundles: number;
  readonly freed_bytes: number;
}

export interface VerifyProblem {
  readonly digest: string;
  /** References of the models that use the blob, or their ids. */
  readonly models: readonly string[];
  readonly problem: "missing" | "wrong size" | "wrong digest" | "unreadable";
}

export interface VerifyResult {
  readonly blobs: number;
  readonly bytes: number;
  readonly problems: readonly VerifyProblem[];
}

/** `GET /engines/df`. The first two names are Docker Model Runner's. A byte shared by two models counts once. */
export interface DiskUsage {
  readonly models_disk_usage: number;
  readonly default_backend_disk_usage: number;
  readonly models: readonly {
    readonly id: string;
    readonly tags: readonly string[];
    readonly size_bytes: number;
    readonly shared_bytes: number;
  }[];
  /** Bytes that `prune` would free. */
  readonly reclaimable: number;
  readonly engines: readonly {
    readonly backend: string;
    readonly version: string;
    readonly variant: string;
    readonly size_bytes: number;
  }[];
}
