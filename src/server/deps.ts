/** What the server needs of the rest, by shape: the composition root hands in the real things, tests hand in small ones. */
import type { Hono } from "hono";
import type { RunnerInfo } from "../api/engines.ts";
import type {
  AdoptRequest,
  AdoptResult,
  CopyRequest,
  LoginRequest,
  LoginResult,
  LogoutResult,
  Model,
  ModelDetails,
  PullRequest,
  PullResult,
  PushRequest,
  PushResult,
  SearchResult,
} from "../api/models.ts";
import type { ProgressListener } from "../api/progress.ts";
import type { SearchQuery } from "../models/search.ts";
import type { Mode, RunnableModel } from "../runtime/backend.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Installer } from "../runtime/installer/installer.ts";
import type { Planner } from "../runtime/planner.ts";
import type { Supervisor } from "../runtime/supervisor.ts";
import type { Store } from "../store/store.ts";
import type { LogSource } from "./log-reader.ts";
import type { InferenceObserver } from "./observer.ts";
import type { MetricsSource } from "./routes/metrics.ts";
import type { RequestLog } from "./routes/requests.ts";

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
  Variables: {
    /** The client's own, or made here; answered as `x-request-id`. */
    requestId?: string;
  };
}

/** The part of the supervisor that requests reach. */
export type Runtime = Pick<Supervisor, "acquire" | "list" | "unload" | "pin" | "events">;

/** The part of the installer that requests reach. */
export type EngineInstaller = Pick<Installer, "list" | "install" | "uninstall">;

/** The part of the stored settings that `pin` reaches. */
export interface SettingsStore {
  /** @param mode null: for all modes */
  set(modelId: string, mode: Mode | null, patch: { readonly pinned?: boolean | null }): unknown;
}

/** The runner itself, as far as requests may see and steer it. */
export interface RunnerControl {
  info(): Promise<RunnerInfo>;
  /** Asked to leave: it takes no new work. */
  readonly isStopping: boolean;
  /** Aborted when the work is done and whoever only watches has to go. */
  readonly watching?: AbortSignal;
  /** Returns at once. */
  stop(options: { readonly force: boolean }): void;
}

/** What long work gets. */
export interface WorkOptions {
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
}

/** What reaches beyond this machine's store. Each loads what it needs when it is called: most commands never do. */
export interface Distribution {
  pull(request: PullRequest, options: WorkOptions): Promise<PullResult>;
  push(request: PushRequest & { readonly name: string }, options: WorkOptions): Promise<PushResult>;
  copy(request: CopyRequest, options: WorkOptions): Promise<PushResult>;
  adopt(request: AdoptRequest, options: WorkOptions): Promise<AdoptResult>;
  search(query: SearchQuery, options: WorkOptions): Promise<SearchResult[]>;
  /** A model in its registry. */
  inspect(name: string, options: { readonly signal: AbortSignal }): Promise<ModelDetails>;
  login(request: LoginRequest, options: { readonly signal: AbortSignal }): Promise<LoginResult>;
  logout(registry: string, options: { readonly signal: AbortSignal }): Promise<LogoutResult>;
}

export interface AppDeps {
  readonly store: Pick<Store, "usage">;
  /** The routes under `/models`. */
  readonly models: Hono<AppEnv>;
  /** The routes under `/registries`. */
  readonly registries?: Hono<AppEnv>;
  /** Absent in a process that runs no engines: `ps` is then empty and inference is refused. */
  readonly runtime?: Runtime;
  /** Called when a request needs it: most commands never do. */
  readonly installer: () => EngineInstaller | Promise<EngineInstaller>;
  /** Called when a request needs it. */
  readonly planner: () => Pick<Planner, "plan"> | Promise<Pick<Planner, "plan">>;
  /** `_configure`, `explain` and `estimate`, under `/engines`. */
  readonly settingsRoutes?: Hono<AppEnv>;
  /** Where settings of models are kept. Called when a request needs it. */
  readonly settings: () => SettingsStore | Promise<SettingsStore>;
  /** They see every inference request. */
  readonly observers?: readonly InferenceObserver[];
  /** Absent where they are turned off. */
  readonly metrics?: MetricsSource;
  /** Requests that were recorded. Called when somebody asks for them: it opens the database. */
  readonly requestLog?: () => RequestLog | Promise<RequestLog>;
  /** What the runner and its engines said, also when none runs. */
  readonly logs?: LogSource;
  readonly clock?: Clock;
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
