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
import type { ModelProfile } from "../models/capabilities.ts";
import type { ImageSettings } from "../models/pull-image.ts";
import type { SearchQuery } from "../models/search.ts";
import type { Mode, RunnableModel } from "../runtime/backend.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Installer } from "../runtime/installer/installer.ts";
import type { Planner } from "../runtime/planner.ts";
import type { Supervisor } from "../runtime/supervisor.ts";
import type { ApiKeys } from "../state/api-keys.ts";
import type { Responses } from "../state/responses.ts";
import type { Store } from "../store/store.ts";
import type { Caller } from "./auth.ts";
import type { BodyBudget } from "./body-budget.ts";
import type { ImageFiles } from "./image-files.ts";
import type { LogSource } from "./log-reader.ts";
import type { InferenceObserver } from "./observer.ts";
import type { MetricsSource } from "./routes/metrics.ts";
import type { ModelRoutesDeps } from "./routes/models.ts";
import type { RequestLog } from "./routes/requests.ts";

/** Names of the engines there are, those that are built in first. */
export type EngineNames = () => Promise<readonly string[]>;

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
    /** As `AppDeps` has it. */
    engineNames?: EngineNames | undefined;
    /** Who has shown a key; absent where none was demanded, and none that counts was sent. */
    caller?: Caller;
  };
}

/** The part of the supervisor that requests reach. */
export type Runtime = Pick<Supervisor, "acquire" | "list" | "unload" | "pin" | "events">;

/** The part of the API keys that requests reach. */
export type KeyStore = Pick<ApiKeys, "create" | "find" | "list" | "revoke" | "touch">;

/** The part of the installer that requests reach. */
export type EngineInstaller = Pick<
  Installer,
  "list" | "describe" | "install" | "uninstall" | "use" | "rollback"
>;

/** The part of the stored settings that `pin` reaches. */
export interface SettingsStore {
  /** @param mode null: for all modes */
  set(modelId: string, mode: Mode | null, patch: { readonly pinned?: boolean | null }): unknown;
}

/** The part of the kept responses that requests reach. */
export type ResponseStore = Pick<Responses, "save" | "find" | "chain" | "findItem" | "remove">;

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
  /** How models are had that are container images; absent: they are not. */
  readonly images?: ImageSettings | undefined;
}

export interface AppDeps {
  /** Called when a request names an engine; those that are built in unless given. */
  readonly engineNames?: EngineNames | undefined;
  readonly store: Pick<Store, "usage">;
  /** The routes under `/models`. */
  readonly models: Hono<AppEnv>;
  /** What those routes work with, for the dialects that do the same in other words. */
  readonly modelWork?: ModelRoutesDeps;
  /** What a model of the store can do, by its digest; undefined for a file outside of it. Remembered. */
  readonly profileOf?: (modelId: string) => Promise<ModelProfile | undefined>;
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
  /** What all routes that hold bodies share, with the limit of one; made by each that needs it unless given. */
  readonly bodies?: BodyBudget;
  /** They see every inference request. */
  readonly observers?: readonly InferenceObserver[];
  /** Absent where they are turned off. */
  readonly metrics?: MetricsSource;
  /** Requests that were recorded. Called when somebody asks for them: it opens the database. */
  readonly requestLog?: () => RequestLog | Promise<RequestLog>;
  /** What the Responses API keeps. Called when a request needs it: it opens the database. */
  readonly responses?: () => ResponseStore | Promise<ResponseStore>;
  /** Where pictures that are answered as URLs are. The runner's; absent: there are no such URLs. */
  readonly imageFiles?: Pick<ImageFiles, "keep" | "find">;
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
  /** TUG_API_KEY: where it is set, callers over TCP must present it, or a key of `keys`. */
  readonly apiKey?: string;
  /** Whether they must also without it: others than this machine's users reach the port. */
  readonly keyRequired?: boolean;
  /** Keys that `tug key` made. Called when a request needs them: it opens the database. */
  readonly keys?: () => KeyStore | Promise<KeyStore>;
  /** Browser origins besides loopback's, as `parseOrigins` of `config-names.ts` returns them. */
  readonly allowedOrigins: readonly string[];
  /** Names that a Host header may say besides this machine's, as `parseHosts` returns them. */
  readonly allowedHosts?: readonly string[];
}
