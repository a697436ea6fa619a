/** What the server needs of the rest, by shape: the composition root hands in the real things, tests hand in small ones. */
import type { Hono } from "hono";
import type { RunnerInfo } from "../api/engines.ts";
import type { Model, ModelDetails } from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import type { AppError } from "../errors.ts";
import type { Gpu, Installation, Mode, RunnableModel, WorkerSettings } from "../runtime/backend.ts";

/** What the listener knows of a request, beyond the request. */
export interface Bindings {
  /** It came by the unix socket or from this process, so from the user who owns the runner. */
  readonly trusted?: boolean;
  /** The address the listener is bound to: a Host header may name it. */
  readonly hostname?: string;
}

/** For Hono's type parameter. */
export interface AppEnv {
  Bindings: Bindings;
}

/** A caller's hold on a worker; releasing it twice does nothing. */
export interface Lease extends Disposable {
  /** The unix socket the engine listens on. */
  readonly socket: string;
  readonly backend: string;
  readonly modelId: string;
  readonly modelName: string;
  readonly workerId: number;
  /** Why the engine died, undefined if it is alive. Waits briefly, since a broken connection is seen before the exit. */
  failure(): Promise<AppError | undefined>;
}

export interface AcquireRequest {
  readonly model: RunnableModel;
  readonly backend?: string | undefined;
  readonly mode: Mode;
  readonly settings: WorkerSettings;
  /** -1 for ever, 0 at once; undefined leaves what the worker has. */
  readonly keepAliveMs?: number | undefined;
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
}

export interface WorkerSnapshot {
  readonly backend: string;
  readonly modelName: string;
  readonly modelId: string;
  readonly mode: Mode;
  readonly state: "starting" | "ready" | "draining";
  readonly inUse: number;
  readonly lastUsed: Date | null;
  readonly keepAliveMs: number;
  readonly expiresAt: Date | null;
  readonly pid: number | null;
}

/** The part of the supervisor that requests reach. */
export interface Runtime {
  acquire(request: AcquireRequest): Promise<Lease>;
  list(): WorkerSnapshot[];
  unload(filter: {
    readonly all?: boolean | undefined;
    readonly backend?: string | undefined;
    readonly models?: readonly string[] | undefined;
  }): Promise<number>;
}

export interface ListedInstallation extends Installation {
  readonly active: boolean;
  readonly sizeBytes: number;
}

/** The part of the installer that requests reach. */
export interface EngineInstaller {
  list(): Promise<ListedInstallation[]>;
  install(
    request: {
      readonly backend: string;
      readonly gpu: Gpu | "auto";
      readonly source?: string | undefined;
      readonly version?: string | undefined;
    },
    options: { readonly signal: AbortSignal; readonly onProgress: ProgressListener },
  ): Promise<Installation>;
  uninstall(request: {
    readonly backend: string;
    readonly version?: string | undefined;
  }): Promise<Installation[]>;
}

export interface StoreUsage {
  readonly models: readonly {
    readonly digest: string;
    readonly tags: readonly string[];
    readonly sizeBytes: number;
    readonly sharedBytes: number;
  }[];
  readonly totalBytes: number;
  readonly reclaimableBytes: number;
}

/** The runner itself, as far as requests may see and steer it. */
export interface RunnerControl {
  info(): Promise<RunnerInfo>;
  /** Returns at once. */
  stop(options: { readonly force: boolean }): void;
  logs(options: {
    readonly follow: boolean;
    readonly signal: AbortSignal;
  }): ReadableStream<Uint8Array>;
}

export interface AppDeps {
  readonly store: { usage(): Promise<StoreUsage> };
  /** The routes under `/models`. */
  readonly models: Hono<AppEnv>;
  /** Absent in a process that runs no engines: `ps` is then empty and inference is refused. */
  readonly runtime?: Runtime;
  /** Called when a request needs it: most commands never do. */
  readonly installer: () => EngineInstaller | Promise<EngineInstaller>;
  /** @param options.trusted whether the caller may name any file on this machine */
  readonly resolve: (
    name: string,
    options: { readonly trusted: boolean },
  ) => Promise<RunnableModel>;
  readonly listModels: () => Promise<Model[]>;
  readonly inspectModel: (name: string) => Promise<ModelDetails>;
  /** Absent in a process that is not the runner. */
  readonly runner?: RunnerControl;
  readonly version: string;
  /** What callers over TCP must present; undefined: nothing. */
  readonly apiKey?: string;
  /** Browser origins besides loopback's: `scheme://host[:port]`, `scheme://*.host`, `scheme://host:*`, or `*`. */
  readonly allowedOrigins: readonly string[];
}
