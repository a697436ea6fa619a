/** Engines, workers and the runner on the wire. */

/** `GET /engines/ps`: one row a worker. The first names are Docker Model Runner's. */
export interface WorkerStatus {
  readonly backend_name: string;
  /** The reference by which it was first asked for. */
  readonly model_name: string;
  /** `sha256:<hex>` of the manifest. */
  readonly model_id: string;
  readonly mode: string;
  readonly state: "starting" | "ready" | "draining";
  readonly loading: boolean;
  /** Requests in flight. */
  readonly in_use: number;
  /** RFC 3339, or null while it was never used. */
  readonly last_used: string | null;
  /** Milliseconds until it is unloaded once idle; -1 never. */
  readonly keep_alive_ms: number;
  /** RFC 3339 of the planned unload, or null while in use or pinned. */
  readonly expires_at: string | null;
  readonly pid: number | null;
}

/** `POST /engines/unload`. */
export interface UnloadRequest {
  readonly all?: boolean;
  readonly backend?: string;
  readonly models?: readonly string[];
}

export interface UnloadResult {
  readonly unloaded_runners: number;
}

/** `POST /engines/load`: NDJSON; installs the engine if need be, loads the model, and answers when it is ready. */
export interface LoadRequest {
  readonly model: string;
  readonly backend?: string;
  readonly mode?: string;
  readonly context_size?: number;
  /** A duration such as `5m`, seconds, or -1. */
  readonly keep_alive?: string | number;
}

export interface LoadResult {
  readonly model_id: string;
  readonly backend: string;
  readonly load_ms: number;
}

/** `POST /engines/install-backend`: NDJSON, ending in an `EngineInstallation`. */
export interface InstallRequest {
  readonly backend?: string;
  readonly gpu?: "auto" | "none" | "cuda" | "rocm" | "vulkan" | "metal";
  readonly source?: string;
  readonly version?: string;
}

export interface EngineInstallation {
  readonly backend: string;
  readonly version: string;
  readonly variant: string;
  readonly source: string;
  readonly directory: string;
  readonly active: boolean;
}

/** `GET /runner`: facts of the running runner. */
export interface RunnerInfo {
  readonly version: string;
  readonly pid: number;
  /** Base URL on TCP, or null if the port could not be had. */
  readonly endpoint: string | null;
  /** Why there is no endpoint. */
  readonly endpoint_problem: string | null;
  readonly socket: string | null;
  readonly started_at: string;
  /** Leaves when idle this long; null for a runner that a person started. */
  readonly idle_exit_ms: number | null;
  readonly engines: readonly EngineInstallation[];
}

/** `GET /version`. The rest is absent where no runner answers, as in a command's own process. */
export interface VersionInfo {
  readonly version: string;
  readonly pid?: number;
  /** It finishes its work, takes no more, and will be gone. */
  readonly stopping?: boolean;
}
