/** Models on the wire: `GET /models`, `GET /models/{name}` and what the other model routes answer. */
import type { ErrorObject } from "../errors.ts";

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

/**
 * `POST /models/package`, on trusted transports only: paths are absolute and on the server's machine. Exactly one of
 * `gguf`, `safetensors_dir`, `onnx_dir`, `pytorch_dir`, `dduf`, `files` and `from` says what is packaged.
 */
export interface PackageRequest {
  readonly model: string;
  readonly gguf?: string;
  /** A directory with weights; every file in it becomes a layer. */
  readonly safetensors_dir?: string;
  /** A directory with an ONNX model: its graphs, their data, and its configuration. */
  readonly onnx_dir?: string;
  readonly pytorch_dir?: string;
  readonly dduf?: string;
  /** Of a format that is not known here, which `format_name` names: files of weights, the first one first. */
  readonly files?: readonly string[];
  readonly format_name?: string;
  /** A model of the store, to make a variant of. */
  readonly from?: string;
  readonly licenses?: readonly string[];
  readonly chat_template?: string;
  readonly mmproj?: string;
  readonly context_size?: number;
  readonly format?: "docker" | "cncf";
  /** RFC 3339. */
  readonly created?: string;
  /** Hard-link the weights into the store instead of copying them. */
  readonly link?: boolean;
  /** Push it. Without `keep` nothing enters the store: blobs are read from the files themselves. */
  readonly push?: boolean;
  readonly keep?: boolean;
  /** The registry may be spoken to over http or with any certificate. */
  readonly insecure?: boolean;
  /** Of the manifest. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** With `push` also what a `PushResult` says. */
export interface PackageResult extends Partial<PushResult> {
  /** Canonical reference. */
  readonly reference: string;
  readonly id: string;
  readonly size_bytes: number;
}

export interface TagResult {
  readonly message: string;
  readonly target: string;
}

/** `POST /models/{name}/repackage`, Docker Model Runner's way to a variant with another context. */
export interface RepackageResult {
  readonly message: string;
  readonly source: string;
  /** Canonical reference. */
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

/** `POST /models/create`: NDJSON. The first name and the token's are Docker Model Runner's. */
export interface PullRequest {
  readonly from: string;
  /** For this pull alone: a bearer token for Hugging Face, an identity token for a registry. */
  readonly "bearer-token"?: string;
  /** `os/arch[/variant]`, to choose from an index by. */
  readonly platform?: string;
  readonly insecure?: boolean;
  readonly connections?: number;
  /** Bytes a second; 0: no limit. */
  readonly limit_rate?: number;
  /** Answer with a `PullJob` at once; it goes on without the client. Runners only. */
  readonly detach?: boolean;
}

export interface PullResult {
  /** Canonical reference. */
  readonly reference: string;
  readonly id: string;
  readonly size_bytes: number;
  /** What came over the network. */
  readonly fetched_bytes: number;
  /** Nothing had to be done. */
  readonly up_to_date: boolean;
}

/** `GET /models/pulls`: pulls that the runner works on, and the last ones that ended. */
export interface PullJob {
  readonly id: string;
  /** As it was asked for. */
  readonly model: string;
  readonly state: "running" | "done" | "failed" | "cancelled";
  readonly done_bytes: number;
  readonly total_bytes: number | null;
  /** RFC 3339. */
  readonly started_at: string;
  readonly ended_at: string | null;
  readonly error: ErrorObject | null;
}

/** `POST /models/{name}/push`: NDJSON. */
export interface PushRequest {
  /** Another reference to push it as. */
  readonly to?: string;
  readonly "bearer-token"?: string;
  readonly insecure?: boolean;
}

export interface PushResult {
  /** Canonical reference. */
  readonly reference: string;
  readonly digest: string;
  readonly size_bytes: number;
  readonly uploaded_bytes: number;
  /** Bytes of blobs the registry had, or took from another of its repositories. */
  readonly reused_bytes: number;
}

/** `POST /models/copy`: NDJSON, from registry to registry. */
export interface CopyRequest {
  readonly source: string;
  readonly target: string;
  readonly platform?: string;
  readonly insecure?: boolean;
}

/** `POST /registries/login`, trusted transports only. The credential is tried before it is kept. */
export interface LoginRequest {
  readonly registry: string;
  readonly username: string;
  readonly password: string;
  readonly insecure?: boolean;
}

export interface LoginResult {
  readonly registry: string;
  readonly username: string;
  /** Where it is kept, for people. */
  readonly kept_in: string;
}

/** `GET /models/search?q=&source=&limit=`. */
export interface SearchResult {
  /** What to give to `pull`. */
  readonly name: string;
  readonly source: "docker" | "huggingface";
  readonly description: string | null;
  readonly downloads: number | null;
  readonly likes: number | null;
  readonly official: boolean;
  /** RFC 3339. */
  readonly updated: string | null;
}

/** `POST /models/adopt`: NDJSON. */
export interface AdoptRequest {
  readonly dry_run?: boolean;
}

/** What other programs' caches on this machine hold that a pull can use. */
export interface AdoptResult {
  readonly files: readonly {
    readonly path: string;
    /** Null in a dry run for a file that would have to be read to know. */
    readonly digest: string | null;
    readonly size: number;
    readonly program: "ollama" | "huggingface" | "lmstudio" | "llamacpp";
  }[];
  readonly bytes: number;
}

/** `POST /models/export`: a tar of one or several models. `POST /models/load` of it answers with a `Model` for each. */
export interface ExportRequest {
  readonly models: readonly string[];
  /** Digests that the other side has: they are left out, and so are the blobs of models among them. */
  readonly have?: readonly string[];
  /**
   * Absolute path on the server's machine, on trusted transports only: an earlier export, or text with digests in it. What
   * it names is left out.
   */
  readonly missing_from?: string;
}

/** `POST /registries/logout`, trusted transports only. */
export interface LogoutRequest {
  readonly registry: string;
}

export interface LogoutResult {
  readonly registry: string;
  /** Where it was kept, for people; null if there was none. */
  readonly removed_from: string | null;
  /** Where there is still one, for people, such as Docker's own config.json; null if nobody is logged in now. */
  readonly remains_in: string | null;
}
