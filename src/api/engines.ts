/** Engines, workers and the runner on the wire. */
import type { SettingMismatch } from "./settings.ts";

/** `GET /engines/ps`: one row a worker. The first names are Docker Model Runner's. */
export interface WorkerStatus {
  readonly backend_name: string;
  /** The reference by which it was first asked for. */
  readonly model_name: string;
  /** `sha256:<hex>` of the manifest. */
  readonly model_id: string;
  readonly mode: string;
  readonly state: "starting" | "ready" | "asleep" | "draining";
  readonly loading: boolean;
  /** Whether it serves a request now. */
  readonly in_use: boolean;
  /** Requests in flight; more than `slots` wait in the engine. */
  readonly requests: number;
  /** Requests it serves at once; null if nobody knows. */
  readonly slots: number | null;
  /** Tokens that one request may use; null if nobody knows. */
  readonly context_size: number | null;
  /** Where its memory is: `cuda:0`, `ram`. */
  readonly devices: readonly string[];
  /** Bytes by device that it counts for. */
  readonly memory_estimate: Readonly<Record<string, number>>;
  /** Bytes by device that its process holds now; null where nobody measures. */
  readonly memory_actual: Readonly<Record<string, number>> | null;
  /** How far the load is; null unless it loads. */
  readonly progress: WorkerProgress | null;
  /** What confines it: `bubblewrap`, `limits`, `none`, …; null before its process is started. */
  readonly sandbox: string | null;
  /** Its engine listens on a port: nothing parts it from this machine's network, also in a sandbox. */
  readonly shares_network?: boolean;
  /** Never unloaded but when asked to. */
  readonly pinned: boolean;
  /** What the engine does otherwise than it was told: each is an error. */
  readonly mismatches: readonly SettingMismatch[];
  /** RFC 3339, or null while it was never used. */
  readonly last_used: string | null;
  /** How long it stays once idle, as Docker Model Runner says it: `5m0s`, `-1` for ever. */
  readonly keep_alive: string;
  /** Milliseconds until it is unloaded once idle; -1 never. */
  readonly keep_alive_ms: number;
  /** RFC 3339 of the planned unload, or null while in use or pinned. */
  readonly expires_at: string | null;
  readonly pid: number | null;
}

/** How far a load is. */
export interface WorkerProgress {
  /** `installing`, `loading`, … */
  readonly phase: string;
  readonly done_bytes: number | null;
  readonly total_bytes: number | null;
}

/** `POST /engines/unload`. Idle workers go at once; those that serve are skipped, unless it is said what of them. */
export interface UnloadRequest {
  readonly all?: boolean;
  readonly backend?: string;
  readonly models?: readonly string[];
  /** Those that serve take nothing new and finish; answered when they have gone. */
  readonly wait?: boolean;
  /** What they serve is cut off. */
  readonly force?: boolean;
}

export interface UnloadResult {
  /** Docker Model Runner's name for the number of workers that went. */
  readonly unloaded_runners: number;
  readonly skipped: readonly SkippedUnload[];
}

export interface SkippedUnload {
  readonly model: string;
  /** In plain words. */
  readonly reason: string;
}

/** `POST /engines/pin`: kept as a stored setting, and applied to workers that are loaded. */
export interface PinRequest {
  readonly models: readonly string[];
  readonly pinned: boolean;
}

export interface PinResult {
  readonly models: readonly PinnedModel[];
}

export interface PinnedModel {
  readonly model: string;
  readonly model_id: string;
  readonly pinned: boolean;
  /** Whether it is in memory now. */
  readonly loaded: boolean;
}

/** `GET /engines/events`: the first event, `snapshot`. Later ones are the runtime's, by their kinds. */
export interface EventsSnapshot {
  readonly workers: readonly WorkerStatus[];
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

/** What `install-backend` takes for `gpu`. */
export const ENGINE_GPUS = [
  "auto",
  "none",
  "cuda",
  "rocm",
  "vulkan",
  "metal",
  "sycl",
  "musa",
  "cann",
  "opencl",
] as const;

/** `POST /engines/install-backend`: NDJSON, ending in an `EngineInstallation`. */
export interface InstallRequest {
  readonly backend?: string;
  readonly gpu?: (typeof ENGINE_GPUS)[number];
  readonly source?: string;
  readonly version?: string;
  /** Absolute path of a Python that has the engine's package; only by the runner's socket. */
  readonly python?: string;
}

export interface EngineInstallation {
  readonly backend: string;
  readonly version: string;
  readonly variant: string;
  readonly source: string;
  readonly directory: string;
  readonly active: boolean;
  /** Why it is this variant; absent where that was no choice. */
  readonly reason?: string;
}

/** `POST /engines/use`, answered with an `EngineInstallation`. Either of the last two. */
export interface UseRequest {
  readonly backend: string;
  /** Of those installed, with or without its variant: `0.7.0-cpu`, `0.7.0`. */
  readonly version?: string;
  /** The version that was active before. */
  readonly rollback?: boolean;
}

/** `GET /engines/available`: one row an engine that Tug knows, installed or not, in the order of preference. */
export interface AvailableEngine {
  readonly name: string;
  /** Of models: `gguf`, `safetensors`, … */
  readonly formats: readonly string[];
  /** `completion`, `embedding`, `reranking`, `image-generation`. */
  readonly modes: readonly string[];
  /** `unavailable`: no source can serve it now. `unsupported`: it does not run on such a machine. */
  readonly state: "installed" | "installable" | "unavailable" | "unsupported";
  /** What is missing, or not as it was configured. */
  readonly problem: string | null;
  /** What to do. */
  readonly hint: string | null;
  /** Those that some source has for this machine: `cpu`, `cuda`, … */
  readonly variants: readonly string[];
  /** Where it could come from, in the order in which they are tried. */
  readonly sources: readonly EngineSource[];
  /** The version that config.toml names. */
  readonly pinned_version: string | null;
  /** What a rollback would make the active one, as `VERSION-VARIANT`. */
  readonly previous: string | null;
  readonly installed: readonly InstalledEngine[];
}

export interface EngineSource {
  /** path, github, oci, apt, pypi. */
  readonly name: string;
  /** Why it cannot serve the engine, as far as is known without asking it. */
  readonly problem: string | null;
}

export interface InstalledEngine {
  readonly version: string;
  readonly variant: string;
  readonly source: string;
  readonly directory: string;
  /** Used for models that are loaded from now on. */
  readonly active: boolean;
  /** It is the version that config.toml names. */
  readonly pinned: boolean;
  /** 0 for one that is used in place. */
  readonly size_bytes: number;
  /** RFC 3339. */
  readonly installed_at: string;
  /** Why it is this variant; absent where that was no choice. */
  readonly reason?: string;
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
  /** File of the certificate authority that clients of an https endpoint have to trust; null: none of Tug's. */
  readonly authority?: string | null;
  readonly started_at: string;
  /** Leaves when idle this long; null for a runner that a person started. */
  readonly idle_exit_ms: number | null;
  readonly engines: readonly EngineInstallation[];
  /** How engines are confined. */
  readonly sandbox?: SandboxInfo | undefined;
}

export interface SandboxInfo {
  /** As configured: `auto`, `off`, `require`. */
  readonly mode: string;
  /** What holds: `bubblewrap`, `seatbelt`, `limits`, `none`. */
  readonly name: string;
  /** Why engines are not isolated though they should be, and what to do. */
  readonly problem: string | null;
}

/** `GET /version`. The rest is absent where no runner answers, as in a command's own process. */
export interface VersionInfo {
  readonly version: string;
  readonly pid?: number;
  /** It finishes its work, takes no more, and will be gone. */
  readonly stopping?: boolean;
}
